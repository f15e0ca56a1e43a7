"""ResNet-50: He et al. (2016), "Deep Residual Learning for Image Recognition", table 1.

As deployed today (v1.5, the variant of MLPerf Inference): a stage's stride sits in the 3 x 3
convolution of its first block, not in the 1 x 1 before it. The parameters are the same; the
multiply-adds are 4.1 instead of 3.8 G.
"""

from torch import Tensor, nn

from falcon_ray.profiling.zoo.synthetic import draw_weights_, images, seeded

_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
"""Width of the bottleneck, number of blocks, stride of the first block; conv2_x to conv5_x."""

_EXPANSION = 4

_BRANCH_SCALE = 0.25
"""With untrained batch norms each of 16 additions would about double the variance."""


def _convolution(
    inputs: int, outputs: int, *, kernel: int, stride: int = 1, scale: float = 1.0
) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    norm = nn.BatchNorm2d(outputs)
    nn.init.constant_(norm.weight, scale)
    return nn.Sequential(convolution, norm)


class Bottleneck(nn.Module):
    """Reduce, convolve, expand, and add to the shortcut; He et al. (2016), figure 5, right.

    Maps `inputs` channels to 4 `width`, and divides each side of the image by `stride`.
    """

    def __init__(self, inputs: int, *, width: int, stride: int) -> None:
        super().__init__()
        outputs = _EXPANSION * width
        self.reduce = _convolution(inputs, width, kernel=1)
        self.convolve = _convolution(width, width, kernel=3, stride=stride)
        self.expand = _convolution(width, outputs, kernel=1, scale=_BRANCH_SCALE)
        keeps_shape = inputs == outputs and stride == 1
        self.shortcut = (
            nn.Identity() if keeps_shape else _convolution(inputs, outputs, kernel=1, stride=stride)
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, h, w) to (batch, 4 width, h / stride, w / stride), rounded up."""
        branch = self.relu(self.reduce(x))
        branch = self.relu(self.convolve(branch))
        return self.relu(self.expand(branch) + self.shortcut(x))


class ResNet(nn.Module):
    """The 50-layer network: a stem, four stages of bottlenecks, a classifier of pooled features."""

    def __init__(self, *, classes: int = 1000) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *_convolution(3, 64, kernel=7, stride=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        blocks: list[Bottleneck] = []
        channels = 64
        for width, count, stride in _STAGES:
            for index in range(count):
                blocks.append(Bottleneck(channels, width=width, stride=stride if index == 0 else 1))
                channels = _EXPANSION * width
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(channels, classes)
        draw_weights_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, 3, 224, 224) to logits (batch, classes)."""
        features = self.blocks(self.stem(x))
        return self.classifier(features.mean(dim=(2, 3)))


def resnet50(seed: int = 0) -> ResNet:
    """Build ResNet-50 for ImageNet, 25,557,032 parameters, untrained, in eval mode."""
    with seeded(seed):
        return ResNet().eval()


def resnet50_inputs(batch_size: int, seed: int = 0) -> Tensor:
    """Draw images, shape (batch_size, 3, 224, 224), float32."""
    return images(batch_size, side=224, seed=seed)
