"""Where to start when nothing is known: in the middle, then far from all that was tried.

It knows coordinates only: neither metrics nor what a dimension means.
"""

import numpy as np

from falcon_ray.optimizers.history import IndexArray
from falcon_ray.space.configuration import FloatArray


def most_central(coordinates: FloatArray, available: IndexArray, rng: np.random.Generator) -> int:
    """The available candidate nearest to the mean of all; `rng` decides among equals.

    Every ordinal dimension starts near its middle, such as a middling batch size: no guess is
    nearer to all others, and extremes are where out of memory and idle hardware lie.

    Args:
        coordinates: All candidates, shape (n, d).
        available: Rows to choose from, shape (a,), a >= 1.
        rng: Breaks ties.
    """
    distances = np.linalg.norm(coordinates[available] - coordinates.mean(axis=0), axis=1)
    return _one_of_the_highest(-distances, available, rng)


def most_distant(
    coordinates: FloatArray,
    available: IndexArray,
    *,
    tried: IndexArray,
    weights: FloatArray,
    rng: np.random.Generator,
) -> int:
    """The available candidate with the highest weighted distance from the nearest tried one.

    The greedy maximin design of Johnson et al. (1990); `rng` decides among equals.

    Args:
        coordinates: All candidates, shape (n, d).
        available: Rows to choose from, shape (a,), a >= 1.
        tried: Rows to keep away from, shape (t,), t >= 1.
        weights: Of all candidates, shape (n,), positive, e.g. the probability of running.
        rng: Breaks ties.
    """
    nearest = np.full(available.size, np.inf)
    for row in tried:
        distances = np.linalg.norm(coordinates[available] - coordinates[row], axis=1)
        nearest = np.minimum(nearest, distances)
    return _one_of_the_highest(nearest * weights[available], available, rng)


def _one_of_the_highest(appeal: FloatArray, available: IndexArray, rng: np.random.Generator) -> int:
    return int(rng.choice(available[np.isclose(appeal, appeal.max())]))
