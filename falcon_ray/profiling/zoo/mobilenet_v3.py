"""MobileNetV3-Large 1.0: Howard et al. (2019), "Searching for MobileNetV3", table 1.

Dropout before the last layer is left out: serving never draws it.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from falcon_ray.profiling.zoo.synthetic import draw_weights_, images, seeded


@dataclass(frozen=True, slots=True)
class _Row:
    """One bottleneck of table 1.

    `squeeze` is the width inside squeeze-and-excite: a quarter of `expansion`, rounded to the
    nearest multiple of 8 that is not a tenth smaller, as in the authors' code; 0 without SE.
    """

    kernel: int
    expansion: int
    outputs: int
    squeeze: int
    activation: type[nn.Module]
    stride: int


_RE, _HS = nn.ReLU, nn.Hardswish

_ROWS = (
    _Row(3, 16, 16, 0, _RE, 1),
    _Row(3, 64, 24, 0, _RE, 2),
    _Row(3, 72, 24, 0, _RE, 1),
    _Row(5, 72, 40, 24, _RE, 2),
    _Row(5, 120, 40, 32, _RE, 1),
    _Row(5, 120, 40, 32, _RE, 1),
    _Row(3, 240, 80, 0, _HS, 2),
    _Row(3, 200, 80, 0, _HS, 1),
    _Row(3, 184, 80, 0, _HS, 1),
    _Row(3, 184, 80, 0, _HS, 1),
    _Row(3, 480, 112, 120, _HS, 1),
    _Row(3, 672, 112, 168, _HS, 1),
    _Row(5, 672, 160, 168, _HS, 2),
    _Row(5, 960, 160, 240, _HS, 1),
    _Row(5, 960, 160, 240, _HS, 1),
)
_STEM_CHANNELS, _LAST_CHANNELS, _CLASSIFIER_WIDTH = 16, 960, 1280

_BRANCH_SCALE = 0.7
"""With untrained batch norms each addition would about double the variance."""


def _convolution(
    inputs: int, outputs: int, *, kernel: int = 1, stride: int = 1, groups: int = 1
) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    return (
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=1e-3),
    )


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from the means of all channels; section 5.3."""

    def __init__(self, channels: int, *, squeeze: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.Conv2d(channels, squeeze, 1),
            nn.ReLU(),
            nn.Conv2d(squeeze, channels, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (batch, channels, height, width)."""
        return x * self.gate(x.mean(dim=(2, 3), keepdim=True))


class InvertedResidual(nn.Module):
    """Expand, convolve each channel, weigh the channels, project; figure 4.

    Where the table's expansion does not widen the input, there is none.
    """

    def __init__(self, inputs: int, row: _Row) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if row.expansion != inputs:
            layers += [*_convolution(inputs, row.expansion), row.activation()]
        layers += _convolution(
            row.expansion, row.expansion, kernel=row.kernel, stride=row.stride, groups=row.expansion
        )
        layers.append(row.activation())
        if row.squeeze:
            layers.append(SqueezeExcite(row.expansion, squeeze=row.squeeze))
        projection, norm = _convolution(row.expansion, row.outputs)
        self.layers = nn.Sequential(*layers, projection, norm)
        self.adds_input = row.stride == 1 and inputs == row.outputs
        if self.adds_input:
            nn.init.constant_(norm.weight, _BRANCH_SCALE)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, h, w) to (batch, outputs, h / stride, w / stride), rounded up."""
        projected = self.layers(x)
        return x + projected if self.adds_input else projected


class MobileNetV3(nn.Module):
    """The large network: a stem, the bottlenecks of table 1, a classifier with a hidden layer."""

    def __init__(self, *, classes: int = 1000) -> None:
        super().__init__()
        channels = _STEM_CHANNELS
        layers: list[nn.Module] = [
            *_convolution(3, channels, kernel=3, stride=2),
            nn.Hardswish(),
        ]
        for row in _ROWS:
            layers.append(InvertedResidual(channels, row))
            channels = row.outputs
        layers += [*_convolution(channels, _LAST_CHANNELS), nn.Hardswish()]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(_LAST_CHANNELS, _CLASSIFIER_WIDTH),
            nn.Hardswish(),
            nn.Linear(_CLASSIFIER_WIDTH, classes),
        )
        draw_weights_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, 3, 224, 224) to logits (batch, classes)."""
        return self.classifier(self.features(x).mean(dim=(2, 3)))


def mobilenet_v3(seed: int = 0) -> MobileNetV3:
    """Build MobileNetV3-Large for ImageNet, 5,483,032 parameters, untrained, in eval mode."""
    with seeded(seed):
        return MobileNetV3().eval()


def mobilenet_v3_inputs(batch_size: int, seed: int = 0) -> Tensor:
    """Draw images, shape (batch_size, 3, 224, 224), float32."""
    return images(batch_size, side=224, seed=seed)
