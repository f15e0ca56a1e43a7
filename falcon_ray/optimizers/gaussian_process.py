"""A Gaussian process over the candidates for the logarithm of one metric.

Residuals of serving metrics are multiplicative, so the process models natural logarithms: one
noise level then fits every GPU. It knows coordinates and numbers. It knows neither what they
measure nor what makes one candidate better than another.

Notation, for one metric over n candidates of which k were observed (Rasmussen & Williams,
"Gaussian Processes for Machine Learning", 2006, chapter 2):

    x     coordinates of a candidate, shape (d,): `kernel_coordinates`
    m(x)  mean before any observation: a prediction of the log metric, or a constant
    y     observed logs, shape (k,):  y = m(x) + offset + f(x) + noise
          offset ~ N(0, 0.5^2)        the same for all candidates: how far m is off as a whole
          f      ~ GP(0, s^2 r(x, x'))  r is Matern-5/2 with one length scale (ibid., eq. 4.17)
          noise  ~ N(0, 0.05^2)       independent in every trial
"""
# scikit-learn ships no types; what comes out of it is cast or annotated here.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, cast

import numpy as np
from scipy.optimize import minimize
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Kernel, Matern, WhiteKernel

from falcon_ray.optimizers.history import IndexArray
from falcon_ray.space.configuration import ConfigurationSpace, FloatArray
from falcon_ray.space.dimension import Scale

ORDINAL_WIDTH = 2.0
"""An ordinal dimension spans so many length scales from its first to its last value."""
CATEGORICAL_WIDTH = 1 / 1.6
"""Two values of a categorical dimension are so many length scales apart."""
SIGNAL_SD = 1.0
"""Prior sd of f when m is a constant; 0.7 to 1.5 is as good on llm_serving.parquet."""
OFFSET_SD = 0.5
NOISE_SD = 0.05
MIN_OBSERVATIONS_TO_FIT = 8
"""Fitting hyperparameters to fewer is what breaks plain Gaussian-process search."""
HYPERPARAMETER_SD = np.array([1.0, 0.5, 1.0])
"""Log-normal prior sd of s^2, the length scale and the noise variance around their defaults."""

_Objective: TypeAlias = Callable[[FloatArray], tuple[float, FloatArray]]


@dataclass(frozen=True, slots=True)
class Posterior:
    """What is believed of one log metric, candidate by candidate.

    Attributes:
        mean: Posterior means of the log metric, shape (n,).
        sd: Posterior standard deviations without the trial noise, shape (n,), non-negative.
    """

    mean: FloatArray
    sd: FloatArray


def kernel_coordinates(space: ConfigurationSpace) -> FloatArray:
    """Coordinates of all candidates in units of the default length scale.

    Returns:
        Shape (n, d): `ConfigurationSpace.encode` with every ordinal dimension stretched to
        [0, 2] and two values of a categorical one 1 / 1.6 apart, whichever they are.
    """
    widths: list[float] = []
    for each in space.dimensions:
        if len(each.values) == 1:
            continue
        if each.scale is Scale.CATEGORICAL:
            widths += [CATEGORICAL_WIDTH] * len(each.values)
        else:
            widths.append(ORDINAL_WIDTH)
    return space.encode(space.candidates) * np.array(widths or [1.0])


def log_posterior(
    coordinates: FloatArray,
    observed: IndexArray,
    logs: FloatArray,
    *,
    pending: IndexArray,
    prior_mean: FloatArray | None = None,
    signal_sd: float = SIGNAL_SD,
) -> Posterior:
    """Posterior of a log metric given its observations, pending candidates believed.

    Below eight observations the hyperparameters keep their defaults; from eight on they are
    fitted to the maximum a posteriori. A pending candidate is believed to show its posterior
    mean (the kriging believer of Ginsbourger et al., 2010, section 4.2): all at once, this
    leaves the mean as it is and lowers the sd around the pending ones.

    Args:
        coordinates: All candidates, shape (n, d), from `kernel_coordinates`.
        observed: Rows of the observed candidates, shape (k,); repeats are allowed, k may be 0.
        logs: Natural logarithms that were observed there, shape (k,).
        pending: Rows of the candidates whose trials still run, shape (p,).
        prior_mean: Predicted log metric of all candidates, shape (n,); without one, the mean
            of `logs` (0 when there are none).
        signal_sd: Prior standard deviation of the deviations from the mean.

    Returns:
        Mean and sd of all candidates, shapes (n,).
    """
    if prior_mean is None:
        prior_mean = np.full(len(coordinates), logs.mean() if logs.size else 0.0)
    kernel = _kernel(signal_sd=signal_sd, noise_sd=NOISE_SD)
    mean = prior_mean
    sd = np.full(len(coordinates), np.hypot(OFFSET_SD, signal_sd))
    if observed.size:
        residuals = logs - prior_mean[observed]
        fit = observed.size >= MIN_OBSERVATIONS_TO_FIT
        regressor = _condition(kernel, coordinates[observed], residuals, fit=fit)
        correction, sd = _predict(regressor, coordinates)
        mean = prior_mean + correction
        kernel = cast("Kernel", regressor.kernel_)
    if pending.size:
        believed = np.concatenate([observed, pending])
        # The sd does not depend on the values, so zeros stand in for what is believed.
        regressor = _condition(kernel, coordinates[believed], np.zeros(believed.size), fit=False)
        _, sd = _predict(regressor, coordinates)
    return Posterior(mean, sd)


