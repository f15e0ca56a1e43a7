"""One trial: deploy, warm up, load, judge, tear down, and say in one observation how it went.

The recipe knows the order of things and what each way of ending means. It does not know Ray,
HTTP or NVML (`protocols`), nor when enough has been measured (`steady_state`, `capacity`).
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Generic

import numpy as np

from falcon_ray.errors import InfeasibleCause, InfeasibleError, TrialFailedError
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.objective import Slo
from falcon_ray.space.observation import Measurement, Observation, TrialStatus, TrialTimes
from falcon_ray.trial.arrivals import poisson
from falcon_ray.trial.capacity import CapacitySearch
from falcon_ray.trial.causes import cause_of
from falcon_ray.trial.protocols import (
    DeviceMonitor,
    EndpointT,
    LoadGenerator,
    LoadSession,
    ServingBackend,
)
from falcon_ray.trial.requests import RequestLog
from falcon_ray.trial.statistics import (
    Estimate,
    percentiles_ms,
    requests_to_certify,
    share_exceeds,
    slo_verdict,
    throughput,
)
from falcon_ray.trial.steady_state import (
    PrecisionRule,
    PrecisionVerdict,
    WarmUpRule,
    WarmUpVerdict,
)

logger = logging.getLogger(__name__)

PATH_LIMITED_BELOW = 0.8
"""Serve's path decides when it delivers less than this share of what the model could."""

LOAD_POINT_FACTOR = 4
"""Requests at one offered rate, in multiples of the fewest that can certify the SLO."""

