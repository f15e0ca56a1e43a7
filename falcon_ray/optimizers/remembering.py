"""Which of many trials a model is made of, once there are more than it can take in.

A Gaussian process of k values costs k^3 to make and k^2 for every candidate that is asked about.
Up to `MAX_REMEMBERED` trials nothing is left out. Beyond that a model is made of the best, of the
latest, and of those that cover what was tried. The module knows distances and scores. It does not
know what is modelled.
"""

import numpy as np
from numpy.typing import NDArray

from falcon_ray.optimizers.coordinates import Coordinates, IndexArray
from falcon_ray.space.configuration import FloatArray

MAX_REMEMBERED = 192
"""Candidates whose trials a model is made of, at most."""
MAX_FITTED = 64
"""Candidates whose trials hyperparameters are fitted to, at most: there are three of them."""
FIT_EACH = 32
"""Hyperparameters are fitted again after each of so many trials, then as trials grow by a tenth."""
_BEST_SHARE = 1 / 4
_LATEST_SHARE = 1 / 4


def n_fitted(n_trials: int) -> int:
    """How many of the first trials hyperparameters are fitted to, which is as often as it changes.

    It depends on the number alone, so that a replay fits what the first run did.
    """
    if n_trials <= FIT_EACH:
        return n_trials
    step = FIT_EACH
    while (following := step + max(1, step // 10)) <= n_trials:
        step = following
    return step


def remembered(
    coordinates: Coordinates, rows: IndexArray, scores: FloatArray, *, at_most: int
) -> IndexArray:
    """The candidates that a model is made of: all of them where they are few.

    A quarter are those with the highest scores, a quarter the latest, and the rest are spread over
    what was tried.

    Args:
        coordinates: Of all candidates.
        rows: Candidates with a trial in the order in which the first of each ended, shape (k,),
            each once.
        scores: Of each, shape (k,).
        at_most: So many.

    Returns:
        Some of `rows`, in their order.
    """
    if rows.size <= at_most:
        return rows
    best = np.argsort(-scores, kind="stable")[: int(at_most * _BEST_SHARE)]
    is_kept = np.zeros(rows.size, dtype=np.bool_)
    is_kept[best] = True
    is_kept[rows.size - int(at_most * _LATEST_SHARE) :] = True
    return rows[_spread_out(coordinates, rows, is_kept, at_most=at_most)]


def spread(coordinates: Coordinates, rows: IndexArray, *, at_most: int) -> IndexArray:
    """Some of many candidates that cover them, from the first on; all where they are few.

    Args:
        coordinates: Of all candidates.
        rows: Shape (k,); repeats are allowed, and count once where some have to go.
        at_most: So many.
    """
    if rows.size <= at_most:
        return rows
    _, first = np.unique(rows, return_index=True)
    rows = rows[np.sort(first)]
    is_kept = np.zeros(rows.size, dtype=np.bool_)
    is_kept[0] = True
    return rows[_spread_out(coordinates, rows, is_kept, at_most=at_most)]


def _spread_out(
    coordinates: Coordinates, rows: IndexArray, is_kept: NDArray[np.bool_], *, at_most: int
) -> NDArray[np.bool_]:
    """Which rows are kept: further ones as far from those as can be (Gonzalez, 1985)."""
    is_kept = is_kept.copy()
    nearest = coordinates.squared_distance(rows, rows[is_kept]).min(axis=1)
    for _ in range(min(at_most, rows.size) - int(np.count_nonzero(is_kept))):
        farthest = int(np.argmax(np.where(is_kept, -1.0, nearest)))
        is_kept[farthest] = True
        to_it = coordinates.squared_distance(rows, rows[[farthest]])[:, 0]
        nearest = np.minimum(nearest, to_it)
    return is_kept
