import math
import re
from dataclasses import replace

import numpy as np
import pytest

from falcon_ray.errors import InfeasibleCause, InputError
from falcon_ray.space.observation import TrialStatus
from falcon_ray.space.workload import Scenario, Workload
from falcon_ray.trial.arrivals import ArrivalTrace, Poisson
from falcon_ray.trial.plan import MeasurementPlan
from falcon_ray.trial.slo_rule import SloRule
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
    arrivals_s = Poisson().draw(rate_rps, 40_000 / rate_rps, np.random.default_rng(1))
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
    at_capacity = [n for _, rate_rps, n in trial.told if rate_rps == measured.capacity_rps]
    assert at_capacity == [measured.n_requests]
    assert measured.n_load_points == sum(phase == "offered" for phase, _, _ in trial.told)
    assert measured.slo_verdict == "met"
    assert measured.latency_p99_ms is not None
    assert measured.latency_p99_ms <= 150.0


def test_a_loose_limit_certifies_nearly_the_whole_saturation() -> None:
    measured = Trial(plan=with_slo(10_000.0)).measure()
    assert measured.capacity_rps is not None
    # Near saturation queues come and go so slowly that 30 s hold few independent ones.
    assert 0.9 * SATURATION_RPS <= measured.capacity_rps < SATURATION_RPS


def test_the_floor_is_the_percentile_at_the_lightest_load_offered() -> None:
    trial = Trial(plan=with_slo(150.0))
    measured = trial.measure()
    rates = [arrivals_s.size / arrivals_s[-1] for arrivals_s in trial.load.offered]
    lightest = trial.load.offered[int(np.argmin(rates))]
    done_s = batch_completions_s(lightest, batch_size=4, service_s=0.04)
    expected_ms = percentiles_ms((done_s - lightest) * 1000, (99.0,))[0]
    assert measured.floor_latency_ms == pytest.approx(expected_ms)


def test_a_limit_below_a_lone_request_is_said_before_any_rate_is_offered() -> None:
    trial = Trial(plan=with_slo(30.0))
    measured = trial.measure()
    assert trial.load.offered == []
    assert trial.load.concurrencies == [8, 1]
    assert measured.cut_short == "one request alone takes 40 ms, more than the limit of 30 ms"
    assert (measured.slo_verdict, measured.capacity_rps) == ("violated", None)
    assert measured.single_latency_ms == pytest.approx(40.0)
    assert measured.floor_latency_ms == pytest.approx(40.0)
    assert measured.latency_p99_ms == pytest.approx(40.0)


def test_a_limit_that_no_rate_keeps_certifies_nothing() -> None:
    # Alone a request takes 40 ms; one that comes while a batch runs waits for up to 40 ms more.
    measured = Trial(plan=with_slo(41.0)).measure()
    assert (measured.slo_verdict, measured.capacity_rps) == ("violated", None)
    assert measured.floor_latency_ms is not None
    assert 41.0 < measured.floor_latency_ms <= 80.0
    assert measured.cut_short == ""


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
        with_slo(4_100.0), load_point_max_s=2.0, precision=PrecisionRule(min_s=3.0, max_s=60.0)
    )
    trial = served_by(endpoint(service_s=4.0), plan)
    measured = trial.measure()
    assert min(arrivals_s.size for arrivals_s in trial.load.offered) == 1
    assert measured.capacity_rps is None
    assert measured.slo_verdict == "undecided"


def test_a_trace_is_judged_as_a_whole_and_steady_arrivals_as_soon_as_they_can_be() -> None:
    plan = with_slo(50.0)
    assert plan.load_point_s(100.0) == plan.load_point_max_s
    trace = replace(plan, arrivals=ArrivalTrace((0.0, 1.0, 1.5)))
    # Four times the 299 requests that certify the 99th percentile, for 2 to 30 s.
    assert trace.load_point_s(100.0) == pytest.approx(4 * 299 / 100)
    assert trace.load_point_s(10_000.0) == 2.0
    assert trace.load_point_s(1.0) == 30.0


def at_rate(rate_rps: float, budget_ms: float = 150.0) -> MeasurementPlan:
    return replace(
        with_slo(budget_ms),
        workload=Workload(scenario=Scenario.SERVER, offered_rps=rate_rps),
    )


def test_a_given_rate_is_the_only_one_that_is_offered() -> None:
    trial = Trial(plan=at_rate(50.0))
    measured = trial.measure()
    assert [rate_rps for phase, rate_rps, _ in trial.told if phase == "offered"] == [50.0]
    assert (measured.capacity_rps, measured.slo_verdict) == (50.0, "met")
    assert measured.n_load_points == 1


def test_a_rate_of_a_search_that_can_no_longer_be_met_ends_early() -> None:
    plan = with_slo(150.0)
    trial = Trial(plan=plan)
    measured = trial.measure()
    offered = [(rate_rps, n) for phase, rate_rps, n in trial.told if phase == "offered"]
    assert measured.capacity_rps is not None
    above = {rate: n for rate, n in offered if rate and rate > measured.capacity_rps}
    assert len(above) > 1
    assert all(n < 0.9 * rate * plan.load_point_max_s for rate, n in above.items())
    # Asked for alone, a rate is offered until it is decided, or to the end.
    alone = {rate: Trial(plan=at_rate(rate)).measure().n_requests for rate in above}
    assert any(alone[rate] > 1.5 * n for rate, n in above.items())


