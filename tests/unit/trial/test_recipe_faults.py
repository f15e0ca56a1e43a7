"""What must never look like a measurement, or like a lesson that it is not."""

import numpy as np
import pytest

from falcon_ray.errors import InfeasibleCause, InputError
from falcon_ray.space.observation import TrialStatus
from falcon_ray.trial.client import ClientRule, ClientVerdict, mean_health
from falcon_ray.trial.overload import OverloadRule
from falcon_ray.trial.plan import MeasurementPlan
from falcon_ray.trial.protocols import LoadHealth
from tests.unit.trial.trials import (
    ONE_ATTEMPT,
    SATURATION_RPS,
    Trial,
    assert_gone,
    endpoint,
    served_by,
)


def health(*, lag_ms: float, cpu_share: float = 0.2) -> LoadHealth:
    return LoadHealth(
        n_drivers=1, lag_ms=lag_ms, cpu_share=cpu_share, in_flight=3, oldest_in_flight_s=0.1
    )


@pytest.mark.parametrize("hangs_after_s", [0.3, 1.0, 2.0, 3.9, 4.4])
def test_a_service_that_hangs_after_good_seconds_is_a_lesson(hangs_after_s: float) -> None:
    # Warm-up ends at 1.5 s; measuring would end at 4.5 s.
    trial = served_by(endpoint(hangs_after_s=hangs_after_s))
    observation = trial.run()
    assert observation.status is TrialStatus.INFEASIBLE
    assert observation.reason == "no request was answered for 10 s"
    assert observation.cause is InfeasibleCause.TIMEOUT
    assert observation.attempts == 1
    assert_gone(trial)


def test_a_hang_of_a_replica_that_was_lost_is_no_lesson() -> None:
    observation = served_by(endpoint(hangs_after_s=2.0, replaced_after_s=5.0), ONE_ATTEMPT).run()
    assert observation.status is TrialStatus.FAILED
    assert "first became second" in observation.reason


def test_a_hang_of_the_model_alone_is_a_lesson() -> None:
    # Saturation ends at 4.5 s, the model's own queue at 7 s.
    observation = served_by(endpoint(hangs_after_s=5.5), model_every_s=0.04).run()
    assert observation.status is TrialStatus.INFEASIBLE
    assert observation.reason == "no request was answered for 10 s"


def test_a_replica_that_was_killed_for_want_of_memory_is_a_lesson() -> None:
    trial = served_by(endpoint(replaced_after_s=3.0))
    trial.monitor.usage.out_of_memory_kills = 1
    observation = trial.run()
    assert observation.status is TrialStatus.INFEASIBLE
    assert observation.cause is InfeasibleCause.MEMORY
    assert observation.attempts == 1


def test_a_replica_whose_requests_blame_the_memory_is_a_lesson() -> None:
    trial = served_by(endpoint(fail_every=2))
    trial.load.loses_replica = True
    trial.load.error_text = "Task was killed due to the node running low on memory."
    observation = trial.run()
    assert (observation.status, observation.cause) == (
        TrialStatus.INFEASIBLE,
        InfeasibleCause.MEMORY,
    )


def test_kills_elsewhere_on_the_node_do_not_matter_while_the_replica_lives() -> None:
    trial = Trial()
    trial.monitor.usage.out_of_memory_kills = 1
    assert trial.run().status is TrialStatus.MEASURED


def test_what_cannot_beat_the_incumbent_is_measured_for_half_the_time() -> None:
    trial = Trial()
    observation = trial.run(rate_to_beat_rps=101.0)
    measured = observation.measurement
    assert measured is not None
    assert (measured.precise, measured.cut_short) == (False, "cannot beat the incumbent")
    assert measured.saturation_rps == pytest.approx(SATURATION_RPS)
    assert observation.times.measure_s == pytest.approx(1.5 + 0.1)


def test_what_may_beat_the_incumbent_is_measured_in_full() -> None:
    measured = Trial().measure(rate_to_beat_rps=99.0)
    assert (measured.precise, measured.cut_short) == (True, "")


def client_limited(
    *, every_s: tuple[float, ...], lags_ms: tuple[float, ...], can_add: int, cpu: float = 0.95
) -> Trial:
    trial = Trial()
    trial.load.batches_every_s, trial.load.lags_ms = every_s, lags_ms
    trial.load.cpu_shares, trial.load.can_add = (cpu,), can_add
    return trial


def test_busy_drivers_that_lag_get_more_until_they_keep_up() -> None:
    # 4 every 100 ms is 40/s, every 50 ms 80/s; the service itself needs 40 ms: 100/s.
    trial = client_limited(every_s=(0.1, 0.05, 0.02), lags_ms=(30.0, 20.0, 0.5), can_add=5)
    observation = trial.run()
    measured = observation.measurement
    assert measured is not None
    assert trial.load.n_added == 2
    assert measured.saturation_rps == pytest.approx(SATURATION_RPS)
    assert (measured.n_drivers, observation.attempts) == (4, 1)
    assert trial.backend.events == ["deploy", "teardown"]


