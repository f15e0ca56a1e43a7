"""Transformer blocks that normalise before each sublayer, as ViT and GPT-2 stack them.

The blocks know shapes. They do not know what a token is, nor how weights are drawn.
"""

from torch import Tensor, nn


class SelfAttention(nn.Module):
    """Multi-head attention with one projection for query, key and value.

    Vaswani et al. (2017), "Attention Is All You Need", section 3.2.2; where `causal`, no token
    attends to a later one.
    """

    def __init__(self, width: int, *, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (batch, tokens, width)."""
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.query_key_value(x).chunk(3, dim=-1)
        )
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        return self.output(mixed.transpose(1, 2).flatten(-2))


class PreNormBlock(nn.Module):
    """Attention and a feed-forward network, each of its normalised input, and added to it.

    Args:
        width: Of a token, inside and outside the block.
        heads: Divides `width`.
        feed_forward_width: Of the hidden layer.
        activation: Behind the hidden layer.
        causal: Whether tokens attend to themselves and earlier ones only.
        norm_eps: Added to the variance.
    """

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        feed_forward_width: int,
        activation: nn.Module,
        causal: bool,
        norm_eps: float,
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=norm_eps)
        self.attention = SelfAttention(width, heads=heads, causal=causal)
        self.feed_forward_norm = nn.LayerNorm(width, eps=norm_eps)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, feed_forward_width),
            activation,
            nn.Linear(feed_forward_width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (batch, tokens, width)."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed_forward(self.feed_forward_norm(x))
