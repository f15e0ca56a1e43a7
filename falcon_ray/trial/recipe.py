"""One trial: deploy, warm up, load, judge, tear down, and say in one observation how it went.

The recipe knows the order of things and what each way of ending means. It does not know Ray,
HTTP or NVML (`protocols`), how the phases load (`saturation`, `lone_requests`, `load_points`), nor
when enough has been measured (`steady_state`, `slo_rule`, `capacity`).
"""

import logging
import math
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Generic

from falcon_ray.errors import (
    InfeasibleError,
    NodesUnavailableError,
    ReplicaLostError,
    TrialFailedError,
)
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.objective import Slo
from falcon_ray.space.observation import Measurement, Observation, TrialStatus, TrialTimes
from falcon_ray.space.workload import LoadPath, Scenario
from falcon_ray.trial.load_guard import LoadGuard, tell_nobody
from falcon_ray.trial.load_points import LoadPoints
from falcon_ray.trial.lone_requests import LoneRequests, fastest_is_over
from falcon_ray.trial.phase_stopwatch import PhaseStopwatch
from falcon_ray.trial.plan import MeasurementPlan
from falcon_ray.trial.protocols import (
    DeviceMonitor,
    DeviceUsage,
    EndpointT,
    LoadGenerator,
    ServingBackend,
)
from falcon_ray.trial.requests import RequestLog
from falcon_ray.trial.saturation import Saturation, Saturator, model_rate
from falcon_ray.trial.statistics import Estimate, SloVerdict, percentiles_ms

__all__ = ["MeasurementPlan", "TrialRecipe"]

logger = logging.getLogger(__name__)

