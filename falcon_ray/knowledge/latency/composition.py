"""From the times of operators to the time of the model that calls them.

A model takes longer than the sum of its operators, measured one by one: between them the host
works, and caches are in another state. Two constants per device say how much. The module knows
sums and counts; it does not know how operators are predicted.
"""

import numpy as np
from scipy.optimize import nnls

from falcon_ray.knowledge.constants import Constants
from falcon_ray.space.configuration import FloatArray

PREDICTOR = "composition"
SCALE, CALL_S = "operators.scale", "call_s"
_TERMS = (SCALE, CALL_S)
_SCALE_SD = 0.3
"""How far the sum's factor is believed to be from 1 before any model was measured."""
_CALL_SD_S = 20e-6
"""Likewise for the seconds per call, from 0."""
_NOISE_SD = 0.1
"""Relative error of one model that the two beliefs are weighed against."""
UNCALIBRATED_SD = 0.3
"""Of the log of a sum of operators, where no model was measured to compare with."""
_MIN_MODELS = 3


def fit_composition(
    sums_s: FloatArray,
    n_calls: FloatArray,
    measured_s: FloatArray,
    *,
    model: FloatArray,
    device: str,
    dtype: str,
    mode: str,
    threads: int,
    share: float,
    source: str,
) -> Constants:
    """Fit measured = scale x sum + seconds per call x calls, in relative error.

    Both constants are non-negative and held near (1, 0) by a ridge, which few models cannot
    overrule. Models count equally, however often each was measured.

    Args:
        sums_s: Predicted seconds of all operators together, shape (m,).
        n_calls: Calls of operators that do something, shape (m,).
        measured_s: Seconds of the whole model, shape (m,).
        model: Number of the model that each of the m measurements belongs to, shape (m,).
        device: Where all of it was measured.
        dtype: In what.
        mode: eager, graph or compiled.
        threads: Of a CPU.
        share: Of a GPU.
        source: Of the measurements.

    Returns:
        Constants with the error of models that were left out of the fit.
    """
    weight = _equal_weight(model)
    values, covariance = _fit(sums_s, n_calls, measured_s, weight)
    return Constants(
        predictor=PREDICTOR,
        device=device,
        dtype=dtype,
        mode=mode,
        terms=_TERMS,
        values=values,
        covariance=covariance,
        residual_sd=_left_out_sd(sums_s, n_calls, measured_s, model),
        n=len(measured_s),
        source=source,
        threads=threads,
        share=share,
    )


def composed_s(constants: Constants | None, sums_s: FloatArray, n_calls: float) -> FloatArray:
    """Seconds of whole models from the sums of their operators, shape of `sums_s`."""
    if constants is None:
        return sums_s
    scale, call_s = constants.values
    return scale * sums_s + call_s * n_calls


def composition_sd(constants: Constants | None) -> float:
    """The sd of the natural log that composing adds."""
    return UNCALIBRATED_SD if constants is None else constants.residual_sd


def _equal_weight(model: FloatArray) -> FloatArray:
    _, group, count = np.unique(model, return_inverse=True, return_counts=True)
    return np.asarray(1.0 / np.sqrt(count[group]), dtype=np.float64)


def _fit(
    sums_s: FloatArray, n_calls: FloatArray, measured_s: FloatArray, weight: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Values (2,) and covariance (2, 2); every row says 1 = prediction / measured."""
    relative = weight[:, None] * np.stack([sums_s, n_calls], axis=1) / measured_s[:, None]
    ridge = np.diag([_NOISE_SD / _SCALE_SD, _NOISE_SD / _CALL_SD_S])
    A = np.concatenate([relative, ridge])
    b = np.concatenate([weight, [_NOISE_SD / _SCALE_SD, 0.0]])
    values, _ = nnls(A, b)
    return np.asarray(values, dtype=np.float64), _NOISE_SD**2 * np.linalg.inv(A.T @ A)


def _left_out_sd(
    sums_s: FloatArray, n_calls: FloatArray, measured_s: FloatArray, model: FloatArray
) -> float:
    """Root mean square of the log errors of each model by a fit without it."""
    models = np.unique(model)
    if len(models) < _MIN_MODELS:
        return UNCALIBRATED_SD
    squares: list[float] = []
    for each in models:
        left_out = model == each
        kept = ~left_out
        values, _ = _fit(sums_s[kept], n_calls[kept], measured_s[kept], _equal_weight(model[kept]))
        predicted = values[0] * sums_s[left_out] + values[1] * n_calls[left_out]
        squares.append(float((np.log(measured_s[left_out] / predicted) ** 2).mean()))
    # With few models the root mean square is itself uncertain: 1 / n more, as for a mean.
    return float(np.sqrt(np.mean(squares) * (1 + 1 / len(models))))
