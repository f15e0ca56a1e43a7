from dataclasses import replace

import numpy as np
import pytest

from falcon_ray.space.observation import TrialStatus
from falcon_ray.trial.arrivals import poisson
from falcon_ray.trial.recipe import MeasurementPlan
from falcon_ray.trial.statistics import percentiles_ms
from falcon_ray.trial.steady_state import PrecisionRule
from tests.fakes import batch_completions_s
from tests.unit.trial.trials import (
    SATURATION_RPS,
    Trial,
    assert_gone,
    endpoint,
    served_by,
    with_slo,
)


def true_p99_ms(rate_rps: float) -> float:
    """The service's own 99th percentile at this rate, from many more requests than a trial has."""
    arrivals_s = poisson(rate_rps, 40_000 / rate_rps, np.random.default_rng(1))
    done_s = batch_completions_s(arrivals_s, batch_size=4, service_s=0.04)
    return percentiles_ms((done_s - arrivals_s) * 1000, (99.0,))[0]


def test_a_capacity_is_certified_near_the_rate_where_latency_reaches_the_limit() -> None:
    budget_ms = 150.0
    measured = Trial(plan=with_slo(budget_ms)).measure()
    assert measured.capacity_rps is not None
    # The limit holds with a margin for the doubt that few requests leave, and not far above.
    assert true_p99_ms(0.9 * measured.capacity_rps) <= budget_ms
    assert true_p99_ms(1.35 * measured.capacity_rps) > budget_ms
    assert measured.capacity_rps < measured.saturation_rps


def test_latencies_under_an_slo_are_those_at_the_certified_rate() -> None:
    trial = Trial(plan=with_slo(150.0))
    measured = trial.measure()
    assert measured.capacity_rps is not None
    at_capacity = [
        arrivals_s
        for arrivals_s, phase in zip(trial.load.offered, trial.phases[3:], strict=False)
        if phase == f"offering {measured.capacity_rps:.0f}/s"
    ]
    assert [arrivals_s.size for arrivals_s in at_capacity] == [measured.n_requests]
    done_s = batch_completions_s(at_capacity[0], batch_size=4, service_s=0.04)
    p50_ms, p99_ms = percentiles_ms((done_s - at_capacity[0]) * 1000, (50.0, 99.0))
    assert measured.latency_p50_ms == pytest.approx(p50_ms)
    assert measured.latency_p99_ms == pytest.approx(p99_ms)
    assert p99_ms <= 150.0


def test_a_loose_limit_certifies_nearly_the_whole_saturation() -> None:
    measured = Trial(plan=with_slo(10_000.0)).measure()
    assert measured.capacity_rps is not None
    assert SATURATION_RPS / 1.05 <= measured.capacity_rps < SATURATION_RPS


def test_the_floor_is_the_percentile_at_the_lightest_load_offered() -> None:
    trial = Trial(plan=with_slo(150.0))
    measured = trial.measure()
    rates = [arrivals_s.size / arrivals_s[-1] for arrivals_s in trial.load.offered]
    lightest = trial.load.offered[int(np.argmin(rates))]
    done_s = batch_completions_s(lightest, batch_size=4, service_s=0.04)
    expected_ms = percentiles_ms((done_s - lightest) * 1000, (99.0,))[0]
    assert measured.floor_latency_ms == pytest.approx(expected_ms)


def test_a_limit_below_the_service_time_certifies_nothing_and_says_by_how_much() -> None:
    trial = Trial(plan=with_slo(30.0))
    measured = trial.measure()
    assert measured.capacity_rps is None
    assert measured.floor_latency_ms is not None
    # At light load a request waits at most for the batch that is running: 40 to 80 ms.
    assert 40.0 <= measured.floor_latency_ms <= 80.0
    assert measured.n_requests == trial.load.offered[-1].size  # the lightest load, the last one
    assert measured.latency_p99_ms == measured.floor_latency_ms


def test_without_an_slo_nothing_is_offered_and_nothing_certified() -> None:
    trial = Trial()
    measured = trial.measure()
    assert trial.load.offered == []
    assert measured.capacity_rps is None
    assert measured.floor_latency_ms is None


def test_equal_seeds_offer_equal_arrivals() -> None:
    def offered(seed: int) -> list[list[float]]:
        trial = Trial(plan=replace(with_slo(150.0), seed=seed))
        trial.run()
        return [arrivals_s.tolist() for arrivals_s in trial.load.offered]

    assert offered(1) == offered(1)
    assert offered(1) != offered(2)


def test_a_service_that_fails_at_every_offered_rate_is_a_lesson() -> None:
    trial = served_by(endpoint(open_loop_fails=True), with_slo(150.0))
    observation = trial.run()
    assert observation.status is TrialStatus.INFEASIBLE
    assert observation.reason.startswith("100% of ")
    assert_gone(trial)


def test_a_slow_service_is_offered_at_least_one_request_at_its_lightest_load() -> None:
    # 1 request/s at saturation: 5 % of it for two seconds is one request in ten such loads.
    plan = replace(
        with_slo(30.0), load_point_max_s=2.0, precision=PrecisionRule(min_s=3.0, max_s=60.0)
    )
    trial = served_by(endpoint(service_s=4.0), plan)
    measured = trial.measure()
    assert min(arrivals_s.size for arrivals_s in trial.load.offered) == 1
    assert measured.capacity_rps is None
    assert measured.floor_latency_ms is not None


@pytest.mark.parametrize(
    ("rate_rps", "seconds"),
    # Four times the 299 requests that certify the 99th percentile, for 2 to 30 s.
    [(100.0, 4 * 299 / 100), (10_000.0, 2.0), (1.0, 30.0)],
)
def test_a_load_point_lasts_for_enough_requests_within_bounds(
    rate_rps: float, seconds: float
) -> None:
    assert with_slo(50.0).load_point_s(rate_rps) == pytest.approx(seconds)


def test_without_an_slo_a_load_point_takes_no_time() -> None:
    assert MeasurementPlan().load_point_s(100.0) == 0.0
