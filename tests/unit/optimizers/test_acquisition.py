from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_ray.optimizers.acquisition import (
    antithetic_normals,
    constrained_expected_improvement,
    expected_gains,
    expected_improvement,
    lower_roots,
    score_samples,
)
from falcon_ray.optimizers.experts import Belief
from falcon_ray.optimizers.gaussian_process import Posterior
from falcon_ray.space.configuration import FloatArray
from falcon_ray.space.objective import Objective, Slo

# At this price a dollar buys as many requests as the rate says: rate * 3600 s/h / 3600 USD/h.
UNIT_PRICE = np.array([3600.0])


SLO = Objective(Slo(latency_budget_ms=60.0))


def posterior(mean: float, sd: float) -> Posterior:
    """Of one metric of one candidate."""
    return Posterior(np.array([[mean]]), np.array([[[sd**2]]]))


def of_two_metrics(means: tuple[float, float], sd: float, correlation: float) -> Posterior:
    """Of one candidate."""
    covariance = sd**2 * np.array([[1.0, correlation], [correlation, 1.0]])
    return Posterior(np.array(means)[:, None], covariance[None])


def belief(mean: float, sd: float, weight: float = 1.0) -> Belief:
    return Belief("expert", weight, posterior(mean, sd))


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
        posterior(np.log(10), np.log(2)), Objective(), UNIT_PRICE, np.array([[1.0], [-1.0]])
    )
    assert scores == pytest.approx(np.array([[20.0], [5.0]]))  # 10 * 2 and 10 / 2


def test_candidates_share_the_samples_and_have_their_own_errors_and_prices() -> None:
    two = Posterior(
        np.array([[np.log(10), np.log(10)]]), np.array([[[np.log(2) ** 2]], [[np.log(3) ** 2]]])
    )
    scores = score_samples(two, Objective(), np.array([3600.0, 7200.0]), np.array([[1.0], [-1.0]]))
    # 10 * 2 and 10 / 2; 10 * 3 / 2 and 10 / 3 / 2
    assert scores == pytest.approx(np.array([[20.0, 15.0], [5.0, 5 / 3]]))


def test_score_and_feasibility_come_from_the_same_draw() -> None:
    independent = of_two_metrics((np.log(10), np.log(50)), np.log(2), 0.0)
    normals = np.array([[1.0, 1.0], [-1.0, -1.0]])
    scores = score_samples(independent, SLO, UNIT_PRICE, normals)
    # Draw 1: 20 requests/s at 100 ms, which breaks the limit; draw 2: 5 requests/s at 25 ms.
    assert scores == pytest.approx(np.array([[0.0], [5.0]]))
    # The joint mean is (0 + 5) / 2; the product of the marginals would be 12.5 * 1/2 = 6.25.
    assert constrained_expected_improvement(scores, 0.0) == pytest.approx([2.5])


def test_metrics_go_together_as_the_posterior_says() -> None:
    opposed = of_two_metrics((np.log(10), np.log(50)), np.log(2), -1.0)
    # Where one is drawn high the other is low, whatever the second normal says.
    normals = np.array([[1.0, 1.0], [-1.0, -1.0]])
    scores = score_samples(opposed, SLO, UNIT_PRICE, normals)
    assert scores == pytest.approx(np.array([[20.0], [0.0]]))  # at 25 ms and at 100 ms
    half = of_two_metrics((np.log(10), np.log(30)), np.log(2), 0.6)
    # The latency moves by 0.6 * 1 + 0.8 * z2: 30 * 2^(0.6 + 0.8) = 79 ms, 30 * 2^(0.6 - 0.8) = 26.
    scores = score_samples(half, SLO, UNIT_PRICE, np.array([[1.0, 1.0], [1.0, -1.0]]))
    assert scores == pytest.approx(np.array([[0.0], [20.0]]))


def test_roots_are_those_of_every_covariance() -> None:
    rng = np.random.default_rng(0)
    factors = rng.standard_normal((5, 3, 4))
    covariance = factors @ factors.transpose(0, 2, 1)
    assert lower_roots(covariance) == pytest.approx(np.linalg.cholesky(covariance))


def test_roots_of_singular_covariances_reproduce_them() -> None:
    singular = np.array([[[4.0, -2.0], [-2.0, 1.0]], [[0.0, 0.0], [0.0, 9.0]], np.zeros((2, 2))])
    root = lower_roots(singular)
    assert root @ root.transpose(0, 2, 1) == pytest.approx(singular)


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
    scores = score_samples(posterior(0.0, 1.0), Objective(), UNIT_PRICE, normals)
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


PLUS_MINUS = np.array([[1.0], [-1.0]])


def gains(*beliefs: Belief, best: float) -> FloatArray:
    return expected_gains(
        beliefs, Objective(), UNIT_PRICE, best=best, normals=PLUS_MINUS, widen=True
    )


def test_the_gain_under_a_mixture_is_that_of_every_expert_by_weight() -> None:
    # 10 * 2 - 12 = 8 of two samples: 4; 30 - 12 = 18 and 30 - 12 = 18 without an error: 18.
    one, other = belief(np.log(10), np.log(2), 0.75), belief(np.log(30), 0.0, 0.25)
    assert gains(one, best=12.0) == pytest.approx([0.75 * 4])
    assert gains(one, other, best=12.0) == pytest.approx([0.75 * 4 + 0.25 * 18])


def test_before_the_first_success_the_gain_is_the_expected_score() -> None:
    # (20 + 5) / 2 = 12.5 and 30
    one, other = belief(np.log(10), np.log(2), 0.75), belief(np.log(30), 0.0, 0.25)
    assert gains(one, other, best=0.0) == pytest.approx([0.75 * 12.5 + 0.25 * 30])


def test_under_a_limit_only_draws_that_keep_it_gain() -> None:
    both = of_two_metrics((np.log(10), np.log(50)), np.log(2), -1.0)
    normals = np.array([[1.0, 0.0], [-1.0, 0.0]])
    found = expected_gains(
        [Belief("expert", 1.0, both)], SLO, UNIT_PRICE, best=4.0, normals=normals
    )
    # 20 requests/s at 25 ms gain 16; 5 requests/s at 100 ms break the limit, though 5 > 4.
    assert found == pytest.approx([8.0])


def test_beliefs_are_widened_until_a_sample_improves() -> None:
    # 10 * 2 = 20, 10 * 2^2 = 40 and 10 * 2^4 = 160 do not exceed 200, 10 * 2^8 = 2,560 does.
    assert gains(belief(np.log(10), np.log(2)), best=200.0) == pytest.approx([(2560 - 200) / 2])


def test_beliefs_are_not_widened_for_an_expectation() -> None:
    found = expected_gains(
        [belief(np.log(10), np.log(2))],
        Objective(),
        UNIT_PRICE,
        best=200.0,
        normals=PLUS_MINUS,
    )
    assert found.tolist() == [0.0]


def test_beliefs_stay_as_they_are_where_any_candidate_improves() -> None:
    two = Posterior(np.array([[np.log(10), np.log(500)]]), np.full((2, 1, 1), np.log(2) ** 2))
    found = expected_gains(
        [Belief("expert", 1.0, two)],
        Objective(),
        np.array([3600.0, 3600.0]),
        best=200.0,
        normals=PLUS_MINUS,
    )
    assert found == pytest.approx([0.0, (800 + 50) / 2])  # 1000 - 200 and 250 - 200


def test_certain_beliefs_below_the_best_gain_nothing() -> None:
    assert gains(belief(np.log(10), 0.0), best=200.0).tolist() == [0.0]
