from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_ray.optimizers.acquisition import (
    antithetic_normals,
    constrained_expected_improvement,
    expected_improvement,
    score_samples,
)
from falcon_ray.optimizers.gaussian_process import Posterior
from falcon_ray.space.configuration import FloatArray
from falcon_ray.space.objective import Objective, Slo

# At this price a dollar buys as many requests as the rate says: rate * 3600 s/h / 3600 USD/h.
UNIT_PRICE = np.array([3600.0])


def posterior(mean: float, sd: float) -> Posterior:
    return Posterior(np.array([mean]), np.array([sd]))


def test_expected_improvement_equals_the_formula_by_hand() -> None:
    improvement = expected_improvement(np.array([1.0, -1.0]), np.array([2.0, 2.0]), 0.0)
    # z = 1/2:  1 * 0.691462 + 2 * 0.352065 = 1.395593;  z = -1/2: -1 * 0.308538 + 0.704131
    assert improvement == pytest.approx([1.395593, 0.395593], abs=1e-6)


def test_expected_improvement_without_uncertainty_is_the_plain_gain() -> None:
    improvement = expected_improvement(np.array([3.0, 1.0]), np.array([0.0, 0.0]), 2.0)
    assert improvement.tolist() == [1.0, 0.0]  # 3 - 2, and max(1 - 2, 0)


@given(
    mean=st.floats(-1e3, 1e3), std=st.floats(0, 1e3), more=st.floats(0, 1e3), best=st.floats(-9, 9)
)
def test_expected_improvement_is_at_least_the_plain_gain_and_grows_with_uncertainty(
    mean: float, std: float, more: float, best: float
) -> None:
    low, high = expected_improvement(
        np.array([mean, mean]), np.array([std, std + more]), best
    ).tolist()
    assert low >= max(mean - best, 0.0) - 1e-9
    assert high >= low - 1e-9


def test_antithetic_normals_come_in_opposite_pairs() -> None:
    normals = antithetic_normals(2, np.random.default_rng(0))
    assert normals.shape == (96, 2)
    assert normals[:48].tolist() == (-normals[48:]).tolist()
    assert normals[:48].std(axis=0) == pytest.approx(1.0, abs=0.3)  # 3 / sqrt(2 * 48)


def test_samples_are_scored_in_requests_per_dollar() -> None:
    scores = score_samples(
        {"saturation_rps": posterior(np.log(10), np.log(2))},
        Objective(),
        UNIT_PRICE,
        np.array([[1.0], [-1.0]]),
    )
    assert scores == pytest.approx(np.array([[20.0], [5.0]]))  # 10 * 2 and 10 / 2


def test_score_and_feasibility_come_from_the_same_draw() -> None:
    posteriors = {
        "capacity_rps": posterior(np.log(10), np.log(2)),
        "floor_latency_ms": posterior(np.log(50), np.log(2)),
    }
    normals = np.array([[1.0, 1.0], [-1.0, -1.0]])
    scores = score_samples(posteriors, Objective(Slo(latency_budget_ms=60.0)), UNIT_PRICE, normals)
    # Draw 1: 20 requests/s at 100 ms, which breaks the limit; draw 2: 5 requests/s at 25 ms.
    assert scores == pytest.approx(np.array([[0.0], [5.0]]))
    # The joint mean is (0 + 5) / 2; the product of the marginals would be 12.5 * 1/2 = 6.25.
    assert constrained_expected_improvement(scores, 0.0) == pytest.approx([2.5])


def test_improvement_is_the_mean_gain_over_the_best() -> None:
    scores = np.array([[10.0, 0.0], [30.0, 0.0]])
    # (0 + (30 - 20)) / 2, and nothing
    assert constrained_expected_improvement(scores, 20.0).tolist() == [5.0, 0.0]


def test_improvement_before_the_first_feasible_trial_is_the_expected_score() -> None:
    scores = np.array([[10.0, 0.0], [30.0, 6.0]])
    # (10 + 30) / 2; value 6 times feasibility 1/2
    assert constrained_expected_improvement(scores, 0.0).tolist() == [20.0, 3.0]


def lognormal_improvement(best: float, normals: FloatArray) -> float:
    """The Monte Carlo improvement of exp(z) over `best`, z standard normal."""
    scores = score_samples(
        {"saturation_rps": posterior(0.0, 1.0)}, Objective(), UNIT_PRICE, normals
    )
    return float(constrained_expected_improvement(scores, best)[0])


def test_monte_carlo_improvement_converges_to_the_closed_form() -> None:
    # E max(exp(z) - 1, 0) = exp(1/2) Phi(1) - Phi(0) = 1.648721 * 0.841345 - 0.5 = 0.887143
    exact = np.exp(0.5) * NormalDist().cdf(1.0) - 0.5
    assert exact == pytest.approx(0.887143, abs=1e-6)
    quantiles = [[NormalDist().inv_cdf((i + 0.5) / 20_000)] for i in range(20_000)]
    assert lognormal_improvement(1.0, np.array(quantiles)) == pytest.approx(exact, rel=1e-3)


def test_antithetic_samples_estimate_a_mean_better_than_independent_ones() -> None:
    rng = np.random.default_rng(0)
    exact = np.exp(0.5)
    paired = [lognormal_improvement(0.0, antithetic_normals(1, rng)) for _ in range(200)]
    plain = [lognormal_improvement(0.0, rng.standard_normal((96, 1))) for _ in range(200)]
    # Variance of a pair's mean against two independent draws: (e - 1 + 1/e - 1) / (e - 1) = 0.63
    assert np.mean((paired - exact) ** 2) < 0.9 * np.mean((plain - exact) ** 2)
