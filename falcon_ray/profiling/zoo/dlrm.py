"""DLRM: Naumov et al. (2019), "Deep Learning Recommendation Model", figure 1 and section 2.

The layers are those of MLPerf's benchmark on the Criteo Terabyte click logs, and so are the 26
tables, but for their length: MLPerf takes category numbers modulo 40 million, which needs 90 GiB;
here it is 40 thousand, a thousandth, which needs 215 MiB. It cuts the eight longest tables, and
every sample still looks up one row of 128 numbers in each of 26 tables.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from falcon_ray.profiling.zoo.synthetic import draw_weights_, seeded

_DENSE_FEATURES = 13
_WIDTH = 128
_BOTTOM_WIDTHS = (_DENSE_FEATURES, 512, 256, _WIDTH)
_TOP_HIDDEN_WIDTHS = (1024, 1024, 512, 256)

_MAX_ROWS = 40_000
_TABLE_ROWS = (
    *(_MAX_ROWS, 39_043, 17_289, 7_420, 20_263, 3, 7_120, 1_543, 63),
    *(_MAX_ROWS, _MAX_ROWS, _MAX_ROWS, 10, 2_208, 11_938, 155, 4, 976, 14),
    *(_MAX_ROWS, _MAX_ROWS, _MAX_ROWS, _MAX_ROWS, 12_972, 108, 36),
)
"""Categories of the 26 features of the logs, at most so many."""


def _perceptron(widths: tuple[int, ...]) -> nn.Sequential:
    layers = ((nn.Linear(inputs, outputs), nn.ReLU()) for inputs, outputs in pairwise(widths))
    return nn.Sequential(*(layer for pair in layers for layer in pair))


class Dlrm(nn.Module):
    """Dense features through a perceptron, the others through tables; their dot products on top."""

    pairs: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.bottom = _perceptron(_BOTTOM_WIDTHS)
        tables = [nn.Embedding(rows, _WIDTH) for rows in _TABLE_ROWS]
        self.tables = nn.ModuleList(tables)
        vectors = 1 + len(_TABLE_ROWS)
        pairs = [row * vectors + column for row in range(vectors) for column in range(row)]
        self.register_buffer("pairs", torch.tensor(pairs), persistent=False)
        self.top = nn.Sequential(
            *_perceptron((_WIDTH + len(pairs), *_TOP_HIDDEN_WIDTHS)),
            nn.Linear(_TOP_HIDDEN_WIDTHS[-1], 1),
            nn.Sigmoid(),
        )
        draw_weights_(self)
        for table in tables:
            # The dot product of two rows then has a variance of one.
            nn.init.normal_(table.weight, std=_WIDTH**-0.25)

    def forward(self, dense: Tensor, sparse: Tensor) -> Tensor:
        """Estimate how likely a click is.

        Args:
            dense: Numerical features, shape (batch, 13).
            sparse: One category number a feature, int64, shape (batch, 26), below the length of
                the feature's table.

        Returns:
            Probabilities, shape (batch, 1).
        """
        bottom = self.bottom(dense)
        rows = [table(sparse[:, feature]) for feature, table in enumerate(self.tables)]
        vectors = torch.stack([bottom, *rows], dim=1)
        dots = torch.bmm(vectors, vectors.transpose(1, 2))
        interactions = dots.flatten(1).index_select(1, self.pairs)
        return self.top(torch.cat([bottom, interactions], dim=1))


def dlrm(seed: int = 0) -> Dlrm:
    """Build DLRM for cut Criteo tables, 58,838,017 parameters, untrained, in eval mode."""
    with seeded(seed):
        return Dlrm().eval()


def dlrm_inputs(batch_size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw numerical features, and category numbers that are all equally likely.

    Real categories follow a power law; equally likely ones are the worst case for a cache.

    Returns:
        Shape (batch_size, 13), float32, and shape (batch_size, 26), int64.
    """
    with seeded(seed):
        dense = torch.randn(batch_size, _DENSE_FEATURES)
        sparse = [torch.randint(rows, (batch_size,)) for rows in _TABLE_ROWS]
    return dense, torch.stack(sparse, dim=1)
