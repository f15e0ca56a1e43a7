import math

import numpy as np
import pytest

from falcon_ray.errors import InputError
from falcon_ray.space.objective import Objective, Slo
from falcon_ray.space.observation import Measurement


def measurement(*, saturation_rps: float, capacity_rps: float | None) -> Measurement:
    return Measurement(
        saturation_rps=saturation_rps,
        saturation_rps_ci_low=saturation_rps,
        saturation_rps_ci_high=saturation_rps,
        capacity_rps=capacity_rps,
        latency_p50_ms=10.0,
        latency_p90_ms=20.0,
        latency_p95_ms=25.0,
        latency_p99_ms=30.0,
        latency_p999_ms=40.0,
        n_requests=1000,
    )


@pytest.mark.parametrize("budget", [0.0, -1.0, math.nan])
def test_a_latency_budget_must_be_positive(budget: float) -> None:
    with pytest.raises(InputError, match=f"latency_budget_ms must be positive, got {budget}"):
        Slo(latency_budget_ms=budget)


@pytest.mark.parametrize("percentile", [0.0, 100.0, 101.0])
def test_a_percentile_lies_strictly_between_0_and_100(percentile: float) -> None:
    with pytest.raises(InputError, match=f"latency_percentile .* got {percentile}"):
        Slo(latency_budget_ms=50, latency_percentile=percentile)


def test_without_an_slo_the_score_is_saturated_requests_per_dollar() -> None:
    objective = Objective()
    assert objective.modelled_metrics == ("saturation_rps",)
    score = objective.score({"saturation_rps": np.array([100.0, 10.0])}, np.array([0.5, 0.1]))
    # 100 requests/s * 3600 s/h / 0.5 USD/h = 720,000; 10 * 3600 / 0.1 = 360,000
    assert score.tolist() == pytest.approx([720_000, 360_000])


def test_with_an_slo_a_floor_latency_over_the_budget_scores_nothing() -> None:
    objective = Objective(Slo(latency_budget_ms=50))
    assert objective.modelled_metrics == ("capacity_rps", "floor_latency_ms")
    score = objective.score(
        {
            "capacity_rps": np.array([100.0, 100.0, 100.0, np.nan]),
            "floor_latency_ms": np.array([49.0, 50.0, 51.0, 49.0]),
        },
        np.full(4, 0.5),
    )
    assert score.tolist() == pytest.approx([720_000, 720_000, 0, 0])


def test_scores_of_samples_broadcast_over_the_prices_of_candidates() -> None:
    objective = Objective()
    samples = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])  # (3 samples, 2 candidates)
    score = objective.score({"saturation_rps": samples}, np.array([3600.0, 7200.0]))
    assert score.tolist() == [[1.0, 1.0], [3.0, 2.0], [5.0, 3.0]]


@pytest.mark.parametrize(
    ("slo", "capacity_rps", "score"),
    [
        (None, None, 720_000),  # saturation: 100 * 3600 / 0.5
        (Slo(latency_budget_ms=50), 80.0, 576_000),  # certified: 80 * 3600 / 0.5
        (Slo(latency_budget_ms=50), None, None),
        (Slo(latency_budget_ms=50), 0.0, None),
    ],
)
def test_a_measurement_scores_its_rate_per_dollar_or_nothing(
    slo: Slo | None, capacity_rps: float | None, score: float | None
) -> None:
    measured = measurement(saturation_rps=100.0, capacity_rps=capacity_rps)
    got = Objective(slo).score_measurement(measured, usd_per_hour=0.5)
    assert got == (None if score is None else pytest.approx(score))
