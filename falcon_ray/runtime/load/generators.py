"""The load of a trial by each path: through a handle, by HTTP, and inside the replicas.

A generator talks to driver actors and puts their records together. What a rate means, and when
it has been long enough, is not decided here.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import ray

from falcon_ray.errors import TrialFailedError
from falcon_ray.runtime.faults import ray_failures
from falcon_ray.runtime.load.core import Effort
from falcon_ray.runtime.load.driver import Collected, Failures
from falcon_ray.runtime.load.inside import Share, telling
from falcon_ray.runtime.load.placement import CALL_TIMEOUT_S, DriverPool, PlacedDriver
from falcon_ray.runtime.load.transport import HandleRoute, HttpBody, HttpRoute, Route
from falcon_ray.space.configuration import FloatArray
from falcon_ray.trial.protocols import Endpoint, LoadHealth, LoadSession
from falcon_ray.trial.requests import MS_PER_S, RequestLog

logger = logging.getLogger(__name__)

OPEN_LOOP_MARGIN_S = 0.05
"""From asking the drivers to start until the first request may be due."""


class ServeEndpoint(Endpoint, Protocol):
    """An endpoint that is a Serve application."""

    @property
    def app_name(self) -> str:
        """Name of the application."""
        ...

    @property
    def method(self) -> str:
        """Method of the ingress that answers a request through a handle."""
        ...

    @property
    def url(self) -> str:
        """Where the application answers HTTP, as seen from any node that has a replica."""
        ...

    def processes(self) -> Sequence[tuple[str, int]]:
        """Ray node and process id of every replica."""
        ...

    def replica_actors(self) -> Sequence[str]:
        """Name of the actor of every replica that serves now."""
        ...


class DriverLoad:
    """Load that driver actors send; the base of the paths outside of the replicas.

    Args:
        drivers: Who sends.
        route: Where an endpoint's requests go.
    """

    def __init__(self, drivers: DriverPool, route: Callable[[ServeEndpoint], Route]) -> None:
        self._drivers = drivers
        self._route = route
        self._placed: list[PlacedDriver] = []

    @contextmanager
    def closed_loop(self, endpoint: ServeEndpoint, *, concurrency: int) -> Iterator[LoadSession]:
        """See `LoadGenerator.closed_loop`."""
        placed = self._open(endpoint)
        shares = even_shares(concurrency, len(placed))
        with _session(
            placed,
            [
                driver.actor.start_closed_loop.remote(share)
                for driver, share in zip(placed, shares, strict=True)
            ],
        ) as session:
            yield session

    @contextmanager
    def open_loop(
        self, endpoint: ServeEndpoint, *, arrivals_s: FloatArray
    ) -> Iterator[LoadSession]:
        """See `LoadGenerator.open_loop`; arrivals are dealt to the drivers in turn."""
        placed = self._open(endpoint)
        start_s = time.monotonic() + OPEN_LOOP_MARGIN_S
        n = len(placed)
        with _session(
            placed,
            [
                driver.actor.start_open_loop.remote(arrivals_s[i::n] + start_s + driver.offset_s)
                for i, driver in enumerate(placed)
            ],
        ) as session:
            yield session

    def add_drivers(self) -> bool:
        """See `LoadGenerator.add_drivers`."""
        return self._drivers.grow()

    def last_error(self) -> str:
        """See `LoadGenerator.last_error`."""
        return words_of(_failures(self._placed))

    def lost_replica(self) -> bool:
        """See `LoadGenerator.lost_replica`."""
        return any(each.loss for each in _failures(self._placed))

    def response_metrics(self) -> Mapping[str, float]:
        """See `LoadGenerator.response_metrics`; over all answers of the latest session."""
        said = _ask("asking the drivers", [each.actor.response_sums for each in self._placed])
        n_read = sum(each.n_read for each in said)
        names = dict.fromkeys(name for each in said for name in each.sums)
        return {name: sum(each.sums.get(name, 0.0) for each in said) / n_read for name in names}

    def _open(self, endpoint: ServeEndpoint) -> list[PlacedDriver]:
        self._placed = []
        placed = self._drivers.place([node for node, _ in endpoint.processes()])
        route = self._route(endpoint)
        with ray_failures("getting ready to send"):
            troubles = ray.get(
                [driver.actor.open.remote(route) for driver in placed],
                timeout=CALL_TIMEOUT_S,
            )
        _raise_any(troubles)
        self._placed = placed
        return placed


def handle_load(drivers: DriverPool) -> DriverLoad:
    """Load through a deployment handle."""
    return DriverLoad(
        drivers,
        lambda endpoint: HandleRoute(endpoint.app_name, endpoint.method, endpoint.replicas()),
    )


def http_load(drivers: DriverPool, body: HttpBody) -> DriverLoad:
    """Load by HTTP POST to Serve's proxy."""
    return DriverLoad(
        drivers, lambda endpoint: HttpRoute(endpoint.url, body.content, body.content_type)
    )


