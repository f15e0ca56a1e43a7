"""What one trial said: a measurement, a verdict, or why there is neither.

An `Observation` is the only thing an optimizer learns from, and one line of the journal.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from typing import Any

from falcon_ray.errors import InfeasibleCause, InputError
from falcon_ray.space.configuration import Configuration


class TrialStatus(Enum):
    """How a trial ended."""

    MEASURED = "measured"
    """A measurement was taken; whether it meets the SLO is for the objective to say."""
    INFEASIBLE = "infeasible"
    """A fact about the configuration (out of memory, crash, time-out): it teaches."""
    FAILED = "failed"
    """A fact about the infrastructure (node lost, interrupted): it teaches nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one trial deployment did under steady load, warm-up excluded.

    Attributes:
        saturation_rps: Requests per second in closed loop with every replica's queue full.
        saturation_rps_ci_low: Lower end of its 95 % confidence interval, None where unknown.
        saturation_rps_ci_high: Upper end, likewise.
        service_time_ms: Median time of a full batch inside a replica, or None when the target
            does not report it or no batch was full.
        model_rps: What the model delivers behind its batching queue without Serve's path,
            all replicas together; None when the target does not report it.
        model_rps_ci_low: Lower end of its 95 % confidence interval, None where unknown.
        model_rps_ci_high: Upper end, likewise.
        single_stream_rps: Requests per second with one in flight; None where not measured.
        single_stream_rps_ci_low: Lower end of its 95 % confidence interval, None where unknown.
        single_stream_rps_ci_high: Upper end, likewise.
        single_latency_ms: Median latency of a lone request; None where not measured.
        slo_verdict: `met` where a rate was certified, `violated` where the lightest load was shown
            to break the limit, `undecided` where neither was shown; None without an SLO.
        n_load_points: Rates that were offered under the SLO.
        capacity_rps: Highest offered rate certified under the SLO; None without an SLO or
            where no rate was certified.
        floor_latency_ms: The SLO's percentile at the lightest load that was offered; None
            without an SLO.
        latency_p50_ms: Median latency at the operating point: at `capacity_rps` with an SLO
            (at the lightest load where none was certified), else at saturation.
        latency_p90_ms: Likewise.
        latency_p95_ms: Likewise.
        latency_p99_ms: Likewise.
        latency_p999_ms: Likewise.
        n_requests: Requests behind the percentiles.
        error_rate: Share of requests that failed at saturation, after warm-up.
        memory_gib: Largest resident memory of one replica.
        gpu_memory_gib: Largest GPU memory of one replica; None without a GPU that can be watched.
        gpu_utilization_pct: Mean share of time in which a kernel ran, over the watched GPUs;
            likewise.
        gpu_power_w: Mean power of the watched GPUs together; likewise.
        output_error: Largest relative difference of the output from float32 on the example
            input; 0 for float32, None where the target does not report it.
        load_path: Where the load entered: `handle`, `http` or `replica`.
        warm: Whether throughput was level when the measurement began; else its time was up.
        precise: Whether the interval is as narrow as was asked; else its time was up.
        path_limited: Whether Serve's path rather than the model set `saturation_rps`.
        n_drivers: Processes that sent the load.
        driver_lag_ms: Mean time by which they were late to act, at saturation.
        driver_cpu_share: Of one core, used by the busiest of them at saturation.
        cut_short: Why less was measured than was asked, e.g. because the incumbent was out of
            reach; empty where all was measured.
        enforcement: How each limit was enforced, e.g. {"cpu": "threads"}.
        environment: Device, versions and the like, for people.
        extra: Metrics that the target declares beside these: means over the answers to the load
            that saturates, its warm-up included.
    """

    saturation_rps: float
    saturation_rps_ci_low: float | None = None
    saturation_rps_ci_high: float | None = None
    service_time_ms: float | None = None
    model_rps: float | None = None
    model_rps_ci_low: float | None = None
    model_rps_ci_high: float | None = None
    single_stream_rps: float | None = None
    single_stream_rps_ci_low: float | None = None
    single_stream_rps_ci_high: float | None = None
    single_latency_ms: float | None = None
    slo_verdict: str | None = None
    n_load_points: int = 0
    capacity_rps: float | None = None
    floor_latency_ms: float | None = None
    latency_p50_ms: float | None = None
    latency_p90_ms: float | None = None
    latency_p95_ms: float | None = None
    latency_p99_ms: float | None = None
    latency_p999_ms: float | None = None
    n_requests: int = 0
    error_rate: float = 0.0
    memory_gib: float | None = None
    gpu_memory_gib: float | None = None
    gpu_utilization_pct: float | None = None
    gpu_power_w: float | None = None
    output_error: float | None = None
    load_path: str = "handle"
    warm: bool = True
    precise: bool = True
    path_limited: bool = False
    n_drivers: int = 1
    driver_lag_ms: float | None = None
    driver_cpu_share: float | None = None
    cut_short: str = ""
    enforcement: Mapping[str, str] = field(default_factory=dict[str, str])
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    extra: Mapping[str, float] = field(default_factory=dict[str, float])

    def __post_init__(self) -> None:
        for name in ("saturation_rps", "latency_p50_ms", "latency_p99_ms"):
            value = getattr(self, name)
            if value is None and name != "saturation_rps":
                continue
            if value is None or not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} must be a positive finite number, got {value!r}")
        if not 0 <= self.error_rate <= 1:
            raise InputError(f"error_rate must lie in [0, 1], got {self.error_rate!r}")

    def metric(self, name: str) -> float | None:
        """A metric by name, declared ones included; None where it was not measured.

        Raises:
            InputError: No measurement can have a metric of that name.
        """
        if name in self.extra:
            return self.extra[name]
        if name not in _METRIC_NAMES:
            raise InputError(f"unknown metric {name!r}; known are {', '.join(_METRIC_NAMES)}")
        value = getattr(self, name)
        return None if value is None else float(value)


_METRIC_NAMES = tuple(
    each.name
    for each in fields(Measurement)
    if each.name
    not in {
        *("load_path", "warm", "precise", "path_limited", "slo_verdict", "cut_short"),
        *("enforcement", "environment", "extra"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialTimes:
    """Where a trial's seconds went, those of all its attempts together.

    Attributes:
        deploy_s: Until the deployment served, from when it had its resources.
        warm_up_s: Until it was warm.
        measure_s: Until the measurement ended.
        teardown_s: Until it was removed.
        wait_s: For the resources, before all of these; those that are added for it included.
        provision_s: The part of that in which nodes were added.
    """

    deploy_s: float = 0.0
    warm_up_s: float = 0.0
    measure_s: float = 0.0
    teardown_s: float = 0.0
    wait_s: float = 0.0
    provision_s: float = 0.0

    @property
    def held_s(self) -> float:
        """How long it had its resources."""
        return self.deploy_s + self.warm_up_s + self.measure_s + self.teardown_s

    def __add__(self, other: "TrialTimes") -> "TrialTimes":
        """Those of two attempts together."""
        return TrialTimes(
            **{each.name: getattr(self, each.name) + getattr(other, each.name) for each in _TIMES}
        )


_TIMES = fields(TrialTimes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """How one trial of one configuration ended.

    Attributes:
        configuration: What was deployed.
        status: How it ended.
        measurement: Present exactly when `status` is MEASURED.
        reason: One line that says why there is no measurement; empty when there is one.
        times: Where the trial's seconds went.
        attempts: How often it was tried, retries after infrastructure failures included.
        cause: What kind of fact made an INFEASIBLE configuration so; OTHER for all the rest.
        at_most_rps: What the rate of a configuration cannot have exceeded that was too slow to
            measure; None where that is not known.
        never_began: Whether it FAILED because its nodes did not come: no attempt had resources.

    Raises:
        InputError: The parts contradict each other.
    """

    configuration: Configuration
    status: TrialStatus
    measurement: Measurement | None = None
    reason: str = ""
    times: TrialTimes = TrialTimes()
    attempts: int = 1
    cause: InfeasibleCause = InfeasibleCause.OTHER
    at_most_rps: float | None = None
    never_began: bool = False

    def __post_init__(self) -> None:
        measured = self.status is TrialStatus.MEASURED
        if measured and self.measurement is None:
            raise InputError("a trial that ended as measured needs its measurement")
        if not measured and self.measurement is not None:
            raise InputError(f"a trial that ended as {self.status.value} has no measurement")
        if not measured and not self.reason:
            raise InputError(f"a trial that ended as {self.status.value} must say why")
        if self.cause is not InfeasibleCause.OTHER and self.status is not TrialStatus.INFEASIBLE:
            raise InputError(
                f"only an infeasible trial has a cause, not one that ended as {self.status.value}"
            )
        if self.never_began and self.status is not TrialStatus.FAILED:
            raise InputError(
                f"only a failed trial never began, not one that ended as {self.status.value}"
            )
        if self.at_most_rps is None:
            return
        if self.cause is not InfeasibleCause.TIMEOUT:
            raise InputError("only a trial that ran out of time bounds its rate")
        if not (math.isfinite(self.at_most_rps) and self.at_most_rps > 0):
            raise InputError(f"at_most_rps must be positive and finite, got {self.at_most_rps!r}")

    def to_json(self) -> dict[str, Any]:
        """The observation as plain JSON values."""
        return {
            "configuration": dict(self.configuration),
            "status": self.status.value,
            "measurement": None if self.measurement is None else asdict(self.measurement),
            "reason": self.reason,
            "times": asdict(self.times),
            "attempts": self.attempts,
            "cause": self.cause.value,
            "at_most_rps": self.at_most_rps,
            "never_began": self.never_began,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Observation":
        """Read what `to_json` wrote, also before trials said their cause or that they never began.

        Raises:
            InputError: A key is missing or unknown, or a value does not fit.
        """
        try:
            measured = record["measurement"]
            return cls(
                configuration=Configuration(record["configuration"]),
                status=TrialStatus(record["status"]),
                measurement=None if measured is None else Measurement(**measured),
                reason=record["reason"],
                times=TrialTimes(**record["times"]),
                attempts=record["attempts"],
                cause=InfeasibleCause(record.get("cause", InfeasibleCause.OTHER.value)),
                at_most_rps=record.get("at_most_rps"),
                never_began=bool(record.get("never_began")),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"this is no record of a trial: {error}") from error
