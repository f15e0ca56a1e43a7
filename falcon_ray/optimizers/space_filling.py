"""Where to start when nothing is known: in the middle, then far from all that was tried.

It knows distances only: neither metrics nor what a dimension means.
"""

import numpy as np

from falcon_ray.optimizers.coordinates import Coordinates, IndexArray
from falcon_ray.space.configuration import FloatArray


def most_central(coordinates: Coordinates, rows: IndexArray, rng: np.random.Generator) -> int:
    """Which of some candidates is nearest to the mean of all; `rng` decides among equals.

    Every ordinal dimension starts near its middle, such as a middling batch size: no guess is
    nearer to all others, and extremes are where out of memory and idle hardware lie.

    Args:
        coordinates: Of all candidates.
        rows: Candidates to choose from, shape (r,), r >= 1.
        rng: Breaks ties.

    Returns:
        Position in `rows`.
    """
    return _one_of_the_highest(-np.sqrt(np.maximum(coordinates.centrality(rows), 0.0)), rng)


def most_distant(
    coordinates: Coordinates,
    rows: IndexArray,
    *,
    tried: IndexArray,
    weights: FloatArray,
    rng: np.random.Generator,
) -> int:
    """Which of some candidates has the highest weighted distance from the nearest tried one.

    The greedy maximin design of Johnson et al. (1990); `rng` decides among equals.

    Args:
        coordinates: Of all candidates.
        rows: Candidates to choose from, shape (r,), r >= 1.
        tried: Candidates to keep away from, shape (t,), t >= 1.
        weights: Of those to choose from, shape (r,), positive, e.g. the probability of running.
        rng: Breaks ties.

    Returns:
        Position in `rows`.
    """
    nearest = np.sqrt(coordinates.squared_distance(rows, tried).min(axis=1))
    return _one_of_the_highest(nearest * weights, rng)


def _one_of_the_highest(appeal: FloatArray, rng: np.random.Generator) -> int:
    return int(rng.choice(np.flatnonzero(np.isclose(appeal, appeal.max()))))
