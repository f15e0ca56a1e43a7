"""Load under watch: every stretch of it ends at once where the service does not answer for it.

The guard knows what a lost replica, failing requests and silence mean for the trial. It does not
know why the load is made, nor when it has been long enough.
"""

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Generic

import numpy as np

from falcon_ray.errors import InfeasibleCause, InfeasibleError, ReplicaLostError
from falcon_ray.trial.causes import cause_of
from falcon_ray.trial.client import mean_health
from falcon_ray.trial.protocols import (
    DeviceUsage,
    EndpointT,
    LoadGenerator,
    LoadHealth,
    LoadSession,
)
from falcon_ray.trial.requests import RequestLog
from falcon_ray.trial.statistics import share_exceeds

STALL_LATENCIES = 20.0
"""A request in flight for more median latencies than this is stuck, not slow."""
WATCHING_CONFIDENCE = 0.999
"""That too many requests fail, as long as a stretch goes on: it is asked at every poll."""


def tell_nobody(phase: str, offered_rps: float | None, log: RequestLog) -> None:
    """Of the requests of a phase."""


class LoadGuard(Generic[EndpointT]):
    """Watches the load on one deployment.

    Args:
        endpoint: The deployment; the replicas that it has now are the ones to be measured.
        load: What sends.
        usage: What the deployment used so far.
        stall_s: Seconds without an answer after which the service counts as hung.
        max_error_rate: A deployment that is shown to fail more of its requests is infeasible.
        clock: Monotonic seconds.
        on_requests: Told the requests of every stretch: phase, offered rate, log.
    """

    def __init__(
        self,
        endpoint: EndpointT,
        load: LoadGenerator[EndpointT],
        usage: DeviceUsage,
        *,
        stall_s: float,
        max_error_rate: float,
        clock: Callable[[], float],
        on_requests: Callable[[str, float | None, RequestLog], None] = tell_nobody,
    ) -> None:
        self._endpoint = endpoint
        self._before = endpoint.replicas()
        self._load = load
        self._usage = usage
        self._stall_s = stall_s
        self._max_error_rate = max_error_rate
        self._clock = clock
        self._on_requests = on_requests

    @contextmanager
    def stretch(
        self,
        session: LoadSession,
        phase: str | None,
        *,
        offered_rps: float | None = None,
        may_fail: bool = False,
    ) -> Generator["Stretch"]:
        """A stretch of load, whose requests are told however it ends.

        Args:
            session: The load.
            phase: What the stretch is for; None where its requests are not told.
            offered_rps: In open loop.
            may_fail: Whether failing requests and a growing queue are an answer and no reason to
                end the trial.

        Raises:
            InfeasibleError: At its end, that too many of its requests failed.
            ReplicaLostError: They did because a replica was lost.
        """
        stretch = Stretch(
            session,
            clock=self._clock,
            check=lambda found: self._check(found, may_fail=may_fail),
        )
        try:
            yield stretch
            if not may_fail:
                self.check_errors(stretch.log)
        finally:
            if phase is not None:
                self._on_requests(phase, offered_rps, stretch.log)

    def check_replicas(self) -> None:
        """A replaced replica makes the numbers worthless, though every request may succeed.

        One that was added, as autoscaling does, replaces none.

        Raises:
            InfeasibleError: Memory ran out.
            ReplicaLostError: A replica was lost otherwise.
        """
        now = self._endpoint.replicas()
        if self._before - now:
            self._lost(
                f"a replica died and was replaced during the trial ({_names(self._before)} became "
                f"{_names(now)})"
            )

    def check_errors(self, log: RequestLog, *, confidence: float = 0.95) -> None:
        """End the trial where more requests fail than are accepted.

        Args:
            log: The requests.
            confidence: That they do.

        Raises:
            InfeasibleError: They do, or memory ran out.
            ReplicaLostError: They do because a replica was lost.
        """
        n_failed = int(np.count_nonzero(~log.ok))
        if not share_exceeds(n_failed, log.n, self._max_error_rate, confidence):
            return
        self.check_alive()
        last_error = self._load.last_error()
        raise InfeasibleError(
            f"{log.error_rate:.0%} of {log.n} requests failed: {last_error}",
            cause=cause_of(last_error),
        )

    def _check(self, stretch: "Stretch", *, may_fail: bool) -> None:
        if not may_fail:
            self.check_errors(stretch.log, confidence=WATCHING_CONFIDENCE)
        if stretch.in_flight == 0:
            return
        # Where requests are rare, the last answer may be long ago and the next just asked for.
        if min(stretch.quiet_s, stretch.oldest_in_flight_s) >= self._stall_s:
            self.check_alive()
            raise InfeasibleError(
                f"no request was answered for {self._stall_s:g} s", cause=InfeasibleCause.TIMEOUT
            )
        # In open loop a queue may grow: stuck is what newer requests have long overtaken.
        answered = stretch.newest if may_fail else stretch.log
        oldest_s, median_ms = stretch.oldest_in_flight_s, _median_ms(answered, only_ok=may_fail)
        if oldest_s >= self._stall_s and oldest_s * 1e3 > STALL_LATENCIES * median_ms:
            self.check_alive()
            raise InfeasibleError(
                f"a request was not answered for {oldest_s:.0f} s, where half of all take at "
                f"most {median_ms:.3g} ms",
                cause=InfeasibleCause.TIMEOUT,
            )

    def check_alive(self) -> None:
        """As `check_replicas`, and no request was lost with the process that had it.

        Raises:
            InfeasibleError: Memory ran out.
            ReplicaLostError: A replica was lost otherwise.
        """
        self.check_replicas()
        if self._load.lost_replica():
            # Known from the requests before Serve itself has noticed.
            self._lost(f"a replica died during the trial: {self._load.last_error()}")

    def _lost(self, reason: str) -> None:
        kills = self._usage.out_of_memory_kills
        said = self._load.last_error() if self._load.lost_replica() else ""
        if kills > 0 or cause_of(said) is InfeasibleCause.MEMORY:
            raise InfeasibleError(
                f"out of memory under load: {reason}", cause=InfeasibleCause.MEMORY
            )
        raise ReplicaLostError(reason)


