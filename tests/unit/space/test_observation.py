import json
import math
from dataclasses import replace
from typing import Any

import pytest

from falcon_ray.errors import InfeasibleCause, InputError
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.observation import Measurement, Observation, TrialStatus, TrialTimes

MEASUREMENT = Measurement(
    saturation_rps=120.0,
    saturation_rps_ci_low=117.0,
    saturation_rps_ci_high=123.0,
    service_time_ms=31.5,
    capacity_rps=None,
    latency_p50_ms=10.0,
    latency_p90_ms=20.0,
    latency_p95_ms=25.0,
    latency_p99_ms=30.0,
    latency_p999_ms=40.0,
    n_requests=4000,
    error_rate=0.01,
    path_limited=True,
    enforcement={"cpu": "threads"},
    environment={"torch": "2.13"},
    extra={"ttft_ms": 12.5},
)
MEASURED = Observation(
    configuration=Configuration({"batch_size": 8, "gpu_share": 0.5, "dtype": "bfloat16"}),
    status=TrialStatus.MEASURED,
    measurement=MEASUREMENT,
    times=TrialTimes(deploy_s=3.5, warm_up_s=2.0, measure_s=20.0, teardown_s=0.5),
    attempts=2,
)
INFEASIBLE = Observation(
    configuration=Configuration({"batch_size": 64}),
    status=TrialStatus.INFEASIBLE,
    reason="out of memory at load",
    cause=InfeasibleCause.MEMORY,
)
TOO_SLOW = Observation(
    configuration=Configuration({"batch_size": 1}),
    status=TrialStatus.INFEASIBLE,
    reason="no request was answered in 6 s of warm-up",
    cause=InfeasibleCause.TIMEOUT,
    at_most_rps=0.5,
)
FAILED = Observation(
    configuration=Configuration({"batch_size": 1}),
    status=TrialStatus.FAILED,
    reason="no L4 came in 600 s",
    times=TrialTimes(wait_s=600.0),
    never_began=True,
)


@pytest.mark.parametrize("observation", [MEASURED, INFEASIBLE, TOO_SLOW, FAILED])
def test_an_observation_survives_its_round_trip_through_a_line_of_json(
    observation: Observation,
) -> None:
    line = json.dumps(observation.to_json())
    assert "\n" not in line
    assert Observation.from_json(json.loads(line)) == observation


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": "crashed"}, "'crashed' is not a valid TrialStatus"),
        ({"status": "failed"}, "ended as failed has no measurement"),
        ({"measurement": None}, "needs its measurement"),
        ({"measurement": {"n_requests": 9}}, "missing.*'saturation_rps'"),
        ({"measurement": {"saturation_rps": None}}, "saturation_rps must be a positive"),
        ({"measurement": {**MEASURED.to_json()["measurement"], "tpot": 1.0}}, "unexpected.*tpot"),
        ({"times": {"sleep_s": 1.0}}, "sleep_s"),
        ({"configuration": None}, "not iterable"),
        ({"cause": "bad luck"}, "'bad luck' is not a valid InfeasibleCause"),
        ({"cause": "memory"}, "only an infeasible trial has a cause"),
        ({"at_most_rps": 2.0}, "only a trial that ran out of time bounds its rate"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"this is no record of a trial: .*{message}"):
        Observation.from_json({**MEASURED.to_json(), **change})


@pytest.mark.parametrize("key", ["configuration", "status", "measurement", "times", "attempts"])
def test_a_record_without_a_key_is_refused(key: str) -> None:
    record = MEASURED.to_json()
    del record[key]
    with pytest.raises(InputError, match=f"this is no record of a trial: '{key}'"):
        Observation.from_json(record)


def test_a_record_from_before_causes_were_told_is_read_without_one() -> None:
    record = TOO_SLOW.to_json()
    del record["cause"], record["at_most_rps"]
    read = Observation.from_json(record)
    assert (read.cause, read.at_most_rps) == (InfeasibleCause.OTHER, None)


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf])
def test_a_bound_of_a_rate_is_positive_and_finite(rate: float) -> None:
    with pytest.raises(InputError, match=f"at_most_rps must be positive and finite, got {rate}"):
        replace(TOO_SLOW, at_most_rps=rate)


def test_a_trial_without_a_measurement_must_say_why() -> None:
    with pytest.raises(InputError, match="ended as failed must say why"):
        replace(INFEASIBLE, status=TrialStatus.FAILED, reason="")


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["saturation_rps", "latency_p50_ms", "latency_p99_ms"])
def test_rates_and_latencies_are_positive_and_finite(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{name} must be a positive finite number, got {value}"):
        replace(MEASUREMENT, **{name: value})


@pytest.mark.parametrize("error_rate", [-0.1, 1.1, math.nan])
def test_an_error_rate_is_a_share(error_rate: float) -> None:
    with pytest.raises(InputError, match=r"error_rate must lie in \[0, 1\]"):
        replace(MEASUREMENT, error_rate=error_rate)


def test_latencies_may_be_unknown() -> None:
    assert Measurement(saturation_rps=5.0).metric("latency_p99_ms") is None


def test_metrics_are_read_by_name_declared_ones_too() -> None:
    assert MEASUREMENT.metric("saturation_rps") == 120.0
    assert MEASUREMENT.metric("n_requests") == 4000.0
    assert MEASUREMENT.metric("ttft_ms") == 12.5


def test_a_metric_that_was_not_measured_is_none_and_an_unknown_one_an_error() -> None:
    assert MEASUREMENT.metric("capacity_rps") is None
    with pytest.raises(InputError, match="unknown metric 'throughput'; known are saturation_rps"):
        MEASUREMENT.metric("throughput")
    with pytest.raises(InputError, match="unknown metric 'enforcement'"):
        MEASUREMENT.metric("enforcement")


def test_only_a_failed_trial_never_began() -> None:
    with pytest.raises(InputError, match=r"only a failed trial never began, not one .* infeasible"):
        replace(FAILED, status=TrialStatus.INFEASIBLE)


def test_that_a_trial_never_began_is_written_and_was_not_said_before() -> None:
    record = FAILED.to_json()
    assert Observation.from_json(record).never_began
    del record["never_began"]
    assert not Observation.from_json(record).never_began


def test_the_seconds_of_two_attempts_add_up() -> None:
    first = TrialTimes(wait_s=1.0, provision_s=2.0, deploy_s=3.0, teardown_s=4.0)
    both = first + TrialTimes(wait_s=10.0, deploy_s=30.0, warm_up_s=50.0, measure_s=60.0)
    assert both == TrialTimes(
        wait_s=11.0, provision_s=2.0, deploy_s=33.0, warm_up_s=50.0, measure_s=60.0, teardown_s=4.0
    )
    assert both.held_s == 33.0 + 50.0 + 60.0 + 4.0