def fixed_posterior(
    coordinates: FloatArray,
    observed: IndexArray,
    values: FloatArray,
    *,
    prior_mean: float,
    signal_sd: float,
    noise_sd: float,
) -> Posterior:
    """Posterior of a quantity whose hyperparameters are never fitted, such as a verdict.

    Args:
        coordinates: All candidates, shape (n, d), from `kernel_coordinates`.
        observed: Rows of the observed candidates, shape (k,), k >= 1; repeats are allowed.
        values: What was observed there, shape (k,).
        prior_mean: Expected value of every candidate.
        signal_sd: Prior standard deviation of the deviations from the mean.
        noise_sd: Standard deviation of one observation around the truth.

    Returns:
        Mean and sd of all candidates, shapes (n,).
    """
    kernel = _kernel(signal_sd=signal_sd, noise_sd=noise_sd)
    regressor = _condition(kernel, coordinates[observed], values - prior_mean, fit=False)
    correction, sd = _predict(regressor, coordinates)
    return Posterior(prior_mean + correction, sd)


def _kernel(*, signal_sd: float, noise_sd: float) -> Kernel:
    return (
        ConstantKernel(OFFSET_SD**2, "fixed")
        + ConstantKernel(signal_sd**2) * Matern(length_scale=1.0, nu=2.5)
        + WhiteKernel(noise_sd**2)
    )


def _condition(
    kernel: Kernel, coordinates: FloatArray, residuals: FloatArray, *, fit: bool
) -> GaussianProcessRegressor:
    regressor = GaussianProcessRegressor(
        kernel,
        optimizer=_maximise_a_posteriori if fit else None,  # pyright: ignore[reportArgumentType]
    )
    return regressor.fit(coordinates, residuals)


def _predict(
    regressor: GaussianProcessRegressor, coordinates: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Mean and sd of the residual without noise, both of shape (n,)."""
    mean, noisy_sd = cast(
        "tuple[FloatArray, FloatArray]", regressor.predict(coordinates, return_std=True)
    )
    noise_variance = np.exp(cast("Kernel", regressor.kernel_).theta[-1])
    return mean, np.sqrt(np.maximum(noisy_sd**2 - noise_variance, 0.0))


def _maximise_a_posteriori(
    negative_log_likelihood: _Objective, default: FloatArray, bounds: FloatArray
) -> tuple[FloatArray, float]:
    """The hyperparameters to use, for scikit-learn's `optimizer`.

    Log-normal priors around the defaults hold what few observations leave open. The box of
    three prior sd lies inside scikit-learn's `bounds`, so that no optimum is ever at one of
    them, of which it would warn; and the best point found serves, converged or not.

    Args:
        negative_log_likelihood: Value and gradient, shape (3,), at log hyperparameters.
        default: Logs of s^2, length scale and noise variance, shape (3,).
        bounds: Scikit-learn's, shape (3, 2).

    Returns:
        The log hyperparameters, shape (3,), and minus the log posterior there.
    """

    def negative_log_posterior(theta: FloatArray) -> tuple[float, FloatArray]:
        value, gradient = negative_log_likelihood(theta)
        z = (theta - default) / HYPERPARAMETER_SD
        return float(value + 0.5 * z @ z), gradient + z / HYPERPARAMETER_SD

    reach = 3 * HYPERPARAMETER_SD
    low = np.maximum(default - reach, bounds[:, 0] + 0.1)
    high = np.minimum(default + reach, bounds[:, 1] - 0.1)
    found = minimize(
        negative_log_posterior,
        default,
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(low.tolist(), high.tolist(), strict=True)),
        options={"maxiter": 30},
    )
    return found.x, float(found.fun)
