import json
import math

import numpy as np
import pytest

from falcon_ray.errors import InputError
from falcon_ray.space.objective import GenerationObjective, Objective, Slo
from falcon_ray.space.observation import Measurement
from falcon_ray.space.workload import Scenario


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


def generation(*, ttft_ms: float, tpot_ms: float) -> Measurement:
    return Measurement(saturation_rps=1.0, extra={"ttft_ms": ttft_ms, "tpot_ms": tpot_ms})


def test_limits_are_those_of_the_slo_by_metric() -> None:
    assert Objective().limits == {}
    assert Objective(Slo(latency_budget_ms=50)).limits == {"floor_latency_ms": 50}
    assert GenerationObjective(output_tokens=9).limits == {}
    limited = GenerationObjective(output_tokens=9, ttft_budget_ms=200, tpot_budget_ms=20)
    assert limited.limits == {"ttft_ms": 200, "tpot_ms": 20}
    assert GenerationObjective(output_tokens=9, tpot_budget_ms=20).limits == {"tpot_ms": 20}


def test_value_ignores_the_limit_that_the_score_keeps() -> None:
    objective = Objective(Slo(latency_budget_ms=50))
    metrics = {"capacity_rps": np.array([100.0]), "floor_latency_ms": np.array([51.0])}
    assert objective.value(metrics, np.array([0.5])).tolist() == [720_000]
    assert objective.score(metrics, np.array([0.5])).tolist() == [0]


def test_where_nothing_is_known_rates_go_with_prices_and_latencies_are_equal() -> None:
    prices = np.array([1.0, 3.0])
    assert Objective().uninformed_means(prices)["saturation_rps"] == pytest.approx(np.log(prices))
    limited = Objective(Slo(latency_budget_ms=50)).uninformed_means(prices)
    assert limited["capacity_rps"] == pytest.approx(np.log(prices))
    assert limited["floor_latency_ms"].tolist() == [0, 0]
    generation_means = GenerationObjective(output_tokens=9).uninformed_means(prices)
    assert {name: mean.tolist() for name, mean in generation_means.items()} == {
        "ttft_ms": [0, 0],
        "tpot_ms": [0, 0],
    }


def test_answers_per_dollar_follow_from_the_two_latencies() -> None:
    objective = GenerationObjective(output_tokens=101)
    assert objective.modelled_metrics == ("ttft_ms", "tpot_ms")
    metrics = {"ttft_ms": np.array([500.0, 500.0]), "tpot_ms": np.array([15.0, 45.0])}
    # An answer takes 0.5 s + 100 * 0.015 s = 2 s, or 5 s; 3600 s/h / (2 s * 0.6 USD/h) = 3,000.
    expected = pytest.approx([3_000, 1_200])
    assert objective.value(metrics, np.array([0.6])).tolist() == expected
    assert objective.score(metrics, np.array([0.6])).tolist() == expected


def test_an_answer_of_one_token_takes_the_time_to_the_first() -> None:
    score = GenerationObjective(output_tokens=1).score_measurement(
        generation(ttft_ms=1000.0, tpot_ms=77.0), usd_per_hour=3600.0
    )
    assert score == pytest.approx(1.0)  # 3600 s/h / (1 s * 3600 USD/h)


@pytest.mark.parametrize(
    ("ttft_ms", "tpot_ms", "kept"),
    [(200, 20, True), (200.1, 20, False), (200, 20.1, False), (200.1, 20.1, False)],
)
def test_generation_scores_nothing_where_either_latency_breaks_its_limit(
    ttft_ms: float, tpot_ms: float, *, kept: bool
) -> None:
    objective = GenerationObjective(output_tokens=11, ttft_budget_ms=200, tpot_budget_ms=20)
    measured = generation(ttft_ms=ttft_ms, tpot_ms=tpot_ms)
    score = objective.score_measurement(measured, usd_per_hour=1.0)
    # 3600 / (0.2 s + 10 * 0.02 s) = 9,000
    assert score == (pytest.approx(9_000) if kept else None)


