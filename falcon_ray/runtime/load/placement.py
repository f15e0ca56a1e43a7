"""Where load drivers run: beside the replicas, as many as the load needs.

It knows nodes, their clocks and the actors on them. It does not know what these send.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import ray
from ray.exceptions import RayActorError

from falcon_ray.runtime.faults import ray_failures

logger = logging.getLogger(__name__)

CLIENTS_PER_DRIVER = 128
MAX_DRIVERS = 16
DRIVERS_PER_CPU = 4
CALL_TIMEOUT_S = 60.0
ANSWER_TIMEOUT_S = 5.0
"""A driver that was up and is silent for so long is of no more use."""
CLOCK_ROUND_TRIPS = 7


@dataclass(frozen=True, slots=True)
class PlacedDriver:
    """A driver, where it runs, and how far its clock is ahead of this process's."""

    actor: Any
    """Handle of a `LoadDriver`: its methods, with `remote` on each."""
    node: str
    offset_s: float


def drivers_by_node(
    nodes: Sequence[str], *, n_clients: int, factor: int, cpus: Mapping[str, float]
) -> dict[str, int]:
    """How many drivers each node gets: at least one, and no more than it can run.

    Args:
        nodes: Where drivers are wanted; at least one.
        n_clients: Requests in flight that have to be supported, over all nodes.
        factor: How many times as many drivers as the clients need.
        cpus: CPUs by node; of a node that is not there, one.
    """
    distinct = list(dict.fromkeys(nodes))
    needed = max(len(distinct), -(-n_clients // CLIENTS_PER_DRIVER)) * factor
    most = max(1, MAX_DRIVERS // len(distinct))
    each = min(most, -(-needed // len(distinct)))
    return {
        node: max(1, min(each, int(DRIVERS_PER_CPU * cpus.get(node, 1.0)))) for node in distinct
    }


def clock_offset_s(
    ask: Callable[[], float], *, clock: Callable[[], float], round_trips: int = CLOCK_ROUND_TRIPS
) -> float:
    """How far another clock is ahead, by the midpoint of the quickest of several round trips.

    Off by at most half of that round trip (Cristian, 1989).

    Args:
        ask: Reads the other clock; takes a while.
        clock: Reads this one.
        round_trips: How often to ask.
    """
    quickest_s, offset_s = float("inf"), 0.0
    for _ in range(round_trips):
        sent = clock()
        other = ask()
        received = clock()
        if received - sent < quickest_s:
            quickest_s = received - sent
            offset_s = other - (sent + received) / 2
    return offset_s


class DriverSource(Protocol):
    """Where drivers come from."""

    def drivers(self, borrower: str, node: str, n: int) -> list[Any]:
        """So many drivers on a node, beyond those that the borrower has; not waited for."""
        ...

    def end(self, borrower: str, drivers: Sequence[Any]) -> None:
        """These are of no more use."""
        ...


class DriverPool:
    """The driver actors of one trial; none before it is known on which nodes they are wanted.

    Args:
        source: Where they come from, and go when the trial has ended.
        borrower: Name of the trial to it.
        concurrency: Requests in flight that have to be supported.
    """

    def __init__(self, source: DriverSource, borrower: str, *, concurrency: int) -> None:
        self._source = source
        self._borrower = borrower
        self._n_clients = concurrency
        self._factor = 1
        self._here = ray.get_runtime_context().get_node_id()
        self._nodes: tuple[str, ...] = (self._here,)
        self._actors: dict[str, list[Any]] = {}
        self._up: set[Any] = set()

    def start_on(self, nodes: Sequence[str]) -> None:
        """Start the first drivers on these nodes, and do not wait for them: the app starts as well.

        An earlier attempt may have been elsewhere; its drivers are ended.

        Args:
            nodes: Where replicas will be; none for this process's own node.

        Raises:
            TrialFailedError: Ray does not say what the nodes have.
        """
        self._nodes = tuple(dict.fromkeys(nodes)) or (self._here,)
        with ray_failures("starting the load drivers"):
            for node in self._actors.keys() - set(self._nodes):
                self._end(self._actors.pop(node))
            self._start(self._wanted(self._factor))

    def place(self, nodes: Sequence[str]) -> list[PlacedDriver]:
        """Drivers on these nodes, all of them up, in the place of any that died.

        Raises:
            TrialFailedError: One cannot be started.
        """
        self._nodes = tuple(dict.fromkeys(nodes)) or (self._here,)
        wanted = self._wanted(self._factor)
        placed: list[PlacedDriver] = []
        with ray_failures("starting the load drivers"):
            for node in wanted:
                actors = self._actors.get(node, [])
                actors[:] = [actor for actor in actors if self._is_alive(actor)]
            self._start(wanted)
            for node, n in wanted.items():
                actors = self._actors[node][:n]
                ray.get([actor.ready.remote() for actor in actors], timeout=CALL_TIMEOUT_S)
                self._up |= set(actors)
                offset_s = self._offset_s(node, actors[0])
                placed += [PlacedDriver(actor, node, offset_s) for actor in actors]
        return placed

    def grow(self) -> bool:
        """Twice as many drivers from the next placing on; False where no more help."""
        more = self._wanted(2 * self._factor)
        if sum(more.values()) == sum(self._wanted(self._factor).values()):
            return False
        self._factor *= 2
        return True

    def _wanted(self, factor: int) -> dict[str, int]:
        return drivers_by_node(
            self._nodes, n_clients=self._n_clients, factor=factor, cpus=_cpus_by_node()
        )

    def _start(self, wanted: Mapping[str, int]) -> None:
        for node, n in wanted.items():
            actors = self._actors.setdefault(node, [])
            if len(actors) < n:
                actors += self._source.drivers(self._borrower, node, n - len(actors))

    def _end(self, actors: Sequence[Any]) -> None:
        self._source.end(self._borrower, actors)
        self._up -= set(actors)

    def _is_alive(self, actor: Any) -> bool:  # noqa: ANN401 - an actor's handle
        """Whether a driver answers; one that does not is ended. One that starts may take longer."""
        timeout_s = ANSWER_TIMEOUT_S if actor in self._up else CALL_TIMEOUT_S
        try:
            ray.get(actor.ready.remote(), timeout=timeout_s)
        except RayActorError as error:
            logger.info("a load driver is gone: %s", error)
        except TimeoutError:
            logger.warning("a load driver did not answer for %g s; it is replaced", timeout_s)
        else:
            return True
        self._end([actor])
        return False

    def _offset_s(self, node: str, actor: Any) -> float:  # noqa: ANN401 - an actor's handle
        if node == self._here:
            return 0.0  # one node has one monotonic clock
        return clock_offset_s(
            lambda: ray.get(actor.clock.remote(), timeout=CALL_TIMEOUT_S), clock=time.monotonic
        )


def _cpus_by_node() -> dict[str, float]:
    return {
        node["NodeID"]: node["Resources"].get("CPU", 1.0) for node in ray.nodes() if node["Alive"]
    }