class InsideLoad:
    """Load that the replicas send to themselves, before their batching queues.

    One driver collects what they report.

    Args:
        drivers: Of whom the first collects.
    """

    def __init__(self, drivers: DriverPool) -> None:
        self._drivers = drivers
        self._placed: list[PlacedDriver] = []

    @contextmanager
    def closed_loop(self, endpoint: ServeEndpoint, *, concurrency: int) -> Iterator[LoadSession]:
        """See `LoadGenerator.closed_loop`; an even share of it in each replica."""
        self._placed = []
        replicas = endpoint.replica_actors()
        shares = even_shares(concurrency, len(replicas))
        with self._inside(
            endpoint, replicas, [Share(concurrency=share) for share in shares]
        ) as session:
            yield session

    @contextmanager
    def open_loop(
        self, endpoint: ServeEndpoint, *, arrivals_s: FloatArray
    ) -> Iterator[LoadSession]:
        """See `LoadGenerator.open_loop`; arrivals are dealt to the replicas in turn."""
        self._placed = []
        replicas = endpoint.replica_actors()
        n = len(replicas)
        shares = [Share(arrivals_s=arrivals_s[i::n]) for i in range(n)]
        with self._inside(endpoint, replicas, shares) as session:
            yield session

    def add_drivers(self) -> bool:
        """See `LoadGenerator.add_drivers`; there is one to each replica, as it must be."""
        return False

    def last_error(self) -> str:
        """See `LoadGenerator.last_error`."""
        return words_of(_failures(self._placed))

    def lost_replica(self) -> bool:
        """See `LoadGenerator.lost_replica`."""
        return any(each.loss for each in _failures(self._placed))

    def response_metrics(self) -> Mapping[str, float]:
        """See `LoadGenerator.response_metrics`; nobody reads what a replica tells itself."""
        return {}

    @contextmanager
    def _inside(
        self, endpoint: ServeEndpoint, replicas: Sequence[str], shares: list[Share]
    ) -> Iterator[LoadSession]:
        if not shares:
            raise TrialFailedError("no replica is there to be loaded from inside")
        placed = self._drivers.place([node for node, _ in endpoint.processes()])
        offsets_s = {driver.node: driver.offset_s for driver in placed}
        first = placed[0]
        self._placed = [first]
        started = first.actor.start_inside.remote(list(replicas), shares, offsets_s, first.offset_s)
        with _session([PlacedDriver(first.actor, first.node, 0.0)], [started]) as session:
            yield session


def even_shares(total: int, n: int) -> list[int]:
    """A total in `n` parts that differ by one at most."""
    return [total // n + (i < total % n) for i in range(n)]


def words_of(failures: Sequence[Failures]) -> str:
    """What says most of what failed: the loss of a replica, else the latest failed request."""
    said = (each.last_error for each in failures if each.last_error)
    return telling(each.loss for each in failures) or next(said, "")


class _Session:
    """A load that goes on in driver actors."""

    def __init__(self, placed: Sequence[PlacedDriver]) -> None:
        self._placed = placed

    def run_for(self, seconds: float) -> RequestLog:
        """See `LoadSession.run_for`."""
        calls = [driver.actor.collect.remote(seconds) for driver in self._placed]
        with ray_failures("collecting the load"):
            said: list[Collected] = ray.get(calls, timeout=CALL_TIMEOUT_S + seconds)
        _raise_any(each.trouble for each in said)
        return RequestLog.concat(
            _log(each.rows, driver.offset_s)
            for each, driver in zip(said, self._placed, strict=True)
        )

    def health(self) -> LoadHealth:
        """See `LoadSession.health`."""
        said = _ask("asking the drivers", [driver.actor.efforts for driver in self._placed])
        return health_of([effort for each in said for effort in each])


def health_of(efforts: Sequence[Effort]) -> LoadHealth:
    """Whether the processes that send kept up, given what each of them did."""
    return LoadHealth(
        n_drivers=len(efforts),
        lag_ms=max((MS_PER_S * e.lag_s / e.n_due for e in efforts if e.n_due), default=0.0),
        cpu_share=max((e.cpu_s / e.wall_s for e in efforts if e.wall_s > 0), default=0.0),
        in_flight=sum(e.in_flight for e in efforts),
        oldest_in_flight_s=max((e.oldest_s for e in efforts), default=0.0),
    )


@contextmanager
def _session(placed: Sequence[PlacedDriver], started: list[Any]) -> Iterator[LoadSession]:
    try:
        with ray_failures("starting the load"):
            troubles = ray.get(started, timeout=CALL_TIMEOUT_S)
        _raise_any(troubles)
        yield _Session(placed)
    except BaseException:
        # What ended the load says more than that it could not be stopped either.
        try:
            _stop(placed)
        except TrialFailedError as error:
            logger.warning("%s", error)
        raise
    _stop(placed)


def _raise_any(troubles: Iterable[str | None]) -> None:
    if trouble := next((each for each in troubles if each), ""):
        raise TrialFailedError(trouble)


def _stop(placed: Sequence[PlacedDriver]) -> None:
    _ask("stopping the load", [driver.actor.stop for driver in placed])


def _failures(placed: Sequence[PlacedDriver]) -> list[Failures]:
    """What failed, as far as the drivers can still say it."""
    asked = [driver.actor.failures.remote() for driver in placed]
    said: list[Failures] = []
    for each in asked:
        try:
            said += _got("asking a driver", [each])
        except TrialFailedError as error:
            logger.warning("%s", error)
    return said


def _ask(doing: str, methods: list[Any]) -> list[Any]:
    return _got(doing, [method.remote() for method in methods])


def _got(doing: str, asked: list[Any]) -> list[Any]:
    with ray_failures(doing):
        return ray.get(asked, timeout=CALL_TIMEOUT_S)


def _log(rows: FloatArray, offset_s: float) -> RequestLog:
    times = rows[:, :3] - offset_s
    return RequestLog(
        intended_s=times[:, 0], sent_s=times[:, 1], done_s=times[:, 2], ok=rows[:, 3].astype(bool)
    )
