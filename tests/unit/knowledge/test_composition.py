import numpy as np
import pytest

from falcon_ray.knowledge.constants import Constants
from falcon_ray.knowledge.latency.composition import (
    UNCALIBRATED_SD,
    composed_s,
    composition_sd,
    fit_composition,
)
from falcon_ray.space.configuration import FloatArray


def fitted(
    sums: FloatArray, calls: FloatArray, measured: FloatArray, model: FloatArray
) -> Constants:
    return fit_composition(
        sums,
        calls,
        measured,
        model=model,
        device="cpu",
        dtype="float32",
        mode="eager",
        threads=2,
        share=1.0,
        source="measured",
    )


def test_factor_and_seconds_per_call_are_found_again() -> None:
    rng = np.random.default_rng(0)
    sums, calls = rng.uniform(1e-3, 1e-1, 40), rng.uniform(10, 400, 40)
    constants = fitted(sums, calls, 1.2 * sums + 8e-6 * calls, np.arange(40.0))
    assert constants.values == pytest.approx([1.2, 8e-6], rel=0.03)
    assert constants.residual_sd < 0.02  # the ridge bends an exact relation that much


def test_the_error_is_that_of_models_left_out() -> None:
    # Three models, each off its sum by a factor of its own: e^-0.2, 1, e^0.2. No fit to two of
    # them predicts the third exactly.
    sums, model = np.full(6, 1.0), np.repeat([0.0, 1.0, 2.0], 2)
    measured = np.exp(np.repeat([-0.2, 0.0, 0.2], 2))
    constants = fitted(sums, np.zeros(6), measured, model)
    assert constants.residual_sd > np.std([-0.2, 0.0, 0.2])


def test_without_models_sums_stand_as_they_are_with_a_wide_error() -> None:
    sums = np.array([1.0, 2.0])
    assert composed_s(None, sums, 100) is sums
    assert composition_sd(None) == UNCALIBRATED_SD


def test_two_models_are_too_few_to_know_the_error() -> None:
    constants = fitted(np.ones(2), np.zeros(2), np.array([1.0, 1.1]), np.array([0.0, 1.0]))
    assert constants.residual_sd == UNCALIBRATED_SD
    assert composed_s(constants, np.array([2.0]), 0.0) == pytest.approx([2 * constants.values[0]])
