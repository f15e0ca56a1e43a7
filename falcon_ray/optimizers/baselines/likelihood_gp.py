"""A Gaussian process as people take it from the shelf: every hyperparameter by maximum likelihood.

Matern-5/2 with one length scale, signal and noise variance fitted to however few observations
there are, on standardised values (Rasmussen & Williams, "Gaussian Processes for Machine
Learning", 2006, sections 2.2 and 5.4). It knows coordinates and numbers. Our own search does not
use it: fitting to very few observations is what makes plain Bayesian optimisation slow to start.
"""
# scikit-learn ships no types; what comes out of it is cast or annotated here.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, cast

import numpy as np
from scipy.linalg import cho_solve
from scipy.optimize import minimize
from scipy.special import ndtr
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Kernel, Matern, WhiteKernel

from falcon_ray.optimizers.history import MaskArray
from falcon_ray.space.configuration import FloatArray

SIGNAL_VARIANCE_BOUNDS = (1e-2, 1e2)
LENGTH_SCALE_BOUNDS = (0.05, 20.0)
NOISE_VARIANCE_BOUNDS = (1e-4, 1.0)
N_RESTARTS = 1
MIN_SD = 1e-9

_Objective: TypeAlias = Callable[[FloatArray], tuple[float, FloatArray]]


@dataclass(frozen=True, slots=True, eq=False)
class LikelihoodGp:
    """A fitted process over k observations.

    Attributes:
        regressor: Of standardised values.
        centre: Mean of the values.
        scale: Their sd, or 1 where they are all the same.
    """

    regressor: GaussianProcessRegressor
    centre: float
    scale: float

    def predict(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Posterior mean and sd without noise in the unit of the values, shapes (n,)."""
        mean, sd = self.predict_standardised(x)
        return self.centre + self.scale * mean, self.scale * sd

    def predict_standardised(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Posterior mean and sd without noise of standardised values, shapes (n,)."""
        mean, noisy_sd = cast(
            "tuple[FloatArray, FloatArray]", self.regressor.predict(x, return_std=True)
        )
        return mean, np.sqrt(np.maximum(noisy_sd**2 - self._noise_variance, MIN_SD**2))

    def probability_above(self, limit: float, x: FloatArray) -> FloatArray:
        """Posterior probability that the value exceeds a limit, shape (n,)."""
        mean, sd = self.predict(x)
        return ndtr((mean - limit) / sd)

    def sample_standardised(
        self, x: FloatArray, *, n_samples: int, rng: np.random.Generator
    ) -> FloatArray:
        """Joint posterior samples of standardised values without noise, shape (n_samples, n)."""
        mean, covariance = cast(
            "tuple[FloatArray, FloatArray]", self.regressor.predict(x, return_cov=True)
        )
        covariance = covariance - self._noise_variance * np.eye(len(x))
        values, vectors = np.linalg.eigh(covariance)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        return mean + rng.standard_normal((n_samples, len(x))) @ root.T

    def leave_one_out(self, values: FloatArray) -> tuple[FloatArray, FloatArray]:
        """What the process expects of each of its k observations from the others.

        Rasmussen & Williams (2006), eq. 5.12, hyperparameters kept.

        Args:
            values: Those that it was fitted to, shape (k,).

        Returns:
            Standardised means and sds, noise included, shapes (k,).
        """
        standardised = (values - self.centre) / self.scale
        lower = cast("FloatArray", self.regressor.L_)
        inverse = cho_solve((lower, True), np.eye(len(values)))
        precision = np.diag(inverse)
        return standardised - (inverse @ standardised) / precision, 1 / np.sqrt(precision)

    @property
    def _noise_variance(self) -> float:
        return float(np.exp(cast("Kernel", self.regressor.kernel_).theta[-1]))


def fit_gp(x: FloatArray, values: FloatArray, *, rng: np.random.Generator) -> LikelihoodGp:
    """Fit a process, hyperparameters by maximum likelihood from two starts.

    Args:
        x: Coordinates, shape (k, d), k >= 1.
        values: What was observed there, shape (k,).
        rng: Draws the second start.
    """
    centre, scale = float(values.mean()), float(values.std())
    if not scale > MIN_SD:
        scale = 1.0
    kernel = (
        ConstantKernel(1.0, SIGNAL_VARIANCE_BOUNDS)
        * Matern(length_scale=1.0, length_scale_bounds=LENGTH_SCALE_BOUNDS, nu=2.5)
    ) + WhiteKernel(1e-2, NOISE_VARIANCE_BOUNDS)

    def maximise_likelihood(
        negative_log_likelihood: _Objective, initial: FloatArray, bounds: FloatArray
    ) -> tuple[FloatArray, float]:
        # Within the bounds by a little: scikit-learn warns of an optimum at one of them.
        low, high = bounds[:, 0] + 0.01, bounds[:, 1] - 0.01
        starts = [initial, *rng.uniform(low, high, (N_RESTARTS, len(initial)))]
        found = [
            minimize(
                negative_log_likelihood,
                start,
                jac=True,
                method="L-BFGS-B",
                bounds=list(zip(low.tolist(), high.tolist(), strict=True)),
                options={"maxiter": 50},
            )
            for start in starts
        ]
        best = min(found, key=lambda each: float(each.fun))
        return best.x, float(best.fun)

    regressor = GaussianProcessRegressor(
        kernel,
        optimizer=maximise_likelihood,  # pyright: ignore[reportArgumentType]
    )
    return LikelihoodGp(regressor.fit(x, (values - centre) / scale), centre, scale)


def refit_gp(gp: LikelihoodGp, x: FloatArray, values: FloatArray) -> LikelihoodGp:
    """The same hyperparameters and standardisation with other observations."""
    regressor = GaussianProcessRegressor(
        cast("Kernel", gp.regressor.kernel_),
        optimizer=None,  # pyright: ignore[reportArgumentType]
    )
    return LikelihoodGp(regressor.fit(x, (values - gp.centre) / gp.scale), gp.centre, gp.scale)


def probability_of_feasibility(
    x: FloatArray, feasible: MaskArray, at: FloatArray, *, rng: np.random.Generator
) -> FloatArray:
    """How likely it is that candidates have a score, by a process on the labels 1 and 0.

    Args:
        x: Coordinates of the trials, shape (k, d).
        feasible: Which of them have a score, shape (k,).
        at: Coordinates of the n candidates, shape (n, d).
        rng: For the fit.

    Returns:
        Shape (n,); 1 everywhere while every trial has a score.
    """
    if feasible.all():
        return np.ones(len(at))
    if not feasible.any():
        # One label leaves nothing to fit, but what is far from every failure is the better bet.
        nearest = np.linalg.norm(at[:, np.newaxis] - x, axis=2).min(axis=1)
        return 0.5 * (1 - np.exp(-nearest))
    return fit_gp(x, feasible.astype(np.float64), rng=rng).probability_above(0.5, at)
