"""VGG-16: Simonyan and Zisserman (2015), "Very Deep Convolutional Networks", table 1, column D.

Dropout between the fully connected layers is left out: serving never draws it.
"""

from torch import Tensor, nn

from falcon_ray.profiling.zoo.synthetic import draw_weights_, images, seeded

_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and number of 3 x 3 convolutions; each stage ends by halving the image."""

_SIDE = 224
_LAST_SIDE = _SIDE // 2 ** len(_STAGES)
_CLASSIFIER_WIDTH = 4096

_CENTRING = 0.5
"""Without any, all images get nearly the same logits; with all, bfloat16 is 17 % off, not 4 %."""


class Vgg(nn.Module):
    """The 16-layer network: five stages of convolutions, three fully connected layers."""

    def __init__(self, *, classes: int = 1000) -> None:
        super().__init__()
        channels = 3
        layers: list[nn.Module] = []
        for width, count in _STAGES:
            for _ in range(count):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(channels * _LAST_SIDE**2, _CLASSIFIER_WIDTH),
            nn.ReLU(inplace=True),
            nn.Linear(_CLASSIFIER_WIDTH, _CLASSIFIER_WIDTH),
            nn.ReLU(inplace=True),
            nn.Linear(_CLASSIFIER_WIDTH, classes),
        )
        draw_weights_(self, centring=_CENTRING)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, 3, 224, 224) to logits (batch, classes)."""
        return self.classifier(self.features(x).flatten(1))


def vgg16(seed: int = 0) -> Vgg:
    """Build VGG-16 for ImageNet, 138,357,544 parameters, untrained, in eval mode."""
    with seeded(seed):
        return Vgg().eval()


def vgg16_inputs(batch_size: int, seed: int = 0) -> Tensor:
    """Draw images, shape (batch_size, 3, 224, 224), float32."""
    return images(batch_size, side=_SIDE, seed=seed)
