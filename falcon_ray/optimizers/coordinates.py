"""How far apart candidates are: in their choices, and in what their key operators spend.

Distances are taken between the rows that are asked for, so that a million candidates cost nothing
until they are looked at. The module does not know what is modelled on top of the distances.

Notation: n candidates, d dimensions with a choice, k key operators; a and b rows.
"""

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from falcon_ray.space.configuration import ConfigurationSpace, FloatArray
from falcon_ray.space.dimension import Scale

IndexArray: TypeAlias = NDArray[np.intp]

ORDINAL_WIDTH = 2.0
"""An ordinal dimension spans so many length scales from its first to its last value."""
CATEGORICAL_WIDTH = 1 / 1.6
"""Two values of a categorical dimension are so many length scales apart."""
RATIO_WIDTH = 1.0
"""Two candidates of which one spends e times the share on an operator are so far apart in it."""
LEAST_SHARE = 0.05
"""Shares of operators below this differ no more."""
RATIO_WEIGHT = 0.5
"""Of the part of the correlation that shares of operators make."""


class Coordinates:
    """Distances and correlations of the candidates of a space.

    Args:
        space: The n candidates.
        operator_seconds: Of each key operator by name, shape (n,); what counts is their shares.
    """

    def __init__(
        self, space: ConfigurationSpace, operator_seconds: Mapping[str, FloatArray] | None = None
    ) -> None:
        chosen = [i for i, each in enumerate(space.dimensions) if len(each.values) > 1]
        self._codes = space.codes[:, chosen]
        self._places: list[FloatArray | None] = []
        for i in chosen:
            each = space.dimensions[i]
            ordinal = each.scale is not Scale.CATEGORICAL
            self._places.append(
                ORDINAL_WIDTH * np.array([each.position(value) for value in each.values])
                if ordinal
                else None
            )
        self._seconds = list((operator_seconds or {}).values())

    def __len__(self) -> int:
        return len(self._codes)

    @property
    def has_ratios(self) -> bool:
        """Whether shares of operators are known."""
        return len(self._seconds) > 1

    def squared_distance(self, a: IndexArray, b: IndexArray) -> FloatArray:
        """In length scales, over the choices, shape (a, b)."""
        total = np.zeros((a.size, b.size))
        for column, places in enumerate(self._places):
            left, right = self._codes[a, column], self._codes[b, column]
            if places is None:
                total += CATEGORICAL_WIDTH**2 * (left[:, None] != right[None, :])
            else:
                total += (places[left][:, None] - places[right][None, :]) ** 2
        return total

    def squared_ratio_distance(self, a: IndexArray, b: IndexArray) -> FloatArray:
        """Over logs of the operators' shares, shape (a, b)."""
        return _squared_distance(self._log_shares(a), self._log_shares(b))

    def correlation(self, a: IndexArray, b: IndexArray, *, length_scale: float = 1.0) -> FloatArray:
        """Prior correlation of deviations, shape (a, b): 1 on the same candidate.

        Half of it is Matern-5/2 over the choices, half over the shares of operators, where these
        are known: candidates that spend their time alike err alike, whatever they are called.
        """
        over_choices = matern(self.squared_distance(a, b) / length_scale**2)
        if not self.has_ratios:
            return over_choices
        over_ratios = matern(self.squared_ratio_distance(a, b) / length_scale**2)
        return (1 - RATIO_WEIGHT) * over_choices + RATIO_WEIGHT * over_ratios

    def _log_shares(self, rows: IndexArray) -> FloatArray:
        seconds = np.stack([each[rows] for each in self._seconds], axis=1)
        shares = seconds / seconds.sum(axis=1, keepdims=True)
        return np.log(np.maximum(shares, LEAST_SHARE)) / RATIO_WIDTH

    def centrality(self, rows: IndexArray) -> FloatArray:
        """Squared distance from the mean of all candidates, shape of `rows`."""
        total = np.zeros(rows.size)
        for column, places in enumerate(self._places):
            codes = self._codes[:, column]
            if places is None:
                share = np.bincount(codes) / len(codes)
                # One-hot columns of height w / sqrt(2), w apart from each other.
                to_mean = 1 - 2 * share[codes[rows]] + (share**2).sum()
                total += CATEGORICAL_WIDTH**2 / 2 * to_mean
            else:
                total += (places[codes[rows]] - places[codes].mean()) ** 2
        return total


def matern(squared_distance: FloatArray) -> FloatArray:
    """Matern correlation with nu = 5/2; Rasmussen & Williams (2006), eq. 4.17."""
    scaled = np.sqrt(5 * squared_distance)
    return (1 + scaled + scaled**2 / 3) * np.exp(-scaled)


def _squared_distance(a: FloatArray, b: FloatArray) -> FloatArray:
    """Euclidean, between rows, shape (a, b)."""
    return ((a[:, None, :] - b[None, :, :]) ** 2).sum(axis=2)
