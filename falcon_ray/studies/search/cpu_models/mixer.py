"""A small MLP-Mixer: Tolstikhin et al. (2021), "MLP-Mixer: An all-MLP Architecture", section 2.

Patches of 16 x 16 as in the paper, on images of 128 x 128 and with half the width of its smallest
network, so that one core serves it within milliseconds.
"""

from torch import Tensor, nn

from falcon_ray.profiling.zoo.synthetic import draw_weights_, seeded
from falcon_ray.studies.search.cpu_models.pixels import SIDE, normalised, pixels

_PATCH = 16
_PATCHES = (SIDE // _PATCH) ** 2
_WIDTH = 256
_LAYERS = 8
_TOKEN_WIDTH = 128
_CHANNEL_WIDTH = 1024


def _mlp(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


class MixerLayer(nn.Module):
    """Mix the patches of each channel, then the channels of each patch; eq. 1."""

    def __init__(self) -> None:
        super().__init__()
        self.token_norm = nn.LayerNorm(_WIDTH)
        self.token_mixing = _mlp(_PATCHES, _TOKEN_WIDTH)
        self.channel_norm = nn.LayerNorm(_WIDTH)
        self.channel_mixing = _mlp(_WIDTH, _CHANNEL_WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (batch, patches, width)."""
        mixed = self.token_mixing(self.token_norm(x).transpose(1, 2))
        x = x + mixed.transpose(1, 2)
        return x + self.channel_mixing(self.channel_norm(x))


class MlpMixer(nn.Module):
    """Patches, a stack of mixer layers, and a classifier of the mean patch."""

    def __init__(self, *, classes: int = 1000) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, _WIDTH, _PATCH, stride=_PATCH)
        self.layers = nn.Sequential(*(MixerLayer() for _ in range(_LAYERS)))
        self.norm = nn.LayerNorm(_WIDTH)
        self.classifier = nn.Linear(_WIDTH, classes)
        draw_weights_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map pixels (batch, 3, 128, 128), bytes, to logits (batch, classes)."""
        images = normalised(x, self.patches.weight.dtype)
        patches = self.patches(images).flatten(2).transpose(1, 2)
        return self.classifier(self.norm(self.layers(patches)).mean(dim=1))


def mixer(seed: int = 0) -> MlpMixer:
    """Build the mixer, untrained, in eval mode."""
    with seeded(seed):
        return MlpMixer().eval()


def mixer_inputs(batch_size: int, seed: int = 0) -> Tensor:
    """Draw pixels, shape (batch_size, 3, 128, 128), uint8."""
    return pixels(batch_size, seed=seed)
