"""One request at a time: how long it takes alone, and how many of them a second holds.

The module keeps one request in flight. It does not know what else was measured.
"""

import math
from dataclasses import dataclass
from typing import Generic

import numpy as np

from falcon_ray.space.configuration import FloatArray
from falcon_ray.space.objective import Slo
from falcon_ray.trial.load_guard import LoadGuard
from falcon_ray.trial.plan import MeasurementPlan
from falcon_ray.trial.protocols import EndpointT, LoadGenerator
from falcon_ray.trial.requests import RequestLog
from falcon_ray.trial.saturation import CANNOT_BEAT, MIN_ROUNDS, too_slow
from falcon_ray.trial.slo_rule import SloRule
from falcon_ray.trial.statistics import Estimate, SloVerdict
from falcon_ray.trial.steady_state import PrecisionVerdict, steady

PROBE_S = 1.0
PROBE_REQUESTS = 20
PROBE_MAX_S = 5.0
PROBE_MIN_REQUESTS = 3
"""The first may wait for what an earlier load left behind."""

LAST_POLL_S = 0.1
SHORTEST_POLL_S = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleStream:
    """What a closed loop with one request in flight said.

    Attributes:
        rate: Requests per second.
        log: The requests.
        verdict: On the latency limit; None without one.
        precise: Whether the rate is known as exactly as was asked.
        cut_short: Why it was ended early; else empty.
    """

    rate: Estimate
    log: RequestLog
    verdict: SloVerdict | None
    precise: bool
    cut_short: str


class LoneRequests(Generic[EndpointT]):
    """Sends one request at a time to one deployment.

    Args:
        endpoint: The deployment.
        load: What sends.
        guard: Of this load.
        plan: How long and how exactly.
    """

    def __init__(
        self,
        endpoint: EndpointT,
        load: LoadGenerator[EndpointT],
        guard: LoadGuard[EndpointT],
        *,
        plan: MeasurementPlan,
    ) -> None:
        self._endpoint = endpoint
        self._load = load
        self._guard = guard
        self._plan = plan

    def probe(self) -> RequestLog:
        """Some lone requests, at least three of them answered, for about a second.

        Raises:
            InfeasibleError: They fail or are not answered.
            TrialFailedError: A replica was lost.
        """
        with (
            self._load.closed_loop(self._endpoint, concurrency=1) as session,
            self._guard.stretch(session, "single_stream") as stretch,
        ):
            while True:
                stretch.run_for(min(self._plan.poll_s, PROBE_S))
                n = int(np.count_nonzero(stretch.log.ok))
                enough = n >= PROBE_REQUESTS and stretch.elapsed_s >= PROBE_S
                late = n >= PROBE_MIN_REQUESTS and stretch.elapsed_s >= PROBE_MAX_S
                if enough or late:
                    return stretch.log

    def wait_for_one(self) -> None:
        """Return once a request is answered: what looks good may have hung in its last moment.

        One that fails is followed by another, for as long as an answer may take.

        Raises:
            InfeasibleError: All of them fail, or one is not answered.
            TrialFailedError: A replica was lost.
        """
        with (
            self._load.closed_loop(self._endpoint, concurrency=1) as session,
            self._guard.stretch(session, None, may_fail=True) as stretch,
        ):
            while not np.any(stretch.log.ok):
                if stretch.elapsed_s >= self._plan.stall_s:
                    self._guard.check_errors(stretch.log)
                stretch.run_for(min(self._plan.poll_s, LAST_POLL_S))

    def stream(self, rate_to_beat_rps: float | None) -> SingleStream:
        """One request after the other, until their rate is known and the limit is decided.

        Raises:
            InfeasibleError: They fail, are not answered, or too few are in the time there is.
            TrialFailedError: A replica was lost.
        """
        plan, nothing = self._plan, RequestLog.empty()
        looks_s = () if plan.slo is None else plan.slo_rule.looks_s(plan.load_point_max_s)
        verdict = None if plan.slo is None else SloVerdict.UNDECIDED
        with (
            self._load.closed_loop(self._endpoint, concurrency=1) as session,
            self._guard.stretch(session, "single_stream") as stretch,
        ):
            while True:
                left_s = looks_s[0] - stretch.elapsed_s if looks_s else math.inf
                stretch.run_for(min(plan.poll_s, max(left_s, SHORTEST_POLL_S)))
                if not stretch.is_answered:
                    continue
                found = steady(nothing, stretch.log, granularity=1)
                rate = None if found is None else found.rate
                if plan.slo is not None and looks_s and stretch.elapsed_s >= looks_s[0]:
                    verdict = _look(
                        stretch.log,
                        plan.slo,
                        plan.slo_rule,
                        last=stretch.elapsed_s >= looks_s[-1],
                    )
                    decided = verdict is not SloVerdict.UNDECIDED
                    later_s = tuple(each for each in looks_s if each > stretch.elapsed_s)
                    looks_s = () if decided else later_s
                if (
                    rate_to_beat_rps is not None
                    and rate is not None
                    and rate.ci_high < rate_to_beat_rps
                    and stretch.log.n > MIN_ROUNDS
                    and stretch.elapsed_s >= plan.precision.min_s / 2
                ):
                    return SingleStream(
                        rate=rate,
                        log=stretch.log,
                        verdict=verdict,
                        precise=False,
                        cut_short=CANNOT_BEAT,
                    )
                said = plan.precision.judge(rate, elapsed_s=stretch.elapsed_s)
                if said is PrecisionVerdict.KEEP_MEASURING or (looks_s and rate is not None):
                    continue
                if rate is None:
                    self._guard.check_alive()
                    raise too_slow(stretch, granularity=1)
                return SingleStream(
                    rate=rate,
                    log=stretch.log,
                    verdict=verdict,
                    precise=said is PrecisionVerdict.PRECISE,
                    cut_short="",
                )


def _look(log: RequestLog, slo: Slo, rule: SloRule, *, last: bool) -> SloVerdict:
    latency_ms = np.where(log.ok, log.latency_ms, math.inf)
    return rule.judge(latency_ms, slo, error=rule.error(last=last))


def fastest_is_over(latency_ms: FloatArray, slo: Slo) -> bool:
    """Whether not one lone request kept the limit, so that no rate can."""
    return bool(np.min(latency_ms) > slo.latency_budget_ms)