DEATHS_OF_A_CRASH = 3
"""One replica that dies is an accident; one in each of so many deployments is a crash."""
PATH_LIMITED_BELOW = 0.8
"""Serve's path decides when it delivers less than this share of what the model could."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """What the load after saturation said, and at which operating point the latencies were taken.

    Attributes as in `Measurement`.
    """

    log: RequestLog
    single_stream: Estimate | None = None
    single_latency_ms: float | None = None
    slo_verdict: SloVerdict | None = None
    n_load_points: int = 0
    capacity_rps: float | None = None
    floor_latency_ms: float | None = None
    precise: bool = True
    cut_short: str = ""


class TrialRecipe(Generic[EndpointT]):
    """Runs trials on a backend, one after the other.

    Args:
        backend: Deploys.
        load: Sends requests.
        model_load: Sends them inside the replicas, past Serve's path; None where the target
            cannot be loaded there, or `load` does so already.
        monitor: Watches memory and GPUs.
        plan: How long and how exactly.
        clock: Monotonic seconds.
        on_phase: Told what is going on, for progress displays.
        on_requests: Told all requests of a phase when it ends: `warm_up`, `saturation`,
            `single_stream` or `offered`, the offered rate in the last, and the requests.
        retry_within_s: A trial whose attempts held their resources for so long together is not
            tried again, whatever failed; waiting for resources does not count. It ends no attempt.
    """

    def __init__(
        self,
        *,
        backend: ServingBackend[EndpointT],
        load: LoadGenerator[EndpointT],
        model_load: LoadGenerator[EndpointT] | None,
        monitor: DeviceMonitor[EndpointT],
        plan: MeasurementPlan,
        clock: Callable[[], float],
        on_phase: Callable[[str], None] = lambda _: None,
        on_requests: Callable[[str, float | None, RequestLog], None] = tell_nobody,
        retry_within_s: float = math.inf,
    ) -> None:
        self._backend = backend
        self._load = load
        self._model_load = model_load
        self._monitor = monitor
        self._plan = plan
        self._clock = clock
        self._on_phase = on_phase
        self._on_requests = on_requests
        self._retry_within_s = retry_within_s

    def run(
        self, configuration: Configuration, *, rate_to_beat_rps: float | None = None
    ) -> Observation:
        """One observation; tried again, within bounds, when the infrastructure fails.

        Args:
            configuration: What to deploy.
            rate_to_beat_rps: What is shown to serve less, in the scenario's own rate, is not
                measured further.
        """
        attempt = deaths = 0
        times, began = TrialTimes(), False
        while True:
            attempt += 1
            marks = PhaseStopwatch(self._clock)
            ended, failure = self._attempt(configuration, marks, rate_to_beat_rps)
            times, began = times + ended.times, began or marks.has_resources
            observation = replace(
                ended,
                times=times,
                attempts=attempt,
                never_began=isinstance(failure, NodesUnavailableError) and not began,
            )
            if failure is None:
                return observation
            deaths = deaths + 1 if isinstance(failure, ReplicaLostError) else 0
            if deaths == DEATHS_OF_A_CRASH:
                return replace(
                    observation,
                    status=TrialStatus.INFEASIBLE,
                    reason=f"its process died in each of {deaths} attempts; {observation.reason}",
                )
            if attempt >= self._plan.max_attempts or isinstance(failure, NodesUnavailableError):
                return observation
            if times.held_s >= self._retry_within_s:
                return observation
            logger.warning("%s: %s; trying again", configuration, observation.reason)

    def _attempt(
        self, configuration: Configuration, marks: PhaseStopwatch, rate_to_beat_rps: float | None
    ) -> tuple[Observation, TrialFailedError | None]:
        """How one attempt ended, and what the infrastructure did to it, if it did."""
        try:
            with self._backend.reserve(configuration) as reservation:
                marks.reserved(provision_s=reservation.provision_s)
                self._on_phase("deploying")
                with self._backend.deploy(configuration, reservation) as endpoint:
                    marks.deployed()
                    try:
                        measurement = self._measure(endpoint, marks, rate_to_beat_rps)
                    finally:
                        marks.measured()
                    self._on_phase("removing")
        except InfeasibleError as error:
            return Observation(
                configuration=configuration,
                status=TrialStatus.INFEASIBLE,
                reason=str(error),
                times=marks.times(),
                cause=error.cause,
                at_most_rps=error.at_most_rps,
            ), None
        except TrialFailedError as error:
            return Observation(
                configuration=configuration,
                status=TrialStatus.FAILED,
                reason=str(error),
                times=marks.times(),
            ), error
        return Observation(
            configuration=configuration,
            status=TrialStatus.MEASURED,
            measurement=measurement,
            times=marks.times(),
        ), None

    def _measure(
        self, endpoint: EndpointT, marks: PhaseStopwatch, rate_to_beat_rps: float | None
    ) -> Measurement:
        with self._monitor.watch(endpoint) as usage:
            guard = self._guard(endpoint, self._load, usage)
            # Before the first load, what the drivers know is of an earlier deployment.
            with _explained(guard.check_replicas):
                self._check_output(endpoint)
            with _explained(guard.check_alive):
                return self._measure_watched(endpoint, guard, usage, marks, rate_to_beat_rps)

    def _measure_watched(
        self,
        endpoint: EndpointT,
        guard: LoadGuard[EndpointT],
        usage: DeviceUsage,
        marks: PhaseStopwatch,
        rate_to_beat_rps: float | None,
    ) -> Measurement:
        saturation = Saturator(
            endpoint,
            self._load,
            guard,
            plan=self._plan,
            rate_to_beat_rps=rate_to_beat_rps,
            on_phase=self._on_phase,
            on_warm=marks.warm,
        ).saturate()
        extra = self._load.response_metrics()  # of these requests, before others are sent
        model = self._model_rate(endpoint, saturation, usage)
        judged = self._judge(endpoint, guard, saturation, rate_to_beat_rps)
        if judged.slo_verdict is not SloVerdict.VIOLATED:
            LoneRequests(endpoint, self._load, guard, plan=self._plan).wait_for_one()
        guard.check_alive()
        return self._measurement(saturation, model, judged, usage, extra)

    def _check_output(self, endpoint: EndpointT) -> None:
        limit, error = self._plan.max_output_error, endpoint.facts().output_error
        if limit is not None and error is not None and not error <= limit:
            raise InfeasibleError(
                f"output differs from float32 by {error:.2g}, more than "
                f"--max-output-error {limit:g}"
            )

    def _guard(
        self, endpoint: EndpointT, load: LoadGenerator[EndpointT], usage: DeviceUsage
    ) -> LoadGuard[EndpointT]:
        return LoadGuard(
            endpoint,
            load,
            usage,
            stall_s=self._plan.stall_s,
            max_error_rate=self._plan.max_error_rate,
            clock=self._clock,
            on_requests=self._on_requests,
        )

    def _model_rate(
        self, endpoint: EndpointT, saturation: Saturation, usage: DeviceUsage
    ) -> Estimate | None:
        """What the model could deliver in the same replicas."""
        if self._plan.workload.path is LoadPath.REPLICA:
            return saturation.rate
        if self._model_load is None or self._plan.model_s == 0:
            return None
        self._on_phase("measuring the model alone")
        guard = self._guard(endpoint, self._model_load, usage)
        with _explained(guard.check_alive):
            return model_rate(endpoint, self._model_load, guard, plan=self._plan)

    def _judge(
        self,
        endpoint: EndpointT,
        guard: LoadGuard[EndpointT],
        saturation: Saturation,
        rate_to_beat_rps: float | None,
    ) -> _Judged:
        """The load of the scenario, once the saturation is known."""
        plan = self._plan
        lone = LoneRequests(endpoint, self._load, guard, plan=plan)
        if plan.workload.scenario is Scenario.SINGLE_STREAM:
            return self._single_stream(lone, rate_to_beat_rps)
        if plan.slo is None:
            return _Judged(log=saturation.level_log)
        self._on_phase("sending single requests")
        alone = lone.probe()
        alone_ms = percentiles_ms(alone.latency_ms[alone.ok], (50.0,))[0]
        if fastest_is_over(alone.latency_ms[alone.ok], plan.slo):
            return _Judged(
                log=alone,
                single_latency_ms=alone_ms,
                slo_verdict=SloVerdict.VIOLATED,
                floor_latency_ms=_floor_ms(alone, plan.slo),
                cut_short=(
                    f"one request alone takes {alone_ms:.3g} ms, more than the limit of "
                    f"{plan.slo.latency_budget_ms:g} ms"
                ),
            )
        points = LoadPoints(
            endpoint,
            self._load,
            guard,
            plan=plan,
            slo=plan.slo,
            saturation=saturation.rate,
            on_phase=self._on_phase,
        )
        offered_rps = plan.workload.offered_rps
        found = points.highest(rate_to_beat_rps) if offered_rps is None else points.at(offered_rps)
        return _Judged(
            log=found.log,
            single_latency_ms=alone_ms,
            slo_verdict=found.verdict,
            n_load_points=found.n_points,
            capacity_rps=found.capacity_rps,
            floor_latency_ms=found.floor_latency_ms,
            cut_short=found.cut_short,
        )

    def _single_stream(
        self, lone: LoneRequests[EndpointT], rate_to_beat_rps: float | None
    ) -> _Judged:
        self._on_phase("sending single requests")
        found, slo = lone.stream(rate_to_beat_rps), self._plan.slo
        return _Judged(
            log=found.log,
            single_stream=found.rate,
            single_latency_ms=percentiles_ms(found.log.latency_ms[found.log.ok], (50.0,))[0],
            slo_verdict=found.verdict,
            floor_latency_ms=None if slo is None else _floor_ms(found.log, slo),
            precise=found.precise,
            cut_short=found.cut_short,
        )

    def _measurement(
        self,
        saturation: Saturation,
        model: Estimate | None,
        judged: _Judged,
        usage: DeviceUsage,
        extra: Mapping[str, float],
    ) -> Measurement:
        rate, health, facts = saturation.rate, saturation.health, saturation.facts
        stream = judged.single_stream
        answered_ms = judged.log.latency_ms[judged.log.ok]
        levels = percentiles_ms(answered_ms) if answered_ms.size else (None,) * 5
        return Measurement(
            saturation_rps=rate.mean,
            saturation_rps_ci_low=rate.ci_low,
            saturation_rps_ci_high=rate.ci_high,
            service_time_ms=facts.service_time_ms,
            model_rps=None if model is None else model.mean,
            model_rps_ci_low=None if model is None else model.ci_low,
            model_rps_ci_high=None if model is None else model.ci_high,
            single_stream_rps=None if stream is None else stream.mean,
            single_stream_rps_ci_low=None if stream is None else stream.ci_low,
            single_stream_rps_ci_high=None if stream is None else stream.ci_high,
            single_latency_ms=judged.single_latency_ms,
            slo_verdict=None if judged.slo_verdict is None else judged.slo_verdict.value,
            n_load_points=judged.n_load_points,
            capacity_rps=judged.capacity_rps,
            floor_latency_ms=judged.floor_latency_ms,
            latency_p50_ms=levels[0],
            latency_p90_ms=levels[1],
            latency_p95_ms=levels[2],
            latency_p99_ms=levels[3],
            latency_p999_ms=levels[4],
            n_requests=judged.log.n,
            error_rate=saturation.log.error_rate,
            memory_gib=usage.memory_gib,
            gpu_memory_gib=usage.gpu_memory_gib,
            gpu_utilization_pct=usage.gpu_utilization_pct,
            gpu_power_w=usage.gpu_power_w,
            output_error=facts.output_error,
            load_path=self._plan.workload.path.value,
            warm=saturation.warm,
            precise=saturation.precise and judged.precise,
            path_limited=model is not None and rate.mean < PATH_LIMITED_BELOW * model.mean,
            n_drivers=health.n_drivers,
            driver_lag_ms=health.lag_ms,
            driver_cpu_share=health.cpu_share,
            cut_short=judged.cut_short or saturation.cut_short,
            enforcement=facts.enforcement,
            environment=facts.environment,
            extra=extra,
        )


@contextmanager
def _explained(check: Callable[[], None]) -> Generator[None]:
    """A failure inside the block, as what it is if the deployment was lost.

    The load may fail first where a replica dies; what that means is for a guard to say.

    Args:
        check: Of a guard; raises where a replica was lost.
    """
    try:
        yield
    except ReplicaLostError:
        raise
    except TrialFailedError:
        check()
        raise


def _floor_ms(log: RequestLog, slo: Slo) -> float:
    """The limit's percentile of the requests that were answered."""
    return percentiles_ms(log.latency_ms[log.ok], (slo.latency_percentile,))[0]
