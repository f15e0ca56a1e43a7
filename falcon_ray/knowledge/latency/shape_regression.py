"""Latency of one family's operators: multiples of ideal times, corrected by the nearest rows.

    log latency = log(ideal times @ multiples) + f(coordinates),  f ~ GP(0, Matern 3/2)

It knows arrays. It does not know what a coordinate means, or which device was measured.

    s, v    length scale and variance of f         g    noise as a share of v
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.spatial import KDTree

from falcon_ray.space.configuration import FloatArray

SCALES = (0.5, 1.0, 2.0, 4.0, 8.0)
NOISES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
MAX_DENSE = 512
"""With more rows each query is predicted from its nearest neighbours only."""
MAX_TUNED = 384
"""Rows that length scale and noise are chosen on."""
NEIGHBOURS = 24
_PRIOR_SD = 0.1
"""Of f before any row; it weighs as much as one row."""
_LOCAL_WEIGHT = 8.0
"""Rows' worth of trust that errors are alike everywhere, against errors nearby."""
_FLOOR_WEIGHT = 0.1
_CHUNK = 128
"""Queries at a time, so that what belongs to them stays in the processor's cache."""
_REWEIGHTINGS = 6
_SMALL_ERROR = 0.05
"""Below it an error of the log counts squared, above it about absolute."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShapeRegression:
    """What n rows of one family say about latency.

    Attributes:
        multiples: Of the ideal times, shape (k,).
        points: Coordinates divided by the length scale, shape (n, p).
        residuals: Of the log latency, measured less ideal times, shape (n,).
        variance: Of f.
        noise: As a share of `variance`.
        weights: Of the rows in the mean, (K + noise)^-1 residuals; empty where local.
        inverse: Of K + noise, shape (n, n); empty where local.
        squared_errors: Leave-one-out errors over their expected variance; empty where local.
        tree: Over `points`, where predictions are local.
    """

    multiples: FloatArray
    points: FloatArray
    scale: float
    residuals: FloatArray
    variance: float
    noise: float
    weights: FloatArray
    inverse: FloatArray
    squared_errors: FloatArray
    tree: KDTree | None

    @classmethod
    def fit(
        cls, ideal: FloatArray, coordinates: FloatArray, seconds: FloatArray, *, floor_s: float
    ) -> "ShapeRegression":
        """Fit to measured rows.

        Args:
            ideal: Ideal times, shape (n, k), the first column 1.
            coordinates: Shape (n, p).
            seconds: Measured, shape (n,).
            floor_s: What an operator takes that does nothing, roughly.
        """
        multiples = _multiples(ideal, seconds, floor_s)
        residuals = np.log(seconds) - np.log(ideal @ multiples)
        n = len(seconds)
        tuned = np.unique(np.linspace(0, n - 1, min(n, MAX_TUNED)).round().astype(int))
        n_free = int(np.count_nonzero(multiples))
        scale, noise, variance = _tuned(coordinates[tuned], residuals[tuned], n_free)
        points = coordinates / scale
        weights: FloatArray = np.empty(0)
        inverse: FloatArray = np.empty((0, 0))
        squared_errors: FloatArray = np.empty(0)
        if n <= MAX_DENSE:
            matrix = _matern(_distances(points, points)) + noise * np.eye(n)
            inverse = np.linalg.inv(matrix).astype(np.float64, copy=False)
            weights = inverse @ residuals
            squared_errors = weights**2 / inverse.diagonal() / variance
        return cls(
            multiples=multiples,
            points=points,
            scale=scale,
            residuals=residuals,
            variance=variance,
            noise=noise,
            weights=weights,
            inverse=inverse,
            squared_errors=squared_errors,
            tree=KDTree(points) if n > MAX_DENSE else None,
        )

    def predict(self, ideal: FloatArray, coordinates: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Natural log of the seconds of m queries, and its sd; both of shape (m,).

        Args:
            ideal: Ideal times, shape (m, k).
            coordinates: Shape (m, p).
        """
        queries = coordinates / self.scale
        mean, variance = np.empty(len(queries)), np.empty(len(queries))
        for start in range(0, len(queries), _CHUNK):
            part = slice(start, start + _CHUNK)
            if self.tree is None:
                mean[part], variance[part] = self._dense(queries[part])
            else:
                mean[part], variance[part] = self._local(queries[part], self.tree)
        return np.log(ideal @ self.multiples) + mean, np.sqrt(variance)

    def _dense(self, queries: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Rasmussen and Williams (2006), eq. 2.25 and 2.26, errors weighted by where they were."""
        k = _matern(_distances(queries, self.points))
        explained = np.einsum("mn,mn->m", k @ self.inverse, k)
        nearby = (k @ self.squared_errors + _LOCAL_WEIGHT) / (k.sum(axis=1) + _LOCAL_WEIGHT)
        share = np.maximum(1 + self.noise - explained, self.noise)
        return k @ self.weights, self.variance * nearby * share

    def _local(self, queries: FloatArray, tree: KDTree) -> tuple[FloatArray, FloatArray]:
        """The same from each query's nearest rows only."""
        _, found = tree.query(queries, NEIGHBOURS)
        near = self.points[found]
        between = np.sqrt(((near[:, :, None] - near[:, None]) ** 2).sum(axis=-1))
        matrix = _matern(between) + self.noise * np.eye(NEIGHBOURS)
        k = _matern(np.sqrt(((queries[:, None] - near) ** 2).sum(axis=-1)))
        residuals = self.residuals[found]
        solved = np.linalg.solve(matrix, np.stack([residuals, k], axis=-1))
        squares = (residuals * solved[:, :, 0]).sum(axis=1) / self.variance
        nearby = (squares + _LOCAL_WEIGHT) / (NEIGHBOURS + _LOCAL_WEIGHT)
        share = np.maximum(1 + self.noise - (k * solved[:, :, 1]).sum(axis=1), self.noise)
        return (k * solved[:, :, 0]).sum(axis=1), self.variance * nearby * share


def _multiples(ideal: FloatArray, seconds: FloatArray, floor_s: float) -> FloatArray:
    """Non-negative multiples of ideal times with small relative errors, few large ones ignored.

    One row that does nothing and takes `floor_s` keeps launches from becoming free.
    """
    nothing = np.zeros((1, ideal.shape[1]))
    nothing[0, 0] = 1.0
    rows = np.concatenate([ideal, nothing])
    target = np.append(seconds, floor_s)
    trust = np.append(np.ones(len(seconds)), _FLOOR_WEIGHT)
    weight = trust / target
    multiples = np.zeros(ideal.shape[1])
    for _ in range(_REWEIGHTINGS):
        multiples, _ = nnls(rows * weight[:, None], target * weight)
        predicted = np.maximum(rows @ multiples, floor_s * 1e-3)
        error = np.abs(np.log(predicted / target))
        weight = trust / np.sqrt(target * predicted * np.maximum(error, _SMALL_ERROR))
    if not (rows @ multiples > 0).all():
        multiples[0] = floor_s
    return multiples


def _tuned(
    coordinates: FloatArray, residuals: FloatArray, n_free: int
) -> tuple[float, float, float]:
    """Length scale, noise and variance with the highest leave-one-out density.

    Rasmussen and Williams (2006), eq. 5.10 to 5.12; the variance is set by the data.
    """
    n = len(residuals)
    distances = _distances(coordinates, coordinates)
    best = (-np.inf, SCALES[0], NOISES[-1], _PRIOR_SD**2)
    for scale in SCALES:
        values, vectors = np.linalg.eigh(_matern(distances / scale))
        projected = vectors.T @ residuals
        squares = vectors**2
        for noise in NOISES:
            inverse_values = 1 / np.maximum(values + noise, noise)
            weights = vectors @ (inverse_values * projected)
            diagonal = squares @ inverse_values
            explained = float(residuals @ weights)
            variance = (explained + _PRIOR_SD**2) / (max(n - n_free, 0) + 1)
            loo_variance = variance / diagonal
            density = -np.mean(np.log(loo_variance) + (weights / diagonal) ** 2 / loo_variance)
            if density > best[0]:
                best = (float(density), scale, noise, variance)
    return best[1:]


def _distances(a: FloatArray, b: FloatArray) -> FloatArray:
    """Euclidean, shape (len(a), len(b))."""
    squares = (-2 * a) @ b.T
    squares += (a**2).sum(axis=1)[:, None]
    squares += (b**2).sum(axis=1)
    return np.sqrt(np.maximum(squares, 0.0, out=squares), out=squares)


def _matern(distances: NDArray[np.float64]) -> FloatArray:
    """Matern 3/2; Rasmussen and Williams (2006), eq. 4.17."""
    scaled = np.sqrt(3.0) * distances
    # Ten times as fast; its error, 1e-7, is far below any noise that is tried.
    decay = np.exp(-scaled.astype(np.float32))
    return (1 + scaled) * decay