def test_a_rate_above_saturation_is_seen_to_overload_early_and_is_no_lesson_about_the_client() -> (
    None
):
    trial = Trial(plan=at_rate(200.0))
    trial.load.open_lags_ms, trial.load.cpu_shares = (50.0,), (0.95,)
    measured = trial.measure()
    assert (measured.capacity_rps, measured.slo_verdict) == (None, "violated")
    assert trial.load.n_added == 0
    # Not all of the 6000 requests of 30 s were waited for.
    assert measured.n_requests < 1000


def test_a_client_that_is_late_is_helped_by_more_drivers() -> None:
    trial = Trial(plan=at_rate(50.0))
    trial.load.open_lags_ms, trial.load.can_add = (120.0, 0.0), 1
    measured = trial.measure()
    assert trial.load.n_added == 1
    assert (measured.capacity_rps, measured.n_load_points) == (50.0, 1)


def test_a_client_that_stays_late_fails_the_trial() -> None:
    trial = Trial(plan=at_rate(50.0))
    trial.load.open_lags_ms = (120.0,)
    observation = trial.run()
    assert observation.status is TrialStatus.FAILED
    assert observation.reason.startswith("client-limited: 1 load drivers were 120 ms late")
    assert observation.attempts == 3


def test_a_rate_that_is_met_in_spite_of_a_late_client_stands() -> None:
    trial = Trial(plan=at_rate(50.0, budget_ms=300.0))
    trial.load.open_lags_ms = (120.0,)
    assert trial.measure().capacity_rps == 50.0
    assert trial.load.n_added == 0


def slow_drivers(at_most_rps: tuple[float, ...], cpu_share: float) -> Trial:
    """Drivers that send less than the 80/s that are due; 78/s are about half a second late in 30 s,
    which is little of the limit of 10 s, and every latency keeps it."""
    trial = Trial(plan=replace(at_rate(80.0, budget_ms=10_000.0), max_attempts=1))
    trial.load.at_most_rps, trial.load.cpu_shares = at_most_rps, (cpu_share,)
    return trial


@pytest.mark.parametrize("cpu_share", [0.2, 0.8])
def test_a_rate_that_the_drivers_do_not_send_is_not_met_but_client_limited(
    cpu_share: float,
) -> None:
    observation = slow_drivers((78.0,), cpu_share).run()
    assert observation.status is TrialStatus.FAILED
    assert observation.reason.startswith("client-limited")


def test_a_rate_that_more_drivers_send_is_met() -> None:
    trial = slow_drivers((78.0, math.inf), 0.8)
    trial.load.can_add = 1
    assert trial.measure().capacity_rps == 80.0
    assert trial.load.n_added == 1


def test_where_the_percentile_falls_on_a_failed_request_it_is_far_over_the_limit() -> None:
    # Every fortieth of the answers within 80 ms fails: 2.5 %, where 1 % may.
    plan = replace(at_rate(50.0), max_error_rate=0.5)
    measured = served_by(endpoint(fail_every=40), plan).measure()
    assert measured.slo_verdict == "violated"
    assert measured.floor_latency_ms == pytest.approx(1500.0)  # ten times 150 ms


def test_under_the_rate_to_beat_one_met_rate_is_enough() -> None:
    trial = Trial(plan=with_slo(150.0))
    measured = trial.measure(rate_to_beat_rps=150.0)
    assert measured.capacity_rps == pytest.approx(70.0)  # 70 % of saturation, and not refined
    assert measured.n_load_points == 1
    assert measured.cut_short == "cannot beat the incumbent"


@pytest.mark.parametrize("hangs_after_s", [8.0, 15.0])
def test_a_service_that_hangs_at_an_offered_rate_is_a_lesson(hangs_after_s: float) -> None:
    # Saturation ends at 4.5 s and the lone requests at 5.5 s.
    plan = replace(at_rate(50.0, 1_000_000.0), stall_s=3.0, slo_rule=SloRule(n_looks=1))
    observation = served_by(endpoint(hangs_after_s=hangs_after_s), plan).run()
    assert observation.status is TrialStatus.INFEASIBLE
    assert re.match("(no|a) request was (not )?answered for 3 s", observation.reason)
    assert observation.cause is InfeasibleCause.TIMEOUT


def test_a_trial_never_certifies_a_service_that_hangs_from_then_on() -> None:
    done_s = Trial(plan=with_slo(150.0)).run().times
    end_s = done_s.warm_up_s + done_s.measure_s
    for hangs_after_s in np.linspace(0.0, end_s - 0.1, 40):
        observation = served_by(endpoint(hangs_after_s=float(hangs_after_s)), with_slo(150.0)).run()
        assert observation.status is TrialStatus.INFEASIBLE, hangs_after_s


def test_the_server_scenario_needs_a_limit() -> None:
    with pytest.raises(InputError, match="needs a latency limit"):
        MeasurementPlan(workload=Workload(scenario=Scenario.SERVER))
