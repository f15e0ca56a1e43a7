"""A ConvNeXt of the size "atto": Liu et al. (2022), "A ConvNet for the 2020s", section 2.

Depths 2, 2, 6, 2 and widths 40 to 320 as others publish under that name, on images of 128 x 128.
Stochastic depth is left out: serving never draws it.
"""

import torch
from torch import Tensor, nn

from falcon_ray.profiling.zoo.synthetic import draw_weights_, seeded
from falcon_ray.studies.search.cpu_models.pixels import normalised, pixels

_DEPTHS = (2, 2, 6, 2)
_WIDTHS = (40, 80, 160, 320)
_STEM = 4
_KERNEL = 7
_EXPANSION = 4
_NORM_EPS = 1e-6
_BRANCH_SCALE = 0.5
"""Of untrained branches, in place of the learnt scale per channel."""


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of images, which stand in the second dimension."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=_NORM_EPS)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in the base class
        """Keep the shape (batch, channels, height, width)."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNextBlock(nn.Module):
    """Convolve each channel, normalise, expand and project every pixel; figure 4."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(width, width, _KERNEL, padding=_KERNEL // 2, groups=width)
        self.norm = nn.LayerNorm(width, eps=_NORM_EPS)
        self.expand = nn.Linear(width, _EXPANSION * width)
        self.activation = nn.GELU()
        self.project = nn.Linear(_EXPANSION * width, width)
        self.scale = nn.Parameter(torch.full((width,), _BRANCH_SCALE))

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (batch, width, height, width of the image)."""
        pixels = self.norm(self.spatial(x).permute(0, 2, 3, 1))
        branch = self.scale * self.project(self.activation(self.expand(pixels)))
        return x + branch.permute(0, 3, 1, 2)


class ConvNext(nn.Module):
    """A stem of patches, four stages with halved resolution between them, a classifier."""

    def __init__(self, *, classes: int = 1000) -> None:
        super().__init__()
        channels = _WIDTHS[0]
        layers: list[nn.Module] = [nn.Conv2d(3, channels, _STEM, stride=_STEM)]
        layers.append(ChannelNorm(channels))
        for depth, width in zip(_DEPTHS, _WIDTHS, strict=True):
            if width != channels:
                layers += [ChannelNorm(channels), nn.Conv2d(channels, width, 2, stride=2)]
                channels = width
            layers += [ConvNextBlock(width) for _ in range(depth)]
        self.features = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(channels, eps=_NORM_EPS)
        self.classifier = nn.Linear(channels, classes)
        draw_weights_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map pixels (batch, 3, 128, 128), bytes, to logits (batch, classes)."""
        images = normalised(x, self.classifier.weight.dtype)
        return self.classifier(self.norm(self.features(images).mean(dim=(2, 3))))


def convnext(seed: int = 0) -> ConvNext:
    """Build the network, untrained, in eval mode."""
    with seeded(seed):
        return ConvNext().eval()


def convnext_inputs(batch_size: int, seed: int = 0) -> Tensor:
    """Draw pixels, shape (batch_size, 3, 128, 128), uint8."""
    return pixels(batch_size, seed=seed)
