import pytest

from falcon_ray.runtime.incumbent import rate_to_beat_rps
from falcon_ray.space.catalogue import cpu_node
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.cost import Pricing
from falcon_ray.space.objective import Objective, Slo
from falcon_ray.space.observation import Measurement, Observation, TrialStatus
from falcon_ray.space.workload import Scenario

# Four cores for 0.4 USD/h: a core costs 0.1.
PRICING = Pricing((cpu_node(4, 16, 0.4),))
SLO = Slo(latency_budget_ms=50)


def cores(n: int) -> Configuration:
    return Configuration({"cpu_cores": n})


def tried(n: int, measurement: Measurement) -> Observation:
    return Observation(configuration=cores(n), status=TrialStatus.MEASURED, measurement=measurement)


def to_beat(n: int, *observations: Observation, objective: Objective) -> float | None:
    """What a replica with n cores has to deliver."""
    return rate_to_beat_rps(observations, cores(n), objective=objective, pricing=PRICING)


def test_before_the_first_score_nothing_is_to_be_beaten() -> None:
    failed = Observation(configuration=cores(1), status=TrialStatus.FAILED, reason="lost")
    unable = Observation(configuration=cores(1), status=TrialStatus.INFEASIBLE, reason="memory")
    assert to_beat(1, objective=Objective()) is None
    assert to_beat(1, failed, unable, objective=Objective()) is None
    over = tried(1, Measurement(saturation_rps=100.0, floor_latency_ms=80.0))
    assert to_beat(1, over, objective=Objective(SLO)) is None


def test_what_costs_twice_as_much_has_to_deliver_twice_as_much() -> None:
    best = tried(1, Measurement(saturation_rps=100.0))
    assert to_beat(1, best, objective=Objective()) == pytest.approx(100.0)
    assert to_beat(2, best, objective=Objective()) == pytest.approx(200.0)


def test_the_best_trial_counts_at_the_lower_end_of_its_interval() -> None:
    # 150/s on two cores buy less than 100/s on one, of which 90/s are sure.
    best = tried(1, Measurement(saturation_rps=100.0, saturation_rps_ci_low=90.0))
    other = tried(2, Measurement(saturation_rps=150.0, saturation_rps_ci_low=149.0))
    for order in ((best, other), (other, best)):
        assert to_beat(2, *order, objective=Objective()) == pytest.approx(180.0)


def test_a_certified_rate_counts_as_it_is() -> None:
    best = tried(
        1, Measurement(saturation_rps=100.0, saturation_rps_ci_low=90.0, capacity_rps=60.0)
    )
    assert to_beat(2, best, objective=Objective(SLO)) == pytest.approx(120.0)


def test_a_single_stream_is_beaten_by_its_own_rate() -> None:
    alone = Measurement(saturation_rps=100.0, saturation_rps_ci_low=90.0, single_stream_rps=20.0)
    objective = Objective(scenario=Scenario.SINGLE_STREAM)
    assert to_beat(1, tried(1, alone), objective=objective) == pytest.approx(20.0)


def test_at_a_given_rate_no_rate_is_to_be_beaten() -> None:
    best = tried(1, Measurement(saturation_rps=100.0, capacity_rps=40.0))
    assert to_beat(2, best, objective=Objective(SLO, offered_rps=40.0)) is None


def test_a_single_stream_counts_at_the_lower_end_of_its_own_interval() -> None:
    alone = Measurement(
        saturation_rps=100.0,
        saturation_rps_ci_low=90.0,
        single_stream_rps=20.0,
        single_stream_rps_ci_low=19.0,
        single_stream_rps_ci_high=21.0,
    )
    objective = Objective(scenario=Scenario.SINGLE_STREAM)
    assert to_beat(1, tried(1, alone), objective=objective) == pytest.approx(19.0)