CAPACITY_STEP = 0.05
"""How near the lowest rate not certified comes to the highest that was, as a share of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementPlan:
    """How long and how exactly to measure; one plan serves a whole search.

    Attributes:
        warm_up: When the deployment counts as warm.
        precision: When its throughput is known well enough.
        poll_s: How often the rules are asked.
        model_s: Seconds of load on the model's own queue.
        slo: Latency limit to certify a rate under, or None for saturation throughput only.
        max_load_points: Offered rates to try under the SLO.
        load_point_max_s: Longest time at one offered rate.
        max_error_rate: A configuration that is shown to fail more of its requests is infeasible.
        max_output_error: One whose outputs differ more from float32 is refused; None accepts all.
        max_attempts: How often a trial is tried when the infrastructure fails under it.
        seed: Of the arrival times.
    """

    warm_up: WarmUpRule = field(default_factory=WarmUpRule)
    precision: PrecisionRule = field(default_factory=PrecisionRule)
    poll_s: float = 0.5
    model_s: float = 2.0
    slo: Slo | None = None
    max_load_points: int = 8
    load_point_max_s: float = 30.0
    max_error_rate: float = 0.01
    max_output_error: float | None = None
    max_attempts: int = 3
    seed: int = 0

    def load_point_s(self, rate_rps: float) -> float:
        """Seconds at one offered rate; 0 without an SLO.

        Certifying takes `requests_to_certify` requests when none is over the limit, and many
        more near the capacity, where some are: four times as many are offered.
        """
        if self.slo is None:
            return 0.0
        needed = LOAD_POINT_FACTOR * requests_to_certify(self.slo.latency_percentile)
        return min(self.load_point_max_s, max(2.0, needed / rate_rps))


@dataclass(frozen=True, slots=True)
class _SloResult:
    """What the load points under the SLO said."""

    capacity_rps: float | None
    floor_latency_ms: float | None
    operating_point: RequestLog


class TrialRecipe(Generic[EndpointT]):
    """Runs trials on a backend, one after the other.

    Args:
        backend: Deploys.
        load: Sends requests.
        monitor: Watches memory.
        plan: How long and how exactly.
        clock: Monotonic seconds.
        on_phase: Told what is going on, for progress displays.
    """

    def __init__(
        self,
        *,
        backend: ServingBackend[EndpointT],
        load: LoadGenerator[EndpointT],
        monitor: DeviceMonitor[EndpointT],
        plan: MeasurementPlan,
        clock: Callable[[], float],
        on_phase: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._backend = backend
        self._load = load
        self._monitor = monitor
        self._plan = plan
        self._clock = clock
        self._on_phase = on_phase

    def run(self, configuration: Configuration) -> Observation:
        """One observation; tried again, within bounds, when the infrastructure fails."""
        attempt = 1
        while True:
            observation = replace(self._attempt(configuration), attempts=attempt)
            if observation.status is not TrialStatus.FAILED or attempt >= self._plan.max_attempts:
                return observation
            logger.warning("%s: %s; trying again", configuration, observation.reason)
            attempt += 1

    def _attempt(self, configuration: Configuration) -> Observation:
        marks = _Marks(self._clock)
        self._on_phase("deploying")
        try:
            with self._backend.deploy(configuration) as endpoint:
                marks.deployed()
                try:
                    measurement = self._measure(endpoint, marks)
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
            )
        except TrialFailedError as error:
            return Observation(
                configuration=configuration,
                status=TrialStatus.FAILED,
                reason=str(error),
                times=marks.times(),
            )
        return Observation(
            configuration=configuration,
            status=TrialStatus.MEASURED,
            measurement=measurement,
            times=marks.times(),
        )

    def _measure(self, endpoint: EndpointT, marks: "_Marks") -> Measurement:
        plan = self._plan
        before = endpoint.replicas()
        facts = endpoint.facts()
        if (
            plan.max_output_error is not None
            and facts.output_error is not None
            and not facts.output_error <= plan.max_output_error
        ):
            raise InfeasibleError(
                f"output differs from float32 by {facts.output_error:.2g}, more than "
                f"--max-output-error {plan.max_output_error:g}"
            )
        with self._monitor.watch(endpoint) as usage:
            with self._load.closed_loop(endpoint, concurrency=endpoint.concurrency) as session:
                self._on_phase("warming up")
                warm = self._warm_up(session, endpoint, before)
                endpoint.facts()  # from here on the service time is that of the measured batches
                marks.warm()
                self._on_phase("measuring")
                saturated, precise = self._saturate(session, endpoint, before)
                facts = endpoint.facts()
            rate = throughput(saturated.done_s[saturated.ok], granularity=endpoint.granularity)
            if rate is None:
                self._check_replicas(endpoint, before)
                raise InfeasibleError(
                    f"only {saturated.n} requests completed in "
                    f"{plan.precision.max_s:g} s: too slow to measure in that time",
                    cause=InfeasibleCause.TIMEOUT,
                    at_most_rps=_at_most_rps(
                        int(np.count_nonzero(saturated.ok)),
                        granularity=endpoint.granularity,
                        seconds=plan.precision.max_s,
                    ),
                )
            model_rps = endpoint.model_rps(plan.model_s)
            under_slo = self._under_slo(endpoint, rate, before)
            self._check_replicas(endpoint, before)
            memory_gib = usage.memory_gib
        log = saturated if under_slo is None else under_slo.operating_point
        levels = percentiles_ms(log.latency_ms[log.ok])
        return Measurement(
            saturation_rps=rate.mean,
            saturation_rps_ci_low=rate.ci_low,
            saturation_rps_ci_high=rate.ci_high,
            service_time_ms=facts.service_time_ms,
            model_rps=model_rps,
            capacity_rps=None if under_slo is None else under_slo.capacity_rps,
            floor_latency_ms=None if under_slo is None else under_slo.floor_latency_ms,
            latency_p50_ms=levels[0],
            latency_p90_ms=levels[1],
            latency_p95_ms=levels[2],
            latency_p99_ms=levels[3],
            latency_p999_ms=levels[4],
            n_requests=log.n,
            error_rate=saturated.error_rate,
            memory_gib=memory_gib,
            output_error=facts.output_error,
            warm=warm,
            precise=precise,
            path_limited=model_rps is not None and rate.mean < PATH_LIMITED_BELOW * model_rps,
            enforcement=facts.enforcement,
            environment=facts.environment,
            extra=self._load.response_metrics(),
        )

    def _warm_up(self, session: LoadSession, endpoint: EndpointT, before: frozenset[str]) -> bool:
        """Load until throughput is level or the time is up; whether it was level."""
        log, start = RequestLog.empty(), self._clock()
        while True:
            log = RequestLog.concat([log, session.run_for(self._plan.poll_s)])
            self._check_errors(log, endpoint, before)
            verdict = self._plan.warm_up.judge(
                log, elapsed_s=self._clock() - start, granularity=endpoint.granularity
            )
            if verdict is WarmUpVerdict.GAVE_UP and log.n == 0:
                self._check_replicas(endpoint, before)
                raise InfeasibleError(
                    f"no request was answered in {self._plan.warm_up.max_s:g} s of warm-up",
                    # Says nothing of its rate: the first batch of all may take very long.
                    cause=InfeasibleCause.TIMEOUT,
                )
            if verdict is not WarmUpVerdict.KEEP_WARMING:
                return verdict is WarmUpVerdict.LEVEL

    def _saturate(
        self, session: LoadSession, endpoint: EndpointT, before: frozenset[str]
    ) -> tuple[RequestLog, bool]:
        """The requests at saturation, and whether throughput is known as exactly as asked."""
        log, start = RequestLog.empty(), self._clock()
        while True:
            log = RequestLog.concat([log, session.run_for(self._plan.poll_s)])
            self._check_errors(log, endpoint, before)
            verdict = self._plan.precision.judge(
                log, elapsed_s=self._clock() - start, granularity=endpoint.granularity
            )
            if verdict is not PrecisionVerdict.KEEP_MEASURING:
                return log, verdict is PrecisionVerdict.PRECISE

    def _under_slo(
        self, endpoint: EndpointT, rate: Estimate, before: frozenset[str]
    ) -> _SloResult | None:
        """Bracket and bisect the offered rate inside this deployment."""
        plan, slo = self._plan, self._plan.slo
        if slo is None:
            return None
        search = CapacitySearch(
            rate.mean, max_points=plan.max_load_points, resolution=CAPACITY_STEP
        )
        rng = np.random.default_rng(plan.seed)
        logs: dict[float, RequestLog] = {}
        while (offered_rps := search.next_rate()) is not None:
            self._on_phase(f"offering {offered_rps:.0f}/s")
            arrivals_s = poisson(offered_rps, plan.load_point_s(offered_rps), rng)
            if arrivals_s.size == 0:
                arrivals_s = np.zeros(1)  # without any request there would be no latency to see
            log = self._load.open_loop(endpoint, arrivals_s=arrivals_s)
            self._check_replicas(endpoint, before)
            verdict = slo_verdict(log.latency_ms, log.ok, slo)
            # A failed request is slower than any limit, also in the percentile.
            latency_ms = np.where(log.ok, log.latency_ms, math.inf)
            search.record(
                offered_rps, verdict, percentiles_ms(latency_ms, (slo.latency_percentile,))[0]
            )
            logs[offered_rps] = log
        point = search.capacity_rps if search.capacity_rps is not None else min(logs)
        self._check_errors(logs[point], endpoint, before)
        return _SloResult(search.capacity_rps, search.floor_latency_ms, logs[point])

    def _check_errors(self, log: RequestLog, endpoint: EndpointT, before: frozenset[str]) -> None:
        n_failed = int(np.count_nonzero(~log.ok))
        if not share_exceeds(n_failed, log.n, self._plan.max_error_rate):
            return
        self._check_replicas(endpoint, before)
        if self._load.lost_replica():
            # Known from the requests before Serve itself has noticed.
            raise TrialFailedError(f"a replica died during the trial: {self._load.last_error()}")
        last_error = self._load.last_error()
        raise InfeasibleError(
            f"{log.error_rate:.0%} of {log.n} requests failed: {last_error}",
            cause=cause_of(last_error),
        )

    def _check_replicas(self, endpoint: EndpointT, before: frozenset[str]) -> None:
        """A replaced replica makes the numbers worthless, though every request may succeed."""
        now = endpoint.replicas()
        if now != before:
            raise TrialFailedError(
                f"a replica died and was replaced during the trial ({_names(before)} became "
                f"{_names(now)})"
            )


class _Marks:
    """Stopwatch over the phases of one attempt; phases never reached took no time.

    A phase that an error ended took until then; what comes after it is the removal.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._start = clock()
        self._deployed: float | None = None
        self._warm: float | None = None
        self._measured: float | None = None

    def deployed(self) -> None:
        self._deployed = self._clock()

    def warm(self) -> None:
        self._warm = self._clock()

    def measured(self) -> None:
        self._measured = self._clock()

    def times(self) -> TrialTimes:
        end = self._clock()
        deployed = end if self._deployed is None else self._deployed
        measured = deployed if self._measured is None else self._measured
        warm = measured if self._warm is None else self._warm
        return TrialTimes(
            deploy_s=deployed - self._start,
            warm_up_s=warm - deployed,
            measure_s=measured - warm,
            teardown_s=end - measured if self._deployed is not None else 0.0,
        )


def _at_most_rps(n_completed: int, *, granularity: int, seconds: float) -> float | None:
    """The highest rate at which no more than `n_completed` requests complete in that time.

    Whole rounds of `granularity` complete at once, and the time may have ended just before one.
    """
    return (n_completed + granularity) / seconds if seconds > 0 else None


def _names(replicas: frozenset[str]) -> str:
    return ", ".join(sorted(replicas)) or "none"
