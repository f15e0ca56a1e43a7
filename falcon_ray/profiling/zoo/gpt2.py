"""GPT-2 small: Radford et al. (2019), "Language Models are Unsupervised Multitask Learners".

The sizes are section 2.3's and table 2's. One forward pass reads a whole prompt and keeps no cache:
it is the prefill of a generation, up to its first token. Dropout is left out: serving never draws
it.
"""

import math

import torch
from torch import Tensor, nn

from falcon_ray.profiling.zoo.pre_norm import PreNormBlock
from falcon_ray.profiling.zoo.synthetic import seeded

_VOCABULARY = 50_257
_POSITIONS = 1024
_LAYERS = 12
_WIDTH = 768
_HEADS = 12
_FEED_FORWARD_WIDTH = 3072

_EXAMPLE_TOKENS = 128
_LAYER_NORM_EPS = 1e-5
_WEIGHT_STD = 0.02
_POSITION_STD = 0.01


class Gpt2(nn.Module):
    """The smallest GPT-2: two embeddings, a stack of causal blocks, logits by the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(_VOCABULARY, _WIDTH)
        self.positions = nn.Embedding(_POSITIONS, _WIDTH)
        self.blocks = nn.Sequential(
            *(
                PreNormBlock(
                    _WIDTH,
                    heads=_HEADS,
                    feed_forward_width=_FEED_FORWARD_WIDTH,
                    activation=nn.GELU(approximate="tanh"),
                    causal=True,
                    norm_eps=_LAYER_NORM_EPS,
                )
                for _ in range(_LAYERS)
            )
        )
        self.norm = nn.LayerNorm(_WIDTH, eps=_LAYER_NORM_EPS)

        # The authors' standard deviations. Layers that end a residual branch are scaled down by
        # the square root of the number of branches, two a block; section 2.3.
        branch_std = _WEIGHT_STD / math.sqrt(2 * _LAYERS)
        nn.init.normal_(self.tokens.weight, std=_WEIGHT_STD)
        nn.init.normal_(self.positions.weight, std=_POSITION_STD)
        for name, layer in self.blocks.named_modules():
            if isinstance(layer, nn.Linear):
                ends_branch = name.endswith(("attention.output", "feed_forward.2"))
                nn.init.normal_(layer.weight, std=branch_std if ends_branch else _WEIGHT_STD)
                nn.init.zeros_(layer.bias)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Score every token as the next one.

        Args:
            input_ids: Token numbers below 50,257, int64, shape (batch, tokens), at most 1024
                tokens. All sequences of a batch have the same length: there is no padding.

        Returns:
            Logits, shape (batch, 50257).
        """
        position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.blocks(self.tokens(input_ids) + self.positions(position_ids))
        return nn.functional.linear(self.norm(x[:, -1]), self.tokens.weight)


def gpt2(seed: int = 0) -> Gpt2:
    """Build GPT-2 small, 124,439,808 parameters, untrained, in eval mode."""
    with seeded(seed):
        return Gpt2().eval()


def gpt2_inputs(batch_size: int, seed: int = 0) -> Tensor:
    """Draw prompts of token numbers, int64, shape (batch_size, 128)."""
    with seeded(seed):
        return torch.randint(_VOCABULARY, (batch_size, _EXAMPLE_TOKENS))