def test_more_drivers_that_bring_no_more_were_not_the_limit() -> None:
    trial = client_limited(every_s=(0.06, 0.058), lags_ms=(30.0,), can_add=5)
    measured = trial.measure()  # 66.7/s became 69/s: 3.4 % more
    assert trial.load.n_added == 1
    assert measured.saturation_rps == pytest.approx(4 / 0.058)


def test_a_rate_that_still_rises_with_no_more_drivers_to_be_had_fails() -> None:
    trial = client_limited(every_s=(0.1, 0.08), lags_ms=(30.0,), can_add=1)
    observation = trial.run()
    assert observation.status is TrialStatus.FAILED
    assert observation.reason.startswith("client-limited: 2 load drivers were 30 ms late")
    assert observation.attempts == 3
    assert_gone(trial, deployments=3)


def test_starved_drivers_fail_the_trial_though_more_bring_no_more() -> None:
    trial = client_limited(every_s=(0.1,), lags_ms=(30.0,), can_add=5, cpu=0.1)
    observation = trial.run()
    assert observation.status is TrialStatus.FAILED
    assert "10% of a core" in observation.reason
    assert trial.load.n_added == 3  # once in each of three attempts


@pytest.mark.parametrize(
    ("lag_ms", "cpu_share", "latency_ms", "verdict"),
    [
        (0.9, 0.2, 1.0, ClientVerdict.FINE),  # below a millisecond it is any machine's scheduling
        (9.9, 0.99, 100.0, ClientVerdict.FINE),  # below a tenth of the latency
        (10.1, 0.99, 100.0, ClientVerdict.SATURATED),
        (10.1, 0.2, 100.0, ClientVerdict.STARVED),
    ],
)
def test_a_lag_counts_in_proportion_to_the_latency(
    lag_ms: float, cpu_share: float, latency_ms: float, verdict: ClientVerdict
) -> None:
    said = ClientRule().judge(health(lag_ms=lag_ms, cpu_share=cpu_share), latency_ms=latency_ms)
    assert said is verdict


def test_health_over_stretches_is_weighted_by_their_length() -> None:
    mean = mean_health([(3.0, health(lag_ms=1.0)), (1.0, health(lag_ms=5.0, cpu_share=0.6))])
    assert mean.lag_ms == pytest.approx(2.0)  # (3 * 1 + 1 * 5) / 4
    assert mean.cpu_share == pytest.approx(0.3)  # (3 * 0.2 + 1 * 0.6) / 4
    assert mean.in_flight == 3
    with pytest.raises(ValueError, match="no stretch"):
        mean_health([])


RISING = [float(each) for each in range(1, 9)]


@pytest.mark.parametrize(
    ("in_flight", "latency_ms", "overloaded"),
    [
        (RISING, RISING, True),
        (RISING[:7], RISING[:7], False),  # fewer windows than the rule looks at
        ([5.0] * 8, RISING, False),
        (RISING, RISING[::-1], False),
        (RISING, [each / 10 for each in RISING], False),  # the newest is within the limit
    ],
)
def test_overload_is_a_queue_and_a_latency_that_rise_beyond_the_limit(
    *, in_flight: list[float], latency_ms: list[float], overloaded: bool
) -> None:
    rule = OverloadRule()
    said = rule.overloaded(in_flight=in_flight, latency_ms=latency_ms, limit_ms=5.0)
    assert said is overloaded


def test_queues_that_come_and_go_are_no_overload() -> None:
    rng = np.random.default_rng(0)
    rule = OverloadRule()
    alarms = sum(
        rule.overloaded(in_flight=list(rng.random(8)), latency_ms=list(rng.random(8)), limit_ms=0.0)
        for _ in range(500)
    )
    assert alarms <= 1  # two independent trends at 1 %, rising: 0.5 % squared


def test_senseless_rules_are_refused() -> None:
    with pytest.raises(InputError, match="n_windows must be at least 6"):
        OverloadRule(n_windows=5)
    with pytest.raises(InputError, match="significance must lie"):
        OverloadRule(significance=0.0)
    with pytest.raises(InputError, match="max_gain must be positive"):
        ClientRule(max_gain=0.0)
    with pytest.raises(InputError, match="stall_s must be positive"):
        MeasurementPlan(stall_s=0.0)
    with pytest.raises(ValueError, match="one value of each"):
        OverloadRule().overloaded(in_flight=[1.0], latency_ms=[], limit_ms=1.0)
