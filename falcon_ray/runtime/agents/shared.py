"""Load drivers and watches as Ray actors: of one trial, or of all trials of a search.

An actor dies with the process that made it. So those of a search are made by an actor of the
search's, and outlive a trial's process.
"""

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from falcon_ray.runtime.agents.stock import Agents, AgentStock, Making
from falcon_ray.runtime.faults import ray_failures
from falcon_ray.runtime.load.driver import LoadDriver
from falcon_ray.runtime.monitors.watch_actor import WatchActor
from falcon_ray.runtime.references import Reference

logger = logging.getLogger(__name__)

ASK_TIMEOUT_S = 60.0
SWEEP_S = 2.0
MAX_RESTARTS = 3


@contextmanager
def own_agents(
    request: ray.ObjectRef, response_metrics: Reference | None = None
) -> Iterator[AgentStock]:
    """Processes that this one makes; they are ended on exit.

    Args:
        request: The example request in Ray's object store.
        response_metrics: A function from one answer to numbers by name, or None.
    """

    def driver(node: str) -> Any:  # noqa: ANN401 - an actor's handle
        return _load_driver(node, request, response_metrics)

    stock = AgentStock(Making(driver=driver, watch=_watch, end=_end), time.monotonic)
    try:
        yield stock
    finally:
        stock.close()


@contextmanager
def search_agents(
    request: ray.ObjectRef, response_metrics: Reference | None = None
) -> Iterator[Agents]:
    """The same for several trials, in whatever process each runs."""
    here = ray.get_runtime_context().get_node_id()
    stock: Any = (
        ray.remote(SharedStock)
        .options(
            num_cpus=0,
            max_restarts=MAX_RESTARTS,
            # Where a search runs is the head, as a rule, and no node that comes and goes.
            scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=True),
        )
        .remote()
    )
    try:
        yield SharedAgents(stock, request, response_metrics)
    finally:
        with suppress(RayError, TimeoutError):
            ray.get(stock.close.remote(), timeout=ASK_TIMEOUT_S)
        ray.kill(stock)


@dataclass(frozen=True, slots=True)
class SharedAgents:
    """See `Agents`; a search's, asked from the process of any trial.

    Attributes:
        stock: Handle of a `SharedStock`.
        request: The example request in Ray's object store.
        response_metrics: A function from one answer to numbers by name, or None.
    """

    stock: Any
    request: ray.ObjectRef
    response_metrics: Reference | None

    def drivers(self, borrower: str, node: str, n: int) -> list[Any]:
        """See `Agents.drivers`."""
        # In a list, so that Ray leaves the request where it is; with every call, as a stock that
        # has started again knows nothing.
        wanted = self.stock.drivers.remote(borrower, node, n, [self.request], self.response_metrics)
        with ray_failures("asking for load drivers"):
            return ray.get(wanted, timeout=ASK_TIMEOUT_S)

    def watch(self, borrower: str, node: str) -> Any:  # noqa: ANN401 - an actor's handle
        """See `Agents.watch`."""
        with ray_failures("asking for a node's watch"):
            return ray.get(self.stock.watch.remote(borrower, node), timeout=ASK_TIMEOUT_S)

    def end(self, borrower: str, drivers: Sequence[Any]) -> None:
        """See `Agents.end`."""
        self.stock.end.remote(borrower, list(drivers))

    def give_back(self, borrower: str) -> None:
        """See `Agents.give_back`."""
        self.stock.give_back.remote(borrower)

    def forget(self, borrower: str) -> None:
        """See `Agents.forget`."""
        self.stock.forget.remote(borrower)


class SharedStock:
    """An `AgentStock` as an asyncio actor, which ends what is idle for long."""

    def __init__(self) -> None:
        self._wanted: tuple[ray.ObjectRef, Reference | None] | None = None
        making = Making(driver=self._driver, watch=_watch, end=_end)
        self._stock = AgentStock(making, time.monotonic)
        self._sweeping: asyncio.Task[None] | None = None

    async def drivers(
        self,
        borrower: str,
        node: str,
        n: int,
        request: Sequence[ray.ObjectRef],
        response_metrics: Reference | None,
    ) -> list[Any]:
        """See `Agents.drivers`; a search's trials all send the same request."""
        self._start()
        self._wanted = (request[0], response_metrics)
        return self._stock.drivers(borrower, node, n)

    async def watch(self, borrower: str, node: str) -> Any:  # noqa: ANN401 - an actor's handle
        """See `Agents.watch`."""
        self._start()
        return self._stock.watch(borrower, node)

    async def end(self, borrower: str, drivers: Sequence[Any]) -> None:
        """See `Agents.end`."""
        self._stock.end(borrower, drivers)

    async def give_back(self, borrower: str) -> None:
        """See `Agents.give_back`."""
        self._stock.give_back(borrower)

    async def forget(self, borrower: str) -> None:
        """See `Agents.forget`."""
        self._stock.forget(borrower)

    async def close(self) -> None:
        """See `AgentStock.close`."""
        self._stock.close()

    def _start(self) -> None:
        """Begin to sweep, at the first call; a constructor has no event loop to do it in."""
        if self._sweeping is None:
            self._sweeping = asyncio.create_task(self._sweep())

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self._stock.sweep()

    def _driver(self, node: str) -> Any:  # noqa: ANN401 - an actor's handle
        assert self._wanted is not None, "drivers() has said what they send"
        return _load_driver(node, *self._wanted)


def _load_driver(node: str, request: ray.ObjectRef, metrics: Reference | None) -> Any:  # noqa: ANN401
    return ray.remote(LoadDriver).options(**_on(node)).remote(request, metrics)


def _watch(node: str) -> Any:  # noqa: ANN401 - an actor's handle
    return ray.remote(WatchActor).options(**_on(node)).remote()


def _on(node: str) -> dict[str, Any]:
    """On that node, and taking nothing of it that Ray counts."""
    return {
        "num_cpus": 0,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False),
    }


def _end(actor: Any) -> None:  # noqa: ANN401 - an actor's handle
    try:
        ray.kill(actor)
    except RayError as error:
        logger.info("an actor beside a replica could not be ended: %s", error)
