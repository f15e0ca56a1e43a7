"""BERT-base uncased, encoder with pooler: Devlin et al. (2019), "BERT", section 3 and appendix A.2.

Blocks are those of Vaswani et al. (2017), "Attention Is All You Need", section 3.1, normalised
after each addition. Dropout is left out: serving never draws it.
"""

import torch
from torch import Tensor, nn

from falcon_ray.profiling.zoo.synthetic import seeded

_VOCABULARY = 30_522
_POSITIONS = 512
_SEGMENTS = 2
_LAYERS = 12
_WIDTH = 768
_HEADS = 12
_FEED_FORWARD_WIDTH = 3072

_EXAMPLE_TOKENS = 128
_LAYER_NORM_EPS = 1e-12


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence to itself; Vaswani et al. (2017), section 3.2.2."""

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Keep the shape (batch, tokens, width); `mask` is bool, (batch, 1, 1, tokens)."""
        query, key, value = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection in (self.query, self.key, self.value)
        )
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.output(mixed.transpose(1, 2).flatten(-2))


class EncoderBlock(nn.Module):
    """Attention and a feed-forward network, each added to its input and normalised."""

    def __init__(self, width: int, *, heads: int, feed_forward_width: int) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads=heads)
        self.attention_norm = nn.LayerNorm(width, eps=_LAYER_NORM_EPS)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, feed_forward_width),
            nn.GELU(),
            nn.Linear(feed_forward_width, width),
        )
        self.feed_forward_norm = nn.LayerNorm(width, eps=_LAYER_NORM_EPS)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Keep the shape (batch, tokens, width); `mask` is bool, (batch, 1, 1, tokens)."""
        x = self.attention_norm(x + self.attention(x, mask))
        return self.feed_forward_norm(x + self.feed_forward(x))


class Bert(nn.Module):
    """BERT-base: a sum of three embeddings, a stack of blocks, a pooler of the first token."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(_VOCABULARY, _WIDTH)
        self.positions = nn.Embedding(_POSITIONS, _WIDTH)
        self.segments = nn.Embedding(_SEGMENTS, _WIDTH)
        self.embedding_norm = nn.LayerNorm(_WIDTH, eps=_LAYER_NORM_EPS)
        self.blocks = nn.ModuleList(
            EncoderBlock(_WIDTH, heads=_HEADS, feed_forward_width=_FEED_FORWARD_WIDTH)
            for _ in range(_LAYERS)
        )
        self.pooler = nn.Linear(_WIDTH, _WIDTH)

        # The authors' standard deviation, 0.02; they also cut the tails beyond two of them.
        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.Embedding):
                nn.init.normal_(layer.weight, std=0.02)
            if isinstance(layer, nn.Linear):
                nn.init.zeros_(layer.bias)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode sequences of one segment each.

        Args:
            input_ids: Token numbers below 30,522, int64, shape (batch, tokens), at most 512 tokens.
            attention_mask: Non-zero where a token counts, zero where it pads; same shape.

        Returns:
            The last hidden state, shape (batch, tokens, 768), and the pooled output, (batch, 768).
        """
        position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)
        segment_ids = torch.zeros_like(input_ids)
        x = self.tokens(input_ids) + self.positions(position_ids) + self.segments(segment_ids)
        x = self.embedding_norm(x)
        mask = attention_mask.bool()[:, None, None, :]
        for block in self.blocks:
            x = block(x, mask)
        return x, torch.tanh(self.pooler(x[:, 0]))


def bert_base(seed: int = 0) -> Bert:
    """Build BERT-base uncased, 109,482,240 parameters, untrained, in eval mode."""
    with seeded(seed):
        return Bert().eval()


def bert_base_inputs(batch_size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw token numbers and a mask without padding, both int64, shape (batch_size, 128)."""
    with seeded(seed):
        input_ids = torch.randint(_VOCABULARY, (batch_size, _EXAMPLE_TOKENS))
    return input_ids, torch.ones_like(input_ids)
