"""Fits the family model's constants to measured runs of one device: predictor 2.

Non-negative least squares in relative error, robust to outliers, drawn towards another device's
constants where there are few runs. What a new model may deviate by is learnt from groups of models
that were held out of the fit. The module does not know which models were run, nor how.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, solve_triangular
from scipy.optimize import nnls

from falcon_ray.errors import InputError
from falcon_ray.knowledge.constants import Constants
from falcon_ray.knowledge.device import Device
from falcon_ray.knowledge.latency.family_features import TERMS, FamilyTotals
from falcon_ray.knowledge.latency.family_model import PREDICTOR, half_width_in_sd
from falcon_ray.knowledge.latency.family_pool import completed
from falcon_ray.space.configuration import FloatArray

IntArray = NDArray[np.intp]

N_FOLDS = 5
_N_REWEIGHTINGS = 8
_OUTLIER = 0.05
"""Log error beyond which a run counts less; 0.03 to 0.1 fit held-out models equally well."""
_REDESCENT = 1.5
"""Power of the weights of outliers: 1 is Huber's; 1.5 and 2 fit held-out models better."""
_IDEAL_SD = 1.0
"""How far constants are believed to lie from ideal time where no other device's are at hand."""
_IDEAL_LAUNCH_SD_S = 1e-5
_LARGEST_DEVIATION = 3.0
"""Held-out errors beyond so many robust sd do not widen the sd of families further."""
_LEAST_PRIOR_SD = 0.05
"""Relative to its value, another device's constant is never believed more than this."""
_COMMON_SHARE = 0.5
"""Of the variance that is shared by all models, whatever their families; the rest is theirs."""
_TINY = 1e-9
_COVERAGES = (0.8, 0.95)
"""Central intervals that the sd is scaled to cover."""


@dataclass(frozen=True, slots=True, eq=False)
class Prior:
    """Where constants are drawn to: values and sd of each term in the fit, shapes (k,)."""

    values: FloatArray
    sd: FloatArray


def fit_family_constants(
    totals: FamilyTotals,
    seconds: FloatArray,
    *,
    groups: IntArray,
    device: Device,
    dtype: str,
    mode: str,
    source: str,
    ridge_towards: Constants | None = None,
    threads: int = 0,
    share: float = 1.0,
) -> Constants:
    """Constants of one device, with how far models that were not fitted deviate from them.

    Args:
        totals: Of n runs.
        seconds: Measured, shape (n,).
        groups: Runs of one group are held out together when errors are learnt, shape (n,); give
            models of one architecture, or at least all batch sizes of one model, one number.
        device: What measured the runs.
        dtype: Of the runs' arithmetic.
        mode: How they ran: eager, graph or compiled.
        source: Key of the manifest's sources.
        ridge_towards: Constants of another device or pooled ones. Their covariance says how
            strongly to believe them, and they fill in what no run contains.
        threads: Of a CPU; 0 on a GPU.
        share: Of a GPU's compute units; 1 on a CPU.

    Returns:
        Values and covariance of every term that a run or `ridge_towards` contains. The covariance
        is that of the values which a new model will show, and so includes that models differ.

    Raises:
        InputError: There are fewer than two groups, or a time is not positive.
    """
    if not (seconds > 0).all() or len(np.unique(groups)) < 2:
        raise InputError(
            f"constants of {device.name} need positive times of two models or more, got "
            f"{len(np.unique(groups))} models; profile more of them"
        )
    ideal = totals.ideal_seconds(device, dtype)
    present = np.flatnonzero(ideal.any(axis=0))
    columns = ideal[:, present]
    prior = _prior(ridge_towards, present)
    weights = _group_weights(groups)
    values = nonnegative_fit(columns, seconds, prior, weights)
    errors, held_out = _held_out(columns, seconds, groups, prior)
    covariance, residual_sd = _spread(columns, errors, held_out)
    relative = columns / np.maximum(columns @ values, 1e-3 * seconds)[:, None]
    covariance = covariance + _uncertainty(relative, groups, prior, residual_sd)
    fitted = Constants(
        predictor=PREDICTOR,
        device=device.name,
        dtype=dtype,
        mode=mode,
        terms=tuple(TERMS[each] for each in present),
        values=values,
        covariance=covariance,
        residual_sd=residual_sd,
        n=len(seconds),
        source=source,
        threads=threads,
        share=share,
    )
    return fitted if ridge_towards is None else completed(fitted, ridge_towards)


def nonnegative_fit(
    columns: FloatArray, seconds: FloatArray, prior: Prior, weights: FloatArray
) -> FloatArray:
    """Minimises squared relative errors over non-negative constants, outliers weighed down.

    Relative to what was measured, a run that is far slower than predicted counts as one at most;
    iterative reweighting (Holland and Welsch, 1977) by log errors bounds both sides. The solver is
    that of Lawson and Hanson (1974), ch. 23.

    Args:
        columns: Ideal seconds, shape (n, k).
        seconds: Measured, shape (n,).
        prior: What the constants are drawn to.
        weights: Of the runs, shape (n,).

    Returns:
        Shape (k,).
    """
    relative = columns / seconds[:, None]
    scale = np.sqrt((relative**2).mean(axis=0))
    scale[scale == 0] = 1.0
    scaled = relative / scale
    draw = _OUTLIER / (prior.sd * scale)
    target = prior.values * scale * draw
    fitted = np.zeros(len(scale))
    trust = np.ones(len(seconds))
    for _ in range(_N_REWEIGHTINGS):
        weighted = scaled * (weights * trust)[:, None]
        # The Cholesky factor holds all that least squares needs of n rows.
        normal = weighted.T @ scaled + np.diag(draw**2)
        triangle = _upper_triangle(normal)
        moments: FloatArray = weighted.sum(axis=0) + draw * target
        fitted, _ = nnls(triangle, solve_triangular(triangle, moments, trans="T"))
        errors = np.abs(np.log(np.maximum(scaled @ fitted, _TINY)))
        trust = np.maximum(1.0, errors / _OUTLIER) ** -_REDESCENT
    return fitted / scale


