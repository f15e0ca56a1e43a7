"""A block of Stable Diffusion v1's UNet: Rombach et al. (2022), "High-Resolution Image Synthesis".

It is the first block behind the UNet's first convolution (`input_blocks.1` of the authors' code),
which works at the full 64 x 64 of a latent image: a residual block that is told the time step, as
in Ho et al. (2020), "Denoising Diffusion Probabilistic Models", appendix B, then a transformer over
pixels that is told the prompt, section 3.3 and appendix E.2.1. Both are told by embeddings, which
other networks make. Dropout is left out: serving never draws it.
"""

import torch
from torch import Tensor, nn

from falcon_ray.profiling.zoo.synthetic import draw_weights_, seeded

_CHANNELS = 320
_SIDE = 64
_GROUPS = 32
_HEADS = 8
_FEED_FORWARD_WIDTH = 4 * _CHANNELS
_TIME_WIDTH = 4 * _CHANNELS
_CONTEXT_WIDTH = 768
_CONTEXT_TOKENS = 77


class ResidualBlock(nn.Module):
    """Two convolutions, the time step added between them; Ho et al. (2020), appendix B."""

    def __init__(self, channels: int, *, time_width: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.GroupNorm(_GROUPS, channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        self.time = nn.Sequential(nn.SiLU(), nn.Linear(time_width, channels))
        self.second = nn.Sequential(
            nn.GroupNorm(_GROUPS, channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Keep the shape (batch, channels, height, width); `time` is (batch, time_width)."""
        branch = self.first(x) + self.time(time)[:, :, None, None]
        return x + self.second(branch)


class Attention(nn.Module):
    """Multi-head attention of tokens to a context, which may be the tokens; section 3.3."""

    def __init__(self, width: int, *, context_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(context_width, width, bias=False)
        self.value = nn.Linear(context_width, width, bias=False)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Keep the shape (batch, tokens, width); `context` is (batch, any, context_width)."""
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(x), self.key(context), self.value(context))
        )
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.output(mixed.transpose(1, 2).flatten(-2))


class GatedFeedForward(nn.Module):
    """One hidden layer, gated by another; GEGLU of Shazeer (2020), "GLU Variants", eq. 6."""

    def __init__(self, width: int, *, hidden_width: int) -> None:
        super().__init__()
        self.hidden_and_gate = nn.Linear(width, 2 * hidden_width)
        self.output = nn.Linear(hidden_width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (batch, tokens, width)."""
        hidden, gate = self.hidden_and_gate(x).chunk(2, dim=-1)
        return self.output(hidden * nn.functional.gelu(gate))


class SpatialTransformer(nn.Module):
    """Pixels attend to one another and then to the prompt; appendix E.2.1."""

    def __init__(
        self,
        channels: int,
        *,
        heads: int,
        context_width: int,
        feed_forward_width: int,
    ) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(_GROUPS, channels, eps=1e-6)
        self.project_in = nn.Conv2d(channels, channels, 1)
        self.self_norm = nn.LayerNorm(channels)
        self.self_attention = Attention(channels, context_width=channels, heads=heads)
        self.cross_norm = nn.LayerNorm(channels)
        self.cross_attention = Attention(channels, context_width=context_width, heads=heads)
        self.feed_forward_norm = nn.LayerNorm(channels)
        self.feed_forward = GatedFeedForward(channels, hidden_width=feed_forward_width)
        self.project_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Keep the shape (batch, channels, height, width); `context` is (batch, any, width)."""
        pixels = self.project_in(self.norm(x)).flatten(2).transpose(1, 2)
        normed = self.self_norm(pixels)
        pixels = pixels + self.self_attention(normed, normed)
        pixels = pixels + self.cross_attention(self.cross_norm(pixels), context)
        pixels = pixels + self.feed_forward(self.feed_forward_norm(pixels))
        return x + self.project_out(pixels.transpose(1, 2).unflatten(2, x.shape[2:]))


class UNetBlock(nn.Module):
    """One residual block and one spatial transformer of 320 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.residual = ResidualBlock(_CHANNELS, time_width=_TIME_WIDTH)
        self.transformer = SpatialTransformer(
            _CHANNELS,
            heads=_HEADS,
            context_width=_CONTEXT_WIDTH,
            feed_forward_width=_FEED_FORWARD_WIDTH,
        )
        draw_weights_(self)

    def forward(self, x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        """Denoise a little.

        Args:
            x: Features of the latent image, shape (batch, 320, 64, 64).
            time: Embedding of the time step, shape (batch, 1280).
            context: Embedding of the prompt, shape (batch, 77, 768).

        Returns:
            Same shape as `x`.
        """
        return self.transformer(self.residual(x, time), context)


def unet_block(seed: int = 0) -> UNetBlock:
    """Build the block of Stable Diffusion v1, 4,801,280 parameters, untrained, in eval mode."""
    with seeded(seed):
        return UNetBlock().eval()


def unet_block_inputs(batch_size: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Draw features, time and prompt embeddings, float32, as `UNetBlock.forward` takes them."""
    with seeded(seed):
        return (
            torch.randn(batch_size, _CHANNELS, _SIDE, _SIDE),
            torch.randn(batch_size, _TIME_WIDTH),
            torch.randn(batch_size, _CONTEXT_TOKENS, _CONTEXT_WIDTH),
        )
