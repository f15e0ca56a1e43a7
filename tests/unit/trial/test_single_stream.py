from dataclasses import replace

import pytest

from falcon_ray.space.objective import Slo
from falcon_ray.space.workload import Scenario, Workload
from falcon_ray.trial.plan import MeasurementPlan
from tests.unit.trial.trials import SATURATION_RPS, Trial

PLAN = MeasurementPlan(workload=Workload(scenario=Scenario.SINGLE_STREAM))


def with_budget(budget_ms: float) -> MeasurementPlan:
    return replace(PLAN, slo=Slo(latency_budget_ms=budget_ms))


def test_a_single_stream_is_measured_after_the_saturation() -> None:
    trial = Trial(plan=PLAN)
    measured = trial.measure()
    assert trial.load.concurrencies == [8, 1, 1]  # the last one only sees whether it answers
    assert measured.saturation_rps == pytest.approx(SATURATION_RPS)
    assert measured.single_stream_rps == pytest.approx(25.0)  # one in 40 ms
    assert measured.single_latency_ms == pytest.approx(40.0)
    assert measured.latency_p99_ms == pytest.approx(40.0)
    assert (measured.slo_verdict, measured.floor_latency_ms) == (None, None)
    assert [phase for phase, _, _ in trial.told] == ["warm_up", "saturation", "single_stream"]


def test_a_single_stream_under_a_limit_lasts_until_it_is_decided() -> None:
    measured = Trial(plan=with_budget(41.0)).measure()
    assert measured.slo_verdict == "met"
    assert measured.n_requests >= 299  # none over the limit
    assert measured.floor_latency_ms == pytest.approx(40.0)
    assert measured.capacity_rps is None


def test_a_single_stream_over_the_limit_is_violated() -> None:
    measured = Trial(plan=with_budget(39.0)).measure()
    assert measured.slo_verdict == "violated"
    assert measured.single_stream_rps == pytest.approx(25.0)


def test_a_single_stream_that_time_does_not_decide_is_undecided() -> None:
    plan = replace(with_budget(41.0), load_point_max_s=5.0)
    measured = Trial(plan=plan).measure()
    assert measured.slo_verdict == "undecided"
    assert measured.n_requests < 299


def test_a_single_stream_that_cannot_beat_the_incumbent_is_cut_short() -> None:
    measured = Trial(plan=PLAN).measure(rate_to_beat_rps=30.0)
    assert measured.saturation_rps == pytest.approx(SATURATION_RPS)
    assert measured.cut_short == "cannot beat the incumbent"
    assert measured.n_requests == 37  # in half the shortest measurement, 1.5 s
