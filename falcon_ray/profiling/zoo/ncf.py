"""NeuMF: He et al. (2017), "Neural Collaborative Filtering", section 3.4 and figure 3.

The sizes are those of MLPerf Training v0.5: the users and films of MovieLens-20M, 64 factors,
three hidden layers of 256, 128 and 64 units.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from falcon_ray.profiling.zoo.synthetic import draw_weights_, seeded

_USERS = 138_493
_ITEMS = 26_744
_FACTORS = 64
_WIDTHS = (256, 256, 128, 64)
"""Of the perceptron's input, half of which is the user's and half the item's, and its layers."""


class NeuMf(nn.Module):
    """Matrix factorisation beside a perceptron, each with its own embeddings, joined at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.user_factors = nn.Embedding(_USERS, _FACTORS)
        self.item_factors = nn.Embedding(_ITEMS, _FACTORS)
        self.user_features = nn.Embedding(_USERS, _WIDTHS[0] // 2)
        self.item_features = nn.Embedding(_ITEMS, _WIDTHS[0] // 2)
        layers = ((nn.Linear(inputs, outputs), nn.ReLU()) for inputs, outputs in pairwise(_WIDTHS))
        self.perceptron = nn.Sequential(*(layer for pair in layers for layer in pair))
        self.output = nn.Linear(_FACTORS + _WIDTHS[-1], 1)
        draw_weights_(self)

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """Estimate how likely users are to take to items; eq. 12.

        Args:
            users: User numbers below 138,493, int64, shape (batch,).
            items: Item numbers below 26,744, int64, shape (batch,); one for each user.

        Returns:
            Probabilities, shape (batch, 1).
        """
        factors = self.user_factors(users) * self.item_factors(items)
        features = torch.cat([self.user_features(users), self.item_features(items)], dim=1)
        joined = torch.cat([factors, self.perceptron(features)], dim=1)
        return torch.sigmoid(self.output(joined))


def ncf(seed: int = 0) -> NeuMf:
    """Build NeuMF for MovieLens-20M, 31,832,577 parameters, untrained, in eval mode."""
    with seeded(seed):
        return NeuMf().eval()


def ncf_inputs(batch_size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw user and item numbers, both int64, shape (batch_size,)."""
    with seeded(seed):
        return torch.randint(_USERS, (batch_size,)), torch.randint(_ITEMS, (batch_size,))
