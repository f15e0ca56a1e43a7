"""How far experts are off, and how much to believe each, from models they have not seen.

The module gets measured logs and what experts expected of them, one row per model. It does not
know who the experts are; that a model was held out of what predicts it is for the caller to see to.

Notation: m models, s candidates that all of them share, NaN where one was not measured.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from falcon_ray.knowledge.mixture import ExpectedMetric
from falcon_ray.space.configuration import FloatArray

_TRIALS = 3.0
"""How many independent trials a model counts as when experts are compared: half of six, as
likelihoods of dependent errors are too sure."""
_TAIL = 4.0
"""Degrees of freedom of the t distribution under which experts are compared."""
_LEAST_SD = 0.01
_LEAST_WEIGHT = 0.01
_N_STEPS = 200


def learned_errors(
    measured: FloatArray, expected: FloatArray, *, same_for_all: bool = False
) -> tuple[float, FloatArray]:
    """Sd of what all candidates of a model share, and of the rest at each candidate.

    The shared part is the median error of a model. Both sds are about zero, so a bias is error.

    Args:
        measured: Logs, shape (m, s).
        expected: Likewise.
        same_for_all: Whether one sd of the rest is meant for all candidates.

    Returns:
        The shared sd, and the others, shape (s,).
    """
    errors = measured - expected
    offsets = np.nanmedian(errors, axis=1)
    rest = errors - offsets[:, None]
    if same_for_all:
        own = np.full(errors.shape[1], _sd(rest[np.isfinite(rest)]))
    else:
        own = np.array([_sd(each[np.isfinite(each)]) for each in rest.T])
    return _sd(offsets), own


def learned_weights(
    measured: FloatArray,
    expected: Mapping[str, FloatArray],
    errors: Mapping[str, tuple[float, FloatArray]],
    *,
    families: NDArray[np.intp],
) -> dict[str, float]:
    """Shares of the models that each expert predicts best, by expectation maximisation.

    The weights maximise the likelihood of the mixture (Dempster, Laird and Rubin, 1977); every
    model counts as few independent trials and every family as one model.

    Args:
        measured: Logs, shape (m, s).
        expected: Likewise, by expert.
        errors: From `learned_errors`, by expert.
        families: Number of each model's family, shape (m,).

    Returns:
        By expert, at least 0.01 each, adding up to 1.
    """
    names = list(expected)
    logs = np.column_stack(
        [_log_likelihood(measured - expected[name], *errors[name]) for name in names]
    )
    _, rank, size = np.unique(families, return_inverse=True, return_counts=True)
    counts = 1.0 / size[rank]
    likelihood = np.exp(_TRIALS * (logs - logs.max(axis=1, keepdims=True)))
    weights = np.full(len(names), 1.0 / len(names))
    for _ in range(_N_STEPS):
        share = likelihood * weights
        share /= share.sum(axis=1, keepdims=True)
        weights = counts @ share / counts.sum()
    weights = np.maximum(weights, _LEAST_WEIGHT)
    return dict(zip(names, (weights / weights.sum()).tolist(), strict=True))


def expected_metric(
    mean: FloatArray, error: tuple[float, FloatArray], columns: NDArray[np.intp]
) -> ExpectedMetric:
    """What an expert expects of one model.

    Args:
        mean: Of its n candidates, shape (n,).
        error: From `learned_errors`.
        columns: Which of the s candidates they are, shape (n,).
    """
    return ExpectedMetric(mean=mean, offset_sd=error[0], residual_sd=error[1][columns])


def _sd(errors: FloatArray) -> float:
    """Of a normal whose 80 and 95 % intervals are, on average, as wide as the data's."""
    widths = np.quantile(np.abs(errors), [0.8, 0.95]) if errors.size else np.zeros(2)
    return max(_LEAST_SD, float(np.mean(widths / stats.norm.ppf([0.9, 0.975]))))


def _log_likelihood(errors: FloatArray, offset_sd: float, residual_sd: FloatArray) -> FloatArray:
    """Of each model per measured candidate, shape (m,): multivariate t of unit-scaled variance.

    The covariance is diag(residual_sd^2) + offset_sd^2; its inverse and determinant follow from
    the lemmas of Sherman and Morrison (1950).
    """
    present = np.isfinite(errors)
    n = present.sum(axis=1)
    filled = np.where(present, errors, 0.0)
    precision = np.where(present, residual_sd**-2.0, 0.0)
    total = precision.sum(axis=1)
    growth = 1.0 + offset_sd**2 * total
    square = (filled**2 * precision).sum(axis=1)
    square -= offset_sd**2 * (filled * precision).sum(axis=1) ** 2 / growth
    log_determinant = np.log(growth) - np.log(np.where(present, precision, 1.0)).sum(axis=1)
    tail = -0.5 * (_TAIL + n) * np.log1p(np.maximum(square, 0.0) / (_TAIL - 2.0))
    return (tail - 0.5 * log_determinant) / np.maximum(n, 1)