@pytest.mark.parametrize(
    ("output_tokens", "ttft_ms", "tpot_ms", "message"),
    [
        (0, 1.0, 1.0, "output_tokens must be 1 or more, got 0"),
        (1, 0.0, 1.0, "budgets must be positive, got 0.0 and 1.0 ms"),
        (1, 1.0, -1.0, "budgets must be positive, got 1.0 and -1.0 ms"),
    ],
)
def test_generation_objectives_that_cannot_be_are_refused(
    output_tokens: int, ttft_ms: float, tpot_ms: float, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        GenerationObjective(
            output_tokens=output_tokens, ttft_budget_ms=ttft_ms, tpot_budget_ms=tpot_ms
        )


SLO = Slo(latency_budget_ms=50)


def lone(
    rate_rps: float, floor_latency_ms: float | None = None, slo_verdict: str | None = None
) -> Measurement:
    """What a single stream shows."""
    return Measurement(
        saturation_rps=500.0,
        single_stream_rps=rate_rps,
        floor_latency_ms=floor_latency_ms,
        slo_verdict=slo_verdict,
    )


def test_an_slo_makes_a_server_unless_something_else_is_asked_for() -> None:
    assert Objective().scenario is Scenario.OFFLINE
    assert Objective(SLO).scenario is Scenario.SERVER
    assert Objective(SLO, Scenario.SINGLE_STREAM).scenario is Scenario.SINGLE_STREAM


@pytest.mark.parametrize(
    ("slo", "scenario", "offered_rps", "message"),
    [
        (None, Scenario.SERVER, None, "needs a latency limit; give latency_budget_ms, or ask for"),
        (SLO, Scenario.OFFLINE, None, "limits nothing in the offline scenario; leave it out, or"),
        (None, Scenario.OFFLINE, 10.0, "leave out offered_rps, or give a latency budget"),
        (SLO, Scenario.SINGLE_STREAM, 10.0, "not in single_stream; leave out offered_rps"),
        (SLO, Scenario.SERVER, -1.0, "offered_rps must be positive and finite, got -1.0"),
    ],
)
def test_parts_that_contradict_each_other_say_what_to_change(
    slo: Slo | None, scenario: Scenario, offered_rps: float | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Objective(slo, scenario, offered_rps)


def test_a_single_stream_is_worth_the_rate_of_lone_requests() -> None:
    objective = Objective(scenario=Scenario.SINGLE_STREAM)
    assert objective.modelled_metrics == ("single_stream_rps",)
    assert objective.limits == {}
    # 20 requests/s * 3600 s/h / 0.5 USD/h, although 500/s would be served at once.
    assert objective.score_measurement(lone(20.0), usd_per_hour=0.5) == pytest.approx(144_000)
    metrics = {"single_stream_rps": np.array([20.0])}
    assert objective.score(metrics, np.array([0.5])).tolist() == pytest.approx([144_000])


@pytest.mark.parametrize(
    ("floor_latency_ms", "slo_verdict", "kept"),
    [
        (49.0, "met", True),
        (49.0, None, True),  # somebody's own trainable says no verdict
        (51.0, None, False),
        (49.0, "undecided", False),
        (51.0, "violated", False),
        (None, "met", False),
    ],
)
def test_a_single_stream_under_an_slo_counts_only_where_it_keeps_it(
    floor_latency_ms: float | None, slo_verdict: str | None, *, kept: bool
) -> None:
    objective = Objective(SLO, Scenario.SINGLE_STREAM)
    assert objective.modelled_metrics == ("single_stream_rps", "floor_latency_ms")
    assert objective.limits == {"floor_latency_ms": 50}
    measured = lone(20.0, floor_latency_ms, slo_verdict)
    score = objective.score_measurement(measured, usd_per_hour=0.5)
    assert score == (pytest.approx(144_000) if kept else None)


def test_at_a_given_rate_only_prices_and_the_limit_tell_configurations_apart() -> None:
    objective = Objective(SLO, offered_rps=40.0)
    assert objective.modelled_metrics == ("floor_latency_ms",)
    metrics = {"floor_latency_ms": np.array([[49.0, 51.0], [10.0, 50.0]])}  # (2 samples, 2)
    prices = np.array([0.5, 0.25])
    # 40 requests/s * 3600 s/h / 0.5 USD/h = 288,000, and twice as many for half the price.
    assert objective.value(metrics, prices).tolist() == [[288_000, 576_000]] * 2
    assert objective.score(metrics, prices).tolist() == [[288_000, 0], [288_000, 576_000]]
    assert objective.uninformed_means(prices)["floor_latency_ms"].tolist() == [0, 0]


@pytest.mark.parametrize(("capacity_rps", "score"), [(40.0, 288_000), (None, None)])
def test_a_given_rate_counts_once_it_is_certified(
    capacity_rps: float | None, score: float | None
) -> None:
    measured = measurement(saturation_rps=100.0, capacity_rps=capacity_rps)
    assert Objective(SLO, offered_rps=40.0).score_measurement(measured, usd_per_hour=0.5) == score


@pytest.mark.parametrize(
    "objective",
    [
        Objective(),
        Objective(Slo(latency_budget_ms=50, latency_percentile=95), offered_rps=40.0),
        Objective(SLO, Scenario.SINGLE_STREAM),
    ],
)
def test_an_objective_survives_the_journal(objective: Objective) -> None:
    assert Objective.from_json(json.loads(json.dumps(objective.to_json()))) == objective


@pytest.mark.parametrize(
    ("record", "scenario"),
    [
        ({"slo": None}, Scenario.OFFLINE),
        ({"slo": {"latency_budget_ms": 50, "latency_percentile": 99.0}}, Scenario.SERVER),
    ],
)
def test_journals_from_before_there_were_scenarios_are_read(
    record: dict[str, object], scenario: Scenario
) -> None:
    assert Objective.from_json(record).scenario is scenario
