"""Small searches with round numbers, for the tests in this folder."""

import datetime as dt
from collections import Counter
from collections.abc import Iterable

from falcon_ray.report.record import (
    Confirmation,
    InterruptedTrial,
    Role,
    SearchHeader,
    SearchRecord,
    TrialRecord,
)
from falcon_ray.space.catalogue import Instance, InstanceStatus
from falcon_ray.space.configuration import Configuration, ConfigurationSpace
from falcon_ray.space.cost import Pricing
from falcon_ray.space.objective import Objective, Slo
from falcon_ray.space.observation import Measurement, Observation, TrialStatus, TrialTimes

STARTED = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)


def cpu_instance(name: str, usd_per_hour: float, vcpus: int = 4) -> Instance:
    return Instance(
        instance_type=name,
        gpu_type=None,
        n_gpus=0,
        gpu_memory_mib=0,
        vcpus=vcpus,
        ram_gib=16.0,
        usd_per_hour=usd_per_hour,
        region="us-east-1",
        status=InstanceStatus.ACTIVE,
        price_date=dt.date(2026, 1, 1),
        price_source="list price",
    )


def gpu_instance(name: str, gpu_type: str, usd_per_hour: float) -> Instance:
    return Instance(
        instance_type=name,
        gpu_type=gpu_type,
        n_gpus=1,
        gpu_memory_mib=16384,
        vcpus=4,
        ram_gib=16.0,
        usd_per_hour=usd_per_hour,
        region="us-east-1",
        status=InstanceStatus.ACTIVE,
        price_date=None,
        price_source="given",
    )


def batch(size: int) -> Configuration:
    return Configuration({"batch_size": size, "dtype": "float32"})


# Four replicas of one core fit, so one costs 0.2 / 4 = 0.05 USD/h.
PRICING = Pricing((cpu_instance("c4", usd_per_hour=0.2),))
USD_PER_HOUR = 0.05

HEADER = SearchHeader(
    search_id="s1",
    target="zoo:tiny",
    settings={"max_trials": 3, "load_path": "handle"},
    space=ConfigurationSpace.of(
        {"batch_size": [1, 8, 16], "dtype": ["float32"]}, ["batch_size <= 16"]
    ),
    objective=Objective(),
    pricing=PRICING,
    seed=7,
    baseline=batch(1),
    versions={"ray": "2.60.0"},
)

SLO = Objective(Slo(latency_budget_ms=50.0))


def measurement(
    rate_rps: float,
    *,
    spread: float | None = 1.02,
    capacity_rps: float | None = None,
    floor_latency_ms: float | None = None,
    model_rps: float | None = None,
    path_limited: bool = False,
) -> Measurement:
    return Measurement(
        saturation_rps=rate_rps,
        saturation_rps_ci_low=None if spread is None else rate_rps / spread,
        saturation_rps_ci_high=None if spread is None else rate_rps * spread,
        capacity_rps=capacity_rps,
        floor_latency_ms=floor_latency_ms,
        model_rps=model_rps,
        path_limited=path_limited,
        latency_p50_ms=10.0,
        latency_p90_ms=15.0,
        latency_p95_ms=17.0,
        latency_p99_ms=21.5,
        latency_p999_ms=30.0,
        n_requests=1000,
        extra={"tokens_per_s": 3.5},
    )


def measured(configuration: Configuration, measurement: Measurement) -> Observation:
    return Observation(
        configuration=configuration,
        status=TrialStatus.MEASURED,
        measurement=measurement,
        times=TrialTimes(deploy_s=3.0, warm_up_s=2.0, measure_s=8.0, teardown_s=0.5),
    )


def not_measured(configuration: Configuration, status: TrialStatus, reason: str) -> Observation:
    return Observation(configuration=configuration, status=status, reason=reason)


def infeasible(configuration: Configuration, reason: str = "out of memory") -> Observation:
    return not_measured(configuration, TrialStatus.INFEASIBLE, reason)


def failed(configuration: Configuration, reason: str = "node lost") -> Observation:
    return not_measured(configuration, TrialStatus.FAILED, reason)


def search(
    trials: Iterable[Observation],
    confirmations: Iterable[tuple[Role, Observation]] = (),
    *,
    header: SearchHeader = HEADER,
    interrupted: tuple[InterruptedTrial, ...] = (),
    end_reason: str | None = "3 trials were allowed",
    n_trials_before: int | None = None,
) -> SearchRecord:
    """A record; each configuration's nth confirmation is that of the nth round."""
    records = tuple(
        TrialRecord(number=i, why=f"reason {i}", expected={}, observation=each, wall_s=14.0 + i)
        for i, each in enumerate(trials, start=1)
    )
    before = len(records) if n_trials_before is None else n_trials_before
    rounds: Counter[Configuration] = Counter()
    fresh: list[Confirmation] = []
    for role, each in confirmations:
        rounds[each.configuration] += 1
        fresh.append(
            Confirmation(
                role=role,
                observation=each,
                wall_s=14.0,
                n_trials_before=before,
                round_number=rounds[each.configuration],
            )
        )
    return SearchRecord(
        header=header,
        started=STARTED,
        trials=records,
        interrupted=interrupted,
        confirmations=tuple(fresh),
        end_reason=end_reason,
    )
