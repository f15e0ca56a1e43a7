"""How many requests a deployment answers when every queue is full, and whether that is its own.

The module knows when to warm up, when to stop, and when the drivers were the limit. It does not
know what the rate is needed for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic

import numpy as np

from falcon_ray.errors import InfeasibleCause, InfeasibleError, TrialFailedError
from falcon_ray.space.workload import LoadPath
from falcon_ray.trial.client import ClientVerdict
from falcon_ray.trial.load_guard import LoadGuard, Stretch
from falcon_ray.trial.plan import MeasurementPlan
from falcon_ray.trial.protocols import EndpointFacts, EndpointT, LoadGenerator, LoadHealth
from falcon_ray.trial.requests import RequestLog
from falcon_ray.trial.statistics import Estimate, throughput
from falcon_ray.trial.steady_state import (
    PrecisionVerdict,
    Steady,
    WarmUpVerdict,
    steady,
)

MODEL_STRETCH = 3
"""How many times longer the model alone may be loaded where its batches take long."""
MIN_ROUNDS = 8
"""With fewer, the upper end of an interval is no reason to give a configuration up."""
CANNOT_BEAT = "cannot beat the incumbent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Saturation:
    """What a closed loop with every queue full said.

    Attributes:
        rate: Requests per second.
        log: The requests, warm-up excluded.
        level_log: Of these, the ones that came once the service was level; all of them where
            that leaves too few.
        warm: Whether throughput was level when the measurement began.
        precise: Whether the rate is known as exactly as was asked.
        cut_short: Why it was ended early; else empty.
        health: How the drivers kept up.
        facts: What the deployment said of itself afterwards.
    """

    rate: Estimate
    log: RequestLog
    level_log: RequestLog
    warm: bool
    precise: bool
    cut_short: str
    health: LoadHealth
    facts: EndpointFacts


class Saturator(Generic[EndpointT]):
    """Saturates one deployment.

    Args:
        endpoint: The deployment.
        load: What sends.
        guard: Of this load.
        plan: How long and how exactly.
        rate_to_beat_rps: The measurement ends when it is shown to be out of reach.
        on_phase: Told what is going on.
        on_warm: Called when a warm-up is over.
    """

    def __init__(
        self,
        endpoint: EndpointT,
        load: LoadGenerator[EndpointT],
        guard: LoadGuard[EndpointT],
        *,
        plan: MeasurementPlan,
        rate_to_beat_rps: float | None,
        on_phase: Callable[[str], None],
        on_warm: Callable[[], None],
    ) -> None:
        self._endpoint = endpoint
        self._load = load
        self._guard = guard
        self._plan = plan
        self._rate_to_beat_rps = rate_to_beat_rps
        self._on_phase = on_phase
        self._on_warm = on_warm

    def saturate(self) -> Saturation:
        """Measure, with more drivers as long as these are the limit.

        Raises:
            InfeasibleError: The deployment fails, hangs, or is too slow to be measured.
            TrialFailedError: A replica was lost, or the drivers remain the limit.
        """
        found = self._once()
        if self._plan.workload.path is LoadPath.REPLICA:
            return found  # the load is part of the process it loads, and cannot be told from it
        fewer: Saturation | None = None
        while (verdict := self._client(found)) is not ClientVerdict.FINE:
            if fewer is not None:
                gain = found.rate.mean / fewer.rate.mean - 1
                if verdict is ClientVerdict.SATURATED and gain <= self._plan.client.max_gain:
                    return found
                if verdict is ClientVerdict.STARVED:
                    raise client_limited(found.health)
            if not self._load.add_drivers():
                raise client_limited(found.health)
            self._on_phase("measuring with more drivers")
            fewer, found = found, self._once()
        return found

    def _client(self, found: Saturation) -> ClientVerdict:
        latency_ms = float(np.median(found.log.latency_ms))
        return self._plan.client.judge(found.health, latency_ms=latency_ms)

    def _once(self) -> Saturation:
        endpoint, guard = self._endpoint, self._guard
        with self._load.closed_loop(endpoint, concurrency=endpoint.concurrency) as session:
            self._on_phase("warming up")
            with guard.stretch(session, "warm_up") as warming:
                warm = self._warm_up(warming)
            self._on_warm()
            endpoint.facts()  # from here on the service time is that of the measured batches
            self._on_phase("measuring")
            with guard.stretch(session, "saturation") as measuring:
                found, precise, cut_short = self._measure(warming.log, measuring)
            facts = endpoint.facts()
        if found is None:
            guard.check_replicas()
            raise too_slow(measuring, granularity=endpoint.granularity)
        return Saturation(
            rate=found.rate,
            log=measuring.log,
            level_log=_level(measuring.log, found.from_s, granularity=endpoint.granularity),
            warm=warm,
            precise=precise,
            cut_short=cut_short,
            health=measuring.health,
            facts=facts,
        )

    def _warm_up(self, stretch: Stretch) -> bool:
        """Load until throughput is level or the time is up; whether it was level."""
        rule = self._plan.warm_up
        while True:
            stretch.run_for(self._plan.poll_s)
            verdict = rule.judge(
                stretch.log, elapsed_s=stretch.elapsed_s, granularity=self._endpoint.granularity
            )
            if verdict is WarmUpVerdict.GAVE_UP and stretch.log.n == 0:
                self._guard.check_replicas()
                raise InfeasibleError(
                    f"no request was answered in {rule.max_s:g} s of warm-up",
                    # Says nothing of its rate: the first batch of all may take very long.
                    cause=InfeasibleCause.TIMEOUT,
                )
            if verdict is not WarmUpVerdict.KEEP_WARMING:
                return verdict is WarmUpVerdict.LEVEL

    def _measure(self, warm_up: RequestLog, stretch: Stretch) -> tuple[Steady | None, bool, str]:
        """What it settled at, whether that is precise, and why it ended early."""
        granularity, rule = self._endpoint.granularity, self._plan.precision
        while True:
            stretch.run_for(self._plan.poll_s)
            found = steady(warm_up, stretch.log, granularity=granularity)
            rate = None if found is None else found.rate
            n_rounds = int(np.count_nonzero(stretch.log.ok)) // granularity
            if (
                self._rate_to_beat_rps is not None
                and rate is not None
                and rate.ci_high < self._rate_to_beat_rps
                and n_rounds > MIN_ROUNDS
                and stretch.elapsed_s >= rule.min_s / 2
                and stretch.is_answered
            ):
                return found, False, CANNOT_BEAT
            verdict = rule.judge(rate, elapsed_s=stretch.elapsed_s)
            if verdict is not PrecisionVerdict.KEEP_MEASURING and stretch.is_answered:
                return found, verdict is PrecisionVerdict.PRECISE, ""


def too_slow(stretch: Stretch, *, granularity: int) -> InfeasibleError:
    """The fact that fewer rounds than an estimate takes were completed."""
    seconds, log = stretch.elapsed_s, stretch.log
    n_done = int(np.count_nonzero(log.ok))
    return InfeasibleError(
        f"only {log.n} requests completed in {seconds:g} s: too slow to measure in that time",
        cause=InfeasibleCause.TIMEOUT,
        # Whole rounds complete at once, and the time may have ended just before one.
        at_most_rps=(n_done + granularity) / seconds,
    )


def _level(log: RequestLog, from_s: float, *, granularity: int) -> RequestLog:
    """The requests that were due once the service was level, if that leaves enough rounds."""
    level = log.due_from(from_s)
    return level if level.n >= MIN_ROUNDS * granularity else log


def model_rate(
    endpoint: EndpointT,
    load: LoadGenerator[EndpointT],
    guard: LoadGuard[EndpointT],
    *,
    plan: MeasurementPlan,
) -> Estimate | None:
    """Requests per second that the model itself answers, all replicas together.

    The replicas are warm already; a quarter of the time fills their queues.

    Returns:
        None where too few rounds completed in three times the time that the plan gives.
    """
    with load.closed_loop(endpoint, concurrency=endpoint.concurrency) as session:
        with guard.stretch(session, None) as stretch:
            stretch.run_for(min(plan.poll_s, plan.model_s / 4))
        with guard.stretch(session, None) as stretch:
            rate: Estimate | None = None
            while rate is None and stretch.elapsed_s < MODEL_STRETCH * plan.model_s:
                stretch.run_for(min(plan.poll_s, plan.model_s))
                if stretch.elapsed_s >= plan.model_s and stretch.is_answered:
                    done_s = stretch.log.done_s[stretch.log.ok]
                    rate = throughput(done_s, granularity=endpoint.granularity)
    return rate


def client_limited(health: LoadHealth) -> TrialFailedError:
    """The failure of a trial in which the drivers were the limit."""
    return TrialFailedError(
        f"client-limited: {health.n_drivers} load drivers were {health.lag_ms:.3g} ms late on "
        f"average, the busiest using {health.cpu_share:.0%} of a core; leave free cores on the "
        "node that runs the trial"
    )
