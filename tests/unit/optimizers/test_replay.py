"""Replays look trials up, in batches, under noise, up to a budget."""

import numpy as np
import pytest

from falcon_ray.errors import InputError
from falcon_ray.optimizers.replay import ReplayTask, noisy, replay
from falcon_ray.space.observation import Measurement, Observation, TrialStatus
from tests.unit.optimizers.recorded import Listed, by_batch

TASK = by_batch([10.0, 20.0, None, 40.0, 30.0])
FULL = Observation(
    configuration=TASK.space.candidate(0),
    status=TrialStatus.MEASURED,
    measurement=Measurement(
        saturation_rps=100.0,
        saturation_rps_ci_low=90.0,
        saturation_rps_ci_high=110.0,
        latency_p50_ms=5.0,
        latency_p99_ms=50.0,
        n_requests=1000,
        error_rate=0.01,
        extra={"ttft_ms": 200.0, "cache_hits": 0.0},
    ),
)


def test_scores_are_requests_per_dollar_and_zero_where_infeasible() -> None:
    assert TASK.scores.tolist() == [10.0, 20.0, 0.0, 40.0, 30.0]


def test_each_suggestion_is_observed_before_the_next_one() -> None:
    optimizer = Listed(TASK, [3, 2, 0])
    assert replay(TASK, optimizer, budget=30).tolist() == [3, 2, 0]
    assert optimizer.events == [
        "suggest 3",
        "observe 3",
        "suggest 2",
        "observe 2",
        "suggest 0",
        "observe 0",
    ]
    assert optimizer.observed == [TASK.observations[i] for i in (3, 2, 0)]


def test_a_batch_is_suggested_before_any_of_it_is_observed() -> None:
    optimizer = Listed(TASK, range(5))
    assert replay(TASK, optimizer, budget=3, batch_size=2).tolist() == [0, 1, 2]
    # The budget of three leaves one trial for the second batch.
    assert optimizer.events == [
        "suggest 0",
        "suggest 1",
        "observe 0",
        "observe 1",
        "suggest 2",
        "observe 2",
    ]


def test_it_stops_when_told_to() -> None:
    tried = replay(TASK, Listed(TASK, range(5)), budget=30, stop=lambda so_far: 1 in so_far)
    assert tried.tolist() == [0, 1]


def test_noise_multiplies_every_metric_and_keeps_shares_and_counts() -> None:
    shown = noisy(FULL, noise_sd=0.1, rng=np.random.default_rng(0)).measurement
    assert shown is not None
    factor = shown.saturation_rps / 100.0
    assert factor != 1.0
    assert shown.saturation_rps_ci_low == pytest.approx(90.0 * factor)
    assert shown.saturation_rps_ci_high == pytest.approx(110.0 * factor)
    assert shown.latency_p50_ms is not None
    assert shown.latency_p99_ms == pytest.approx(10 * shown.latency_p50_ms)
    assert shown.extra["ttft_ms"] not in (200.0, pytest.approx(200.0 * factor))
    assert (shown.n_requests, shown.error_rate, shown.extra["cache_hits"]) == (1000, 0.01, 0.0)


def test_noise_has_the_relative_sd_that_was_asked_for() -> None:
    rng = np.random.default_rng(0)
    shown = [noisy(FULL, noise_sd=0.3, rng=rng).measurement for _ in range(4000)]
    rates = np.array([each.saturation_rps for each in shown if each is not None])
    assert rates.std() / rates.mean() == pytest.approx(0.3, rel=0.05)
    assert np.median(rates) == pytest.approx(100.0, rel=0.02)


def test_noise_is_the_same_for_the_same_rng_and_never_changes_what_is_recorded() -> None:
    seen: list[list[Observation]] = []
    for _ in range(2):
        optimizer = Listed(TASK, range(5))
        replay(TASK, optimizer, budget=5, noise_sd=0.1, rng=np.random.default_rng(7))
        seen.append(optimizer.observed)
    assert seen[0] == seen[1]
    assert seen[0] != list(TASK.observations)
    assert seen[0][2] is TASK.observations[2]  # nothing was measured
    assert TASK.scores[0] == 10.0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"budget": 0}, "budget and batch_size must be 1 or more, got 0 and 1"),
        ({"budget": 1, "batch_size": 0}, "got 1 and 0"),
        ({"budget": 1, "noise_sd": -0.1}, "noise_sd must be finite and not negative, got -0.1"),
        ({"budget": 1, "noise_sd": 0.1}, "noise needs an rng"),
    ],
)
def test_what_cannot_be_replayed_is_refused(arguments: dict[str, float], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        replay(TASK, Listed(TASK, [0]), **arguments)  # pyright: ignore[reportArgumentType]


def test_a_candidate_that_is_suggested_twice_is_a_mistake() -> None:
    with pytest.raises(InputError, match="batch_size=2 was suggested twice"):
        replay(TASK, Listed(TASK, [1, 1]), budget=5)


def test_a_stranger_is_a_mistake() -> None:
    larger = by_batch([1.0] * 6)
    with pytest.raises(InputError, match="batch_size=32 was suggested, which is no candidate"):
        replay(TASK, Listed(larger, [5]), budget=5)


def test_a_task_without_a_feasible_candidate_is_refused() -> None:
    with pytest.raises(InputError, match="no candidate is feasible"):
        by_batch([None, None])


def test_a_task_of_one_candidate_is_solved_at_once() -> None:
    task: ReplayTask = by_batch([5.0])
    assert replay(task, Listed(task, [0]), budget=30).tolist() == [0]
