"""How long one offered rate is watched."""

import math
from dataclasses import replace

import pytest

from falcon_ray.space.objective import Slo
from falcon_ray.space.workload import Scenario, Workload
from falcon_ray.trial.arrivals import ArrivalTrace
from falcon_ray.trial.plan import MeasurementPlan

PLAN = MeasurementPlan(workload=Workload(scenario=Scenario.SERVER), slo=Slo(latency_budget_ms=50.0))
TRACE = replace(PLAN, arrivals=ArrivalTrace((0.0, 0.5, 2.0)))


def test_the_looks_at_a_load_take_more_requests_than_one() -> None:
    # The last of five: 0.99 ** 321 < 0.04 and 321 / 0.8 = 401.25. One: 0.99 ** 299 < 0.05, 373.75.
    assert PLAN.requests_to_certify == 402
    assert TRACE.requests_to_certify == 374


def test_a_low_rate_is_offered_until_it_can_be_certified() -> None:
    needed = 402 + 3 * math.sqrt(402)
    assert PLAN.load_point_s(10.0) == pytest.approx(needed / 10)
    assert PLAN.load_point_s(100.0) == 30.0
    # 374 requests at 4/s take 93.5 s.
    assert TRACE.load_point_s(4.0) == pytest.approx(93.5)


def test_a_rate_that_cannot_be_certified_in_time_is_not_offered_for_longer() -> None:
    lowest_rps = PLAN.lowest_certifiable_rps
    assert lowest_rps == pytest.approx((402 + 3 * math.sqrt(402)) / 120)
    assert PLAN.load_point_s(1.001 * lowest_rps) == pytest.approx(120.0, rel=2e-3)
    assert PLAN.load_point_s(0.999 * lowest_rps) == 30.0


def test_without_a_limit_nothing_is_certified() -> None:
    with pytest.raises(ValueError, match="without a latency limit"):
        _ = MeasurementPlan().requests_to_certify


def test_the_longest_trial_is_half_an_attempt_that_broke_and_a_whole_one() -> None:
    # Two deployments of 100 s and their removals of 30 s; 5 loads of 12 s to be warm, 10 s to be
    # measured and 10 s without an answer; the model's own for 2 s, and 10 s without an answer.
    attempt_s = 2 * (100 + 30) + 5 * (12 + 10 + 10) + 2 + 10
    plan = MeasurementPlan()
    assert plan.longest_attempt_s(deploy_s=100, remove_s=30) == attempt_s
    assert plan.retry_within_s(deploy_s=100, remove_s=30) == attempt_s / 2
    assert plan.longest_trial_s(deploy_s=100, remove_s=30) == 1.5 * attempt_s
    once = replace(plan, max_attempts=1)
    assert once.longest_trial_s(deploy_s=100, remove_s=30) == attempt_s


def test_under_a_latency_limit_every_offered_rate_may_take_its_longest() -> None:
    without = replace(PLAN, slo=None, workload=Workload())
    more_s = PLAN.longest_attempt_s(deploy_s=1, remove_s=1) - without.longest_attempt_s(
        deploy_s=1, remove_s=1
    )
    assert more_s == (8 + 1) * (120 + 10)