class Stretch:
    """Load that goes on, and what came of it.

    Args:
        session: The load.
        clock: Monotonic seconds.
        check: Called after every step; raises where the trial has to end.
    """

    def __init__(
        self,
        session: LoadSession,
        *,
        clock: Callable[[], float],
        check: Callable[["Stretch"], None],
    ) -> None:
        self._session = session
        self._clock = clock
        self._check = check
        self._begun_s = self._answered_s = clock()
        self._health: list[tuple[float, LoadHealth]] = []
        self.log = RequestLog.empty()
        self.newest = RequestLog.empty()

    def run_for(self, seconds: float) -> None:
        """Let the load go on for about that long."""
        begun_s = self._clock()
        self.newest = self._session.run_for(seconds)
        self.log = RequestLog.concat([self.log, self.newest])
        now_s = self._clock()
        self._health.append((now_s - begun_s, self._session.health()))
        if self.newest.n:
            self._answered_s = now_s
        self._check(self)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the stretch began."""
        return self._clock() - self._begun_s

    @property
    def quiet_s(self) -> float:
        """Seconds since an answer came, or since the stretch began."""
        return self._clock() - self._answered_s

    @property
    def in_flight(self) -> int:
        """Requests without an answer."""
        return self._health[-1][1].in_flight if self._health else 0

    @property
    def oldest_in_flight_s(self) -> float:
        """How long the oldest of these has waited."""
        return self._health[-1][1].oldest_in_flight_s if self._health else 0.0

    @property
    def health(self) -> LoadHealth:
        """How the load's processes kept up in all of the stretch.

        Raises:
            ValueError: The load has not run yet.
        """
        return mean_health(self._health)

    @property
    def median_latency_ms(self) -> float:
        """Of all that were answered; infinite where none was."""
        return _median_ms(self.log)

    @property
    def is_answered(self) -> bool:
        """Whether the service still answered at the end, and nobody waits for too long.

        What is measured may end only then: of a service that hangs, the requests answered so
        far look as good as ever.
        """
        if self.in_flight == 0:
            return True
        waits_ms = self.oldest_in_flight_s * 1e3
        return self.newest.n > 0 and waits_ms <= STALL_LATENCIES * self.median_latency_ms


def _median_ms(log: RequestLog, *, only_ok: bool = False) -> float:
    latency_ms = log.latency_ms[log.ok] if only_ok else log.latency_ms
    return float(np.median(latency_ms)) if latency_ms.size else math.inf


def _names(replicas: frozenset[str]) -> str:
    return ", ".join(sorted(replicas)) or "none"