def _upper_triangle(matrix: FloatArray) -> FloatArray:
    """The factor R of R'R = matrix."""
    factor, _ = cho_factor(matrix)
    return np.triu(factor)


def _group_weights(groups: IntArray) -> FloatArray:
    """Weights of mean 1 by which a group counts as the root of its size, shape (n,).

    Models of one group share most of their error, so a large one must not decide alone.
    """
    _, ranks, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    weights = 1 / np.sqrt(sizes[ranks])
    return weights / weights.mean()


def _prior(others: Constants | None, present: IntArray) -> Prior:
    """The other device's values; ideal time, weakly, where there are none."""
    launch = present == len(TERMS) - 1
    values = np.where(launch, 0.0, 1.0)
    sd = np.where(launch, _IDEAL_LAUNCH_SD_S, _IDEAL_SD)
    if others is not None:
        variances = np.diag(others.covariance)
        for place, each in enumerate(present):
            if TERMS[each] in others.terms:
                index = others.terms.index(TERMS[each])
                values[place] = others.values[index]
                sd[place] = max(np.sqrt(variances[index]), _LEAST_PRIOR_SD * values[place], _TINY)
    return Prior(values, sd)


def _held_out(
    columns: FloatArray, seconds: FloatArray, groups: IntArray, prior: Prior
) -> tuple[FloatArray, FloatArray]:
    """Log of measured over predicted, and predicted seconds, of runs left out; shapes (n,)."""
    _, ranks = np.unique(groups, return_inverse=True)
    # Strides spread neighbouring groups, which are often alike, over all folds.
    folds = ranks % min(N_FOLDS, ranks.max() + 1)
    predicted = np.empty(len(seconds))
    for fold in np.unique(folds):
        out = folds == fold
        kept = _group_weights(groups[~out])
        predicted[out] = columns[out] @ nonnegative_fit(columns[~out], seconds[~out], prior, kept)
    predicted = np.maximum(predicted, _TINY * seconds)
    return np.log(seconds / predicted), predicted


def _spread(
    columns: FloatArray, errors: FloatArray, predicted: FloatArray
) -> tuple[FloatArray, float]:
    """How models differ: diagonal covariance of the constants, and an sd that all share.

    Were a model's own constants independent around the fitted ones, its squared log error would
    be on average a sum of squared shares times variances. Non-negative least squares finds these;
    they are noisy, so half of the variance is given to all models alike.
    """
    typical = max(float(np.median(np.abs(errors))) / 0.6745, _TINY)
    squares = np.minimum(np.abs(errors), _LARGEST_DEVIATION * typical) ** 2
    shares = (columns / predicted[:, None]) ** 2
    design = np.column_stack([np.ones(len(errors)), shares])
    scale = np.sqrt((design**2).mean(axis=0))
    scale[scale == 0] = 1.0
    # Errors of squares grow with the squares: a first fit weighs the second.
    expected = np.full(len(errors), typical**2)
    variances = np.zeros(len(scale))
    for _ in range(2):
        fitted, _ = nnls(design / scale / expected[:, None], squares / expected)
        variances = fitted / scale
        expected = np.maximum(design @ variances, (0.5 * typical) ** 2)
    common = float((design @ variances).mean())
    variances *= 1 - _COMMON_SHARE
    variances[0] += _COMMON_SHARE * common
    sd = np.sqrt(design @ variances)
    # Neither the bulk nor the tail alone sets the scale.
    stretch = np.mean(
        [np.quantile(np.abs(errors) / sd, each) / half_width_in_sd(each) for each in _COVERAGES]
    )
    return np.diag(variances[1:] * stretch**2), float(stretch * np.sqrt(variances[0]))


def _uncertainty(
    relative: FloatArray, groups: IntArray, prior: Prior, residual_sd: float
) -> FloatArray:
    """Covariance of the fitted values, shape (k, k), as if none were bounded by zero.

    Runs of one group share their error, so only groups count as independent.

    Args:
        relative: Ideal over predicted seconds, shape (n, k).
        groups: Shape (n,).
        prior: What the values were drawn to.
        residual_sd: Of the log error of a run.
    """
    _, ranks, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    information = (relative / sizes[ranks][:, None]).T @ relative / max(residual_sd, 1e-3) ** 2
    # In units of the prior's sd the matrix is well conditioned.
    units = np.outer(prior.sd, prior.sd)
    return np.linalg.inv(information * units + np.eye(len(prior.sd))) * units
