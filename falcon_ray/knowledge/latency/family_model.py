"""Seconds of operators and of whole models from fitted constants per family: predictors 2 and 3.

seconds = sum over operators of count * (alpha_f flops / peak + beta_f bytes / bandwidth + lambda)

The multiples alpha and beta of ideal time have no dimension, so constants that other devices
gave make the same formula a calibrated roofline of a device nobody measured. Operators run one
after the other; what overlaps is in the constants. The module does not know where constants come
from; `family_fit.py` and `family_pool.py` make them.
"""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from falcon_ray.errors import InputError
from falcon_ray.knowledge.constants import Constants
from falcon_ray.knowledge.device import Device
from falcon_ray.knowledge.latency.family_features import (
    BOUND_BY_ARITHMETIC,
    LAUNCH_TERM,
    TERMS,
    FamilyTotals,
    bytes_term,
    flops_term,
)
from falcon_ray.knowledge.operators.operator import Family, FamilyCalls
from falcon_ray.space.configuration import FloatArray

PREDICTOR = "family"
"""Value of `Constants.predictor` of the constants that the model takes."""

DEGREES_OF_FREEDOM = 4
"""Errors of this model are Student-t: log errors of public vision models have heavy tails."""

_SHORTEST_S = 1e-9


class FamilyModel:
    """Predicts on one device, in the dtype and mode of the constants.

    Args:
        constants: Of this device, or of others (see `family_pool.transferred`).
        device: Its facts scale the constants.

    Raises:
        InputError: The constants belong to another predictor.
    """

    def __init__(self, constants: Constants, device: Device) -> None:
        if constants.predictor != PREDICTOR:
            raise InputError(
                f"constants of predictor {constants.predictor!r} on {constants.device} are none "
                f"of {PREDICTOR!r}; look up the right rows of the profile"
            )
        self._constants = constants
        self._device = device
        places = [TERMS.index(term) for term in constants.terms]
        self._values = np.zeros(len(TERMS))
        self._values[places] = constants.values
        self._covariance = np.zeros((len(TERMS), len(TERMS)))
        self._covariance[np.ix_(places, places)] = constants.covariance
        for family in self.unknown_families:
            # Ideal times, give or take as much: nothing may cost nothing.
            for term in (flops_term(family), bytes_term(family)):
                if term in TERMS:
                    place = TERMS.index(term)
                    self._values[place] = self._covariance[place, place] = 1.0

    @property
    def unknown_families(self) -> tuple[Family, ...]:
        """Families without constants; their operators take ideal times, with a wide error."""
        terms = self._constants.terms
        return tuple(
            family
            for family in Family
            if family is not Family.VIEW
            and bytes_term(family) not in terms
            and flops_term(family) not in terms
        )

    @property
    def launch_s(self) -> float:
        """Seconds of one call beside its arithmetic and traffic."""
        return self._of(LAUNCH_TERM)

    def predict_operators(
        self, family: Family, flops: FloatArray, bytes_moved: FloatArray
    ) -> FloatArray:
        """Seconds of one call of each of n operators.

        Args:
            family: Of all of them.
            flops: Of one call, shape (n,).
            bytes_moved: By one call, shape (n,).

        Returns:
            Shape (n,), at least a nanosecond.
        """
        if family is Family.VIEW:
            return np.full(np.shape(flops), _SHORTEST_S)
        seconds = self._of(
            bytes_term(family)
        ) * bytes_moved / self._device.bandwidth_bytes_per_s + self._of(LAUNCH_TERM)
        if family in BOUND_BY_ARITHMETIC:
            peak = self._device.peak(self._constants.dtype)
            seconds = seconds + self._of(flops_term(family)) * flops / peak
        return np.maximum(seconds, _SHORTEST_S)

    def predict_model(self, calls: Sequence[FamilyCalls]) -> tuple[FloatArray, FloatArray]:
        """Log seconds of one forward pass of a whole model at each of its b batch sizes.

        The sd holds the model's own offset and how unsure the constants are of its families.

        Args:
            calls: `Decomposition.calls` in the dtype of the constants.

        Returns:
            Natural log of the seconds and its sd, shapes (b,).
        """
        return self.predict_totals(FamilyTotals.of_calls(calls))

    def predict_totals(self, totals: FamilyTotals) -> tuple[FloatArray, FloatArray]:
        """Log seconds and sd of n runs, shapes (n,); as `predict_model`."""
        ideal = totals.ideal_seconds(self._device, self._constants.dtype)
        seconds = np.maximum(ideal @ self._values, _SHORTEST_S)
        return np.log(seconds), np.sqrt(
            relative_variance(ideal, seconds, self._covariance) + self._constants.residual_sd**2
        )

    def _of(self, term: str) -> float:
        return float(self._values[TERMS.index(term)])


def relative_variance(ideal: FloatArray, seconds: FloatArray, covariance: FloatArray) -> FloatArray:
    """Variance of log seconds from that of the constants, to first order, shape (n,).

    Args:
        ideal: Shape (n, k).
        seconds: Predicted, shape (n,).
        covariance: Of the constants, shape (k, k).
    """
    gradient = ideal / seconds[:, None]
    return np.maximum(np.einsum("ni,ij,nj->n", gradient, covariance, gradient), 0.0)


def half_width(sd: FloatArray, coverage: float) -> FloatArray:
    """Half the width of a central interval of log seconds, shape of `sd`.

    Args:
        sd: As predicted.
        coverage: Between 0 and 1, e.g. 0.8.
    """
    return sd * half_width_in_sd(coverage)


def half_width_in_sd(coverage: float) -> float:
    """The same for an sd of 1: a quantile of Student's t, scaled to unit variance."""
    quantile = float(stats.t.ppf((1 + coverage) / 2, DEGREES_OF_FREEDOM))
    return quantile * float(np.sqrt((DEGREES_OF_FREEDOM - 2) / DEGREES_OF_FREEDOM))
