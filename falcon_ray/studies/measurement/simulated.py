"""A known service in virtual time, behind the protocols that trials are run through.

Everything is arithmetic on arrays; a minute of load takes milliseconds. It does not know what is
measured, nor for how long.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np

from falcon_ray.space.configuration import Configuration, FloatArray
from falcon_ray.studies.measurement.queueing import closed_loop, serve_arrivals
from falcon_ray.studies.measurement.truth import BATCHES_IN_FLIGHT
from falcon_ray.trial.known_service import BatchTimes, KnownService
from falcon_ray.trial.protocols import EndpointFacts, LoadHealth, LoadSession, Reservation
from falcon_ray.trial.requests import RequestLog

AHEAD = 64
"""Batches that a closed loop works out at a time."""


class VirtualClock:
    """Seconds that pass only when somebody says so."""

    def __init__(self) -> None:
        self._now_s = 0.0

    def __call__(self) -> float:
        """Seconds since the beginning."""
        return self._now_s

    def advance_to(self, moment_s: float) -> None:
        """Let time pass until a moment; nothing happens where that is over."""
        self._now_s = max(self._now_s, moment_s)


@dataclass(frozen=True, slots=True)
class SimulatedEndpoint:
    """One replica of a known service; its batches go on from one load to the next."""

    service: KnownService
    times: BatchTimes

    @property
    def concurrency(self) -> int:
        """See `Endpoint.concurrency`."""
        return BATCHES_IN_FLIGHT * self.service.batch_size

    @property
    def granularity(self) -> int:
        """See `Endpoint.granularity`."""
        return self.service.batch_size

    def replicas(self) -> frozenset[str]:
        """See `Endpoint.replicas`."""
        return frozenset({"simulated"})

    def facts(self) -> EndpointFacts:
        """See `Endpoint.facts`."""
        return EndpointFacts()


@dataclass(slots=True)
class SimulatedBackend:
    """Deploys one known service, whatever the configuration; each deployment begins cold.

    Attributes:
        service: What is deployed.
        rng: Of the noise of its batches.
        n_deployments: So far.
    """

    service: KnownService
    rng: np.random.Generator
    n_deployments: int = 0

    def reserve(self, configuration: Configuration) -> AbstractContextManager[Reservation]:  # noqa: ARG002
        """See `ServingBackend.reserve`; it takes nothing."""
        return nullcontext(Reservation())

    @contextmanager
    def deploy(
        self,
        configuration: Configuration,  # noqa: ARG002
        reservation: Reservation,  # noqa: ARG002
    ) -> Iterator[SimulatedEndpoint]:
        """See `ServingBackend.deploy`."""
        self.n_deployments += 1
        yield SimulatedEndpoint(self.service, BatchTimes(self.service, self.rng))


class SimulatedLoad:
    """Load without a path: a request is at the service at once.

    Args:
        clock: Passes while load goes on.
    """

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock

    @contextmanager
    def closed_loop(
        self, endpoint: SimulatedEndpoint, *, concurrency: int
    ) -> Iterator[LoadSession]:
        """See `LoadGenerator.closed_loop`."""
        yield _ClosedLoop(self._clock, endpoint, concurrency)

    @contextmanager
    def open_loop(
        self, endpoint: SimulatedEndpoint, *, arrivals_s: FloatArray
    ) -> Iterator[LoadSession]:
        """See `LoadGenerator.open_loop`."""
        yield _OpenLoop(self._clock, endpoint, arrivals_s)

    def add_drivers(self) -> bool:
        """See `LoadGenerator.add_drivers`."""
        return False

    def last_error(self) -> str:
        """See `LoadGenerator.last_error`."""
        return ""

    def lost_replica(self) -> bool:
        """See `LoadGenerator.lost_replica`."""
        return False

    def response_metrics(self) -> Mapping[str, float]:
        """See `LoadGenerator.response_metrics`."""
        return {}


@dataclass(frozen=True, slots=True)
class NothingSeen:
    """What a monitor saw that sees nothing."""

    memory_gib: float | None = None
    gpu_memory_gib: float | None = None
    gpu_utilization_pct: float | None = None
    gpu_power_w: float | None = None
    out_of_memory_kills: int = 0


class BlindMonitor:
    """Watches a service that uses nothing."""

    @contextmanager
    def watch(self, endpoint: SimulatedEndpoint) -> Iterator[NothingSeen]:  # noqa: ARG002
        """See `DeviceMonitor.watch`."""
        yield NothingSeen()


class _Session(ABC):
    """Hands out requests by the time they are done; their times are all known beforehand."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._n_given = 0
        self._sent_s = np.empty(0)
        self._done_s = np.empty(0)

    def run_for(self, seconds: float) -> RequestLog:
        """See `LoadSession.run_for`."""
        self._clock.advance_to(self._end_s(self._clock() + seconds))
        first = self._n_given
        self._n_given = int(np.searchsorted(self._done_s, self._clock(), side="right"))
        sent_s, done_s = (each[first : self._n_given] for each in (self._sent_s, self._done_s))
        return RequestLog(
            intended_s=sent_s, sent_s=sent_s, done_s=done_s, ok=np.ones(done_s.size, np.bool_)
        )

    def health(self) -> LoadHealth:
        """See `LoadSession.health`."""
        n_sent = int(np.searchsorted(self._sent_s, self._clock(), side="right"))
        in_flight = n_sent - self._n_given
        oldest_s = self._clock() - float(self._sent_s[self._n_given]) if in_flight else 0.0
        return LoadHealth(
            n_drivers=1, lag_ms=0.0, cpu_share=0.0, in_flight=in_flight, oldest_in_flight_s=oldest_s
        )

    @abstractmethod
    def _end_s(self, until_s: float) -> float:
        """When `run_for` returns; all requests done by then are known."""


class _ClosedLoop(_Session):
    def __init__(self, clock: VirtualClock, endpoint: SimulatedEndpoint, concurrency: int) -> None:
        super().__init__(clock)
        self._endpoint = endpoint
        self._concurrency = concurrency
        self._start_s = clock()
        self._batch_s = np.empty(0)

    def _end_s(self, until_s: float) -> float:
        while self._done_s.size == 0 or self._done_s[-1] <= until_s:
            self._batch_s = np.concatenate([self._batch_s, self._endpoint.times.take(AHEAD)])
            rounds = closed_loop(
                self._batch_s,
                concurrency=self._concurrency,
                batch_size=self._endpoint.service.batch_size,
                start_s=self._start_s,
            )
            self._sent_s, self._done_s = rounds.sent_s, rounds.done_s
        return until_s


class _OpenLoop(_Session):
    def __init__(
        self, clock: VirtualClock, endpoint: SimulatedEndpoint, arrivals_s: FloatArray
    ) -> None:
        super().__init__(clock)
        self._sent_s = clock() + arrivals_s
        self._done_s = serve_arrivals(
            self._sent_s,
            endpoint.times.take(arrivals_s.size).tolist(),
            batch_size=endpoint.service.batch_size,
            free_s=clock(),
        ).done_s

    def _end_s(self, until_s: float) -> float:
        last_s = float(self._done_s[-1]) if self._done_s.size else self._clock()
        return min(until_s, last_s)
