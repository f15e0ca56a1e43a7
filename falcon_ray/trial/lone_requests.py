"""One request at a time: how long it takes alone, and how many of them a second holds.

The module keeps one request in flight. It does not know what else was measured.
"""

from dataclasses import dataclass
from typing import Generic

import numpy as np

from falcon_ray.space.configuration import FloatArray
from falcon_ray.space.objective import Slo
from falcon_ray.trial.load_guard import LoadGuard
from falcon_ray.trial.plan import MeasurementPlan
from falcon_ray.trial.protocols import EndpointT, LoadGenerator
from falcon_ray.trial.requests import RequestLog
from falcon_ray.trial.saturation import CANNOT_BEAT, MIN_ROUNDS
from falcon_ray.trial.statistics import Estimate, SloVerdict, slo_verdict
from falcon_ray.trial.steady_state import PrecisionVerdict, steady

PROBE_S = 1.0
PROBE_REQUESTS = 20
PROBE_MAX_S = 5.0
PROBE_MIN_REQUESTS = 3
"""The first may wait for what an earlier load left behind."""

LAST_POLL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleStream:
    """What a closed loop with one request in flight said.

    Attributes:
        rate: Requests per second; None where too few completed.
        log: The requests.
        verdict: On the latency limit; None without one.
        precise: Whether the rate is known as exactly as was asked.
        cut_short: Why it was ended early; else empty.
    """

    rate: Estimate | None
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

        Raises:
            InfeasibleError: It fails or is not answered.
            TrialFailedError: A replica was lost.
        """
        with (
            self._load.closed_loop(self._endpoint, concurrency=1) as session,
            self._guard.stretch(session, None) as stretch,
        ):
            while stretch.log.n == 0:
                stretch.run_for(min(self._plan.poll_s, LAST_POLL_S))

    def stream(self, rate_to_beat_rps: float | None) -> SingleStream:
        """One request after the other, until their rate is known and the limit is decided.

        Raises:
            InfeasibleError: They fail or are not answered.
            TrialFailedError: A replica was lost.
        """
        plan, nothing = self._plan, RequestLog.empty()
        with (
            self._load.closed_loop(self._endpoint, concurrency=1) as session,
            self._guard.stretch(session, "single_stream") as stretch,
        ):
            while True:
                stretch.run_for(plan.poll_s)
                if not stretch.is_answered:
                    continue
                found = steady(nothing, stretch.log, granularity=1)
                rate = None if found is None else found.rate
                verdict = None if plan.slo is None else _verdict(stretch.log, plan.slo)
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
                undecided = verdict is SloVerdict.UNDECIDED
                if said is PrecisionVerdict.KEEP_MEASURING or (
                    undecided and stretch.elapsed_s < plan.load_point_max_s
                ):
                    continue
                return SingleStream(
                    rate=rate,
                    log=stretch.log,
                    verdict=verdict,
                    precise=said is PrecisionVerdict.PRECISE,
                    cut_short="",
                )


def _verdict(log: RequestLog, slo: Slo) -> SloVerdict:
    """Lone requests share neither batch nor queue, so they count as independent."""
    return slo_verdict(log.latency_ms, log.ok, slo)


def fastest_is_over(latency_ms: FloatArray, slo: Slo) -> bool:
    """Whether not one lone request kept the limit, so that no rate can."""
    return bool(np.min(latency_ms) > slo.latency_budget_ms)
