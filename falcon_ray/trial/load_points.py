"""The rate that a deployment serves within a latency limit: rates offered one after the other.

The module knows how one rate is offered and judged, and asks `capacity` which comes next. It does
not know what the deployment does when it is saturated, but for the rate that it then has.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic

import numpy as np

from falcon_ray.space.configuration import FloatArray
from falcon_ray.space.objective import Slo
from falcon_ray.space.workload import LoadPath
from falcon_ray.trial.capacity import CapacitySearch
from falcon_ray.trial.client import ClientVerdict
from falcon_ray.trial.load_guard import LoadGuard, Stretch
from falcon_ray.trial.offered_latency import latencies_ms, percentile_ms
from falcon_ray.trial.plan import MeasurementPlan
from falcon_ray.trial.protocols import EndpointT, LoadGenerator, LoadHealth
from falcon_ray.trial.requests import RequestLog
from falcon_ray.trial.saturation import CANNOT_BEAT, client_limited
from falcon_ray.trial.statistics import Estimate, SloVerdict

CAPACITY_STEP = 0.02
"""How near the lowest rate not certified is to come to the highest that was, as a share of it.
Certifying takes a margin, which the last step adds to: together they are to stay within 5 %."""
CERTIFIED_STEP = 0.042
"""How near it comes in eight load points, wherever the capacity is above 5 % of saturation; above
35 % these suffice for `CAPACITY_STEP`."""

BUSY_DRIVER = 0.9
"""Of one core: a driver that uses more may hold answers back, so their lateness proves nothing."""
FULLEST = 0.98
"""Share of saturation beyond which a queue's memory is not told from saturation itself."""
MEMORIES = 4
"""How often a queue has to have forgotten its past before it can be believed early."""
HOPE = 1 / 8
"""Share of a load before which nobody asks whether it can still be met."""
UNSENT_S = 0.1
"""Requests due for longer than this have been sent, and the last are not later than the first by
more, unless the drivers do not keep the rate. Of shorter times too little is known: answers and
requests in flight are asked for one after the other."""
UNREPORTED_S = 0.3
"""Likewise where replicas report what they sent of themselves, and not when they are asked."""
ENDS = 10
"""The first and the last requests that are compared are each one part of so many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPointResult:
    """What one offered rate did.

    Attributes:
        verdict: On the latency limit.
        log: The requests that were answered or failed.
        latency_ms: The limit's percentile, requests without an answer included; above the limit
            where it falls on one of these.
    """

    verdict: SloVerdict
    log: RequestLog
    latency_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SloResult:
    """What the load points under a latency limit said.

    Attributes:
        capacity_rps: Highest rate that was certified, or None.
        verdict: MET where a rate was, else what the lightest load showed.
        floor_latency_ms: The limit's percentile at the lightest load.
        log: The requests at the capacity, or at the lightest load.
        n_points: Rates that were offered.
        cut_short: Why the search was ended early; else empty.
    """

    capacity_rps: float | None
    verdict: SloVerdict
    floor_latency_ms: float
    log: RequestLog
    n_points: int
    cut_short: str


class LoadPoints(Generic[EndpointT]):
    """Offers rates to one deployment.

    Args:
        endpoint: The deployment.
        load: What sends.
        guard: Of this load.
        plan: How long and how exactly.
        slo: The limit.
        saturation: Rate with every queue full.
        on_phase: Told what is going on.
    """

    def __init__(
        self,
        endpoint: EndpointT,
        load: LoadGenerator[EndpointT],
        guard: LoadGuard[EndpointT],
        *,
        plan: MeasurementPlan,
        slo: Slo,
        saturation: Estimate,
        on_phase: Callable[[str], None],
    ) -> None:
        self._endpoint = endpoint
        self._load = load
        self._guard = guard
        self._plan = plan
        self._slo = slo
        self._saturation = saturation
        self._on_phase = on_phase
        self._rng = np.random.default_rng(plan.seed)

    def at(self, rate_rps: float) -> SloResult:
        """Whether the service keeps the limit at one rate.

        Raises:
            InfeasibleError: It fails or hangs there.
            TrialFailedError: A replica was lost, or the drivers were the limit.
        """
        point = self._offer(rate_rps)
        self._guard.check_errors(point.log)
        return SloResult(
            capacity_rps=rate_rps if point.verdict is SloVerdict.MET else None,
            verdict=point.verdict,
            floor_latency_ms=point.latency_ms,
            log=point.log,
            n_points=1,
            cut_short="",
        )

    def highest(self, rate_to_beat_rps: float | None) -> SloResult:
        """The highest rate at which the service keeps the limit: bracketed, then bisected.

        Args:
            rate_to_beat_rps: A capacity that is shown to lie below it is not refined.

        Raises:
            InfeasibleError: It fails or hangs where it was judged best, or hangs anywhere.
            TrialFailedError: A replica was lost, or the drivers were the limit.
        """
        search = CapacitySearch(
            self._saturation.mean,
            max_points=self._plan.max_load_points,
            resolution=CAPACITY_STEP,
            rate_to_beat_rps=rate_to_beat_rps,
        )
        points: dict[float, LoadPointResult] = {}
        while (rate_rps := search.next_rate()) is not None:
            points[rate_rps] = self._offer(rate_rps, only_met=search.capacity_rps is not None)
            search.record(rate_rps, points[rate_rps].verdict)
        lightest = points[min(points)]
        best = lightest if search.capacity_rps is None else points[search.capacity_rps]
        self._guard.check_errors(best.log)
        return SloResult(
            capacity_rps=search.capacity_rps,
            verdict=best.verdict,
            floor_latency_ms=lightest.latency_ms,
            log=best.log,
            n_points=len(points),
            cut_short=CANNOT_BEAT if search.cut_short else "",
        )

    def _offer(self, rate_rps: float, *, only_met: bool = False) -> LoadPointResult:
        """One load point; again with more drivers as long as these may be why it is not met.

        Args:
            rate_rps: What is offered.
            only_met: Whether all that matters is if it is met; the load then ends as soon as it
                cannot be any more.
        """
        self._on_phase(f"offering {rate_rps:.0f}/s")
        repeated = False
        while True:
            point, client, health = self._offer_once(rate_rps, only_met=only_met)
            if client is ClientVerdict.FINE:
                return point
            if (repeated and client is ClientVerdict.STARVED) or not self._load.add_drivers():
                raise client_limited(health)
            repeated = True
            self._on_phase(f"offering {rate_rps:.0f}/s with more drivers")

    def _offer_once(
        self, rate_rps: float, *, only_met: bool
    ) -> tuple[LoadPointResult, ClientVerdict, LoadHealth]:
        """One load point, whether the drivers kept up, and how they did."""
        max_s = self._plan.load_point_s(rate_rps)
        arrivals_s = self._plan.arrivals.draw(rate_rps, max_s, self._rng)
        if arrivals_s.size == 0:
            arrivals_s = np.zeros(1)  # without any request there would be no latency to see
        with (
            self._load.open_loop(self._endpoint, arrivals_s=arrivals_s) as session,
            self._guard.stretch(session, "offered", offered_rps=rate_rps, may_fail=True) as stretch,
        ):
            memory_s = self._memory_s(rate_rps)
            verdict = self._watch(stretch, arrivals_s, max_s, memory_s, only_met=only_met)
        self._guard.check_alive()
        point = LoadPointResult(
            verdict=verdict,
            log=stretch.log,
            latency_ms=percentile_ms(stretch, self._slo),
        )
        unsent = verdict is not SloVerdict.MET and not self._is_sent(stretch, arrivals_s)
        return point, self._client(rate_rps, point, stretch, unsent=unsent), stretch.health

    def _memory_s(self, rate_rps: float) -> float:
        """For how long a queue at this rate remembers how long it was.

        The relaxation time of a queue at load rho is of the order of a round over (1 - rho)^2
        (Cohen, The Single Server Queue, 1982, sec. III.7.3, for M/M/1).
        """
        saturation_rps = self._saturation.mean
        idle = 1 - min(rate_rps / saturation_rps, FULLEST)
        return self._endpoint.granularity / saturation_rps / idle**2

    def _watch(
        self,
        stretch: Stretch,
        arrivals_s: FloatArray,
        max_s: float,
        memory_s: float,
        *,
        only_met: bool,
    ) -> SloVerdict:
        """Let the load go on until it is judged.

        A rate is met early only once the queue has forgotten how empty it began, many times over,
        and never where the service was sent less than the rate. What cannot be met any more is
        undecided at once if that is all that matters.
        """
        plan, slo = self._plan, self._slo
        steady = plan.arrivals.steady
        looks_s = plan.slo_rule.looks_s(max_s) if steady else (max_s,)
        last_s = max_s + slo.latency_budget_ms / 1e3
        in_flight, typical_ms = list[float](), list[float]()
        while True:
            until_s = looks_s[0] if looks_s else last_s
            stretch.run_for(min(plan.poll_s, max(until_s - stretch.elapsed_s, 1e-3)))
            in_flight.append(stretch.in_flight)
            typical_ms.append(
                float(np.median(stretch.newest.latency_ms))
                if stretch.newest.n
                else stretch.oldest_in_flight_s * 1e3
            )
            # A service that answers nothing is not slow but hung, which is for the guard to say.
            answers = stretch.newest.n > 0
            if (
                steady
                and answers
                and plan.overload.overloaded(
                    in_flight=in_flight, latency_ms=typical_ms, limit_ms=slo.latency_budget_ms
                )
            ):
                return SloVerdict.VIOLATED
            ended = stretch.log.n >= arrivals_s.size or stretch.elapsed_s >= last_s
            may_give_up = only_met and steady and stretch.elapsed_s >= HOPE * max_s
            if may_give_up and not ended and self._is_hopeless(stretch, arrivals_s.size):
                return SloVerdict.UNDECIDED
            if not ended and not (looks_s and stretch.elapsed_s >= looks_s[0]):
                continue
            looks_s = looks_s[1:]
            if not ended and not looks_s:
                continue  # the last look waits for what is in flight
            verdict = self._judge(stretch, ended=ended)
            early = not ended and stretch.elapsed_s < MEMORIES * memory_s
            if verdict is SloVerdict.MET and (early or not self._is_sent(stretch, arrivals_s)):
                verdict = SloVerdict.UNDECIDED
            if ended or (verdict is not SloVerdict.UNDECIDED and stretch.is_answered):
                return verdict

    def _is_hopeless(self, stretch: Stretch, n_arrivals: int) -> bool:
        """Whether the load will not be certified although all that is to come keeps the limit."""
        answered_ms = latencies_ms(stretch, self._slo)[: stretch.log.n]
        return stretch.is_answered and not self._plan.slo_rule.can_still_be_met(
            answered_ms, self._slo, n_to_come=n_arrivals - answered_ms.size
        )

    def _judge(self, stretch: Stretch, *, ended: bool) -> SloVerdict:
        """While the load goes on, only the oldest of the unanswered is known to be overdue."""
        rule, latency_ms = self._plan.slo_rule, latencies_ms(stretch, self._slo)
        error = rule.error(last=ended) if self._plan.arrivals.steady else 1 - rule.confidence
        verdict = rule.judge(latency_ms, self._slo, error=error)
        if ended or verdict is not SloVerdict.VIOLATED:
            return verdict
        surely_ms = latency_ms[: stretch.log.n + 1]
        if rule.judge(surely_ms, self._slo, error=error) is SloVerdict.VIOLATED:
            return SloVerdict.VIOLATED
        return SloVerdict.UNDECIDED

    def _is_sent(self, stretch: Stretch, arrivals_s: FloatArray) -> bool:
        """Whether the drivers kept the rate, all on the clock of the requests.

        What was due by the newest answer was sent, and not ever later: drivers that catch up when
        nothing is due any more have offered less for longer.
        """
        log = stretch.log
        if log.n == 0:
            return False
        late_s = UNREPORTED_S if self._plan.workload.path is LoadPath.REPLICA else UNSENT_S
        lag_ms = log.lag_ms[np.argsort(log.intended_s, kind="stable")]
        n_end = math.ceil(log.n / ENDS)
        if np.median(lag_ms[-n_end:]) - np.median(lag_ms[:n_end]) > late_s * 1e3:
            return False
        begun_s = float(np.min(log.intended_s)) - float(arrivals_s[0])
        due_s = float(np.max(log.done_s)) - begun_s - late_s
        return log.n + stretch.in_flight >= int(np.searchsorted(arrivals_s, due_s, side="right"))

    def _client(
        self, rate_rps: float, point: LoadPointResult, stretch: Stretch, *, unsent: bool
    ) -> ClientVerdict:
        """FINE unless drivers that lag, or do not keep the rate, may be why it is not met.

        A lag only makes latencies longer, so what is met is met. A rate that saturation excludes,
        or requests that took too long from when they were really sent, are the service's doing.
        """
        plan = self._plan
        if (
            point.verdict is SloVerdict.MET
            or plan.workload.path is LoadPath.REPLICA
            or rate_rps > self._saturation.ci_high
            or point.log.n == 0
        ):
            return ClientVerdict.FINE
        health = stretch.health
        lag_ms = max(health.lag_ms, float(np.mean(point.log.lag_ms)))
        verdict = plan.client.judge(
            replace(health, lag_ms=lag_ms), latency_ms=self._slo.latency_budget_ms
        )
        if verdict is ClientVerdict.FINE and unsent:
            busy = health.cpu_share >= plan.client.busy_share
            verdict = ClientVerdict.SATURATED if busy else ClientVerdict.STARVED
        if verdict is ClientVerdict.FINE or health.cpu_share >= BUSY_DRIVER:
            return verdict
        served_ms = latencies_ms(stretch, self._slo, from_sent=True) - health.lag_ms
        rule = plan.slo_rule
        if rule.judge(served_ms, self._slo, error=1 - rule.confidence) is SloVerdict.VIOLATED:
            return ClientVerdict.FINE
        return verdict
