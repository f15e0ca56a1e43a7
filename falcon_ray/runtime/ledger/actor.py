"""The actor that admits trials to a cluster: one per cluster, shared by all searches on it.

It carries out what `admission.py` decides: it looks at the nodes, has the autoscaler add some by
placement groups, and lets those wait that ask. It does not decide who comes first, and knows no
configuration and no search.

Its state is what the trials tell it: an actor that was started again learns of every lease by the
next sign of life of its trial.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from falcon_ray.runtime.job_package import own_version
from falcon_ray.runtime.ledger.admission import Admission
from falcon_ray.runtime.ledger.contract import Answer, Ask, AskState, LedgerNode, NodeType
from falcon_ray.runtime.ledger.janitor import Janitor, app_of
from falcon_ray.runtime.ledger.line import LineCounts
from falcon_ray.runtime.ledger.presence import Presence
from falcon_ray.space.demand import Demand

logger = logging.getLogger(__name__)

REFRESH_S = 0.5
"""Between two looks at the nodes."""
SWEEP_S = 5.0
"""Between two looks for what was left behind."""
SETTLED = frozenset({AskState.GRANTED, AskState.INFEASIBLE, AskState.UNAVAILABLE, AskState.UNKNOWN})


class NodeWatch(Protocol):
    """Sees the cluster."""

    def nodes(self) -> Sequence[LedgerNode]:
        """The nodes that are there."""
        ...

    def types(self) -> Sequence[NodeType]:
        """Those that the autoscaler can add."""
        ...


class Provisioner(Protocol):
    """Has the autoscaler add nodes."""

    def want(self, demands: Mapping[str, Demand]) -> None:
        """Ask for nodes that hold these demands, by lease, and for no others any more."""
        ...


@dataclass(frozen=True, slots=True)
class LedgerParts:
    """What the ledger acts through.

    Attributes:
        watch: Sees the nodes.
        provisioner: Has some added.
        janitor: Removes what no lease stands for.
        on_counts: Told what `Admission.counts` says after each look.
        clock: Monotonic seconds.
    """

    watch: NodeWatch
    provisioner: Provisioner
    janitor: Janitor
    on_counts: Callable[[Mapping[str, LineCounts]], None] = lambda _: None
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True, slots=True)
class LedgerAbout:
    """What a search of another version has to know.

    Attributes:
        version: Of falcon_ray, whose code the ledger runs.
        n_searches: That are at work.
    """

    version: str
    n_searches: int


class Ledger:
    """The actor behind `client.py`; every method may be called again to no further effect.

    Args:
        parts: What it acts through.
        lease_s: How long a trial may be silent before its lease ends.
        grants_after_s: How long nothing is granted: a ledger that was started again first hears
            from the trials that hold something.
    """

    def __init__(self, parts: LedgerParts, *, lease_s: float, grants_after_s: float = 0.0) -> None:
        self._parts = parts
        self._admission = Admission(lease_s=lease_s, grants_from_s=parts.clock() + grants_after_s)
        self._presence = Presence()
        self._changed, self._deciding = asyncio.Condition(), asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []

    async def alive(self, ask: Ask, node_ids: tuple[str, ...], wait_s: float = 0.0) -> Answer:
        """A sign of life of a trial, which asks by it, and keeps what it has.

        Args:
            ask: What the trial asks for, or has.
            node_ids: What it was granted; empty while it waits.
            wait_s: How long to wait for another answer than that it has to wait.
        """
        await self._start()
        now_s = self._parts.clock()
        self._presence.hear(ask.search_id, now_s)
        if node_ids:
            return self._admission.restore(ask, node_ids, now_s)
        self._admission.ask(ask, now_s)
        self._admission.tick(now_s)
        before = self._admission.answer(ask.lease_id)
        if before.state in SETTLED or wait_s <= 0:
            return before
        return await self._other_answer(ask.lease_id, before, wait_s)

    async def give_back(self, lease_id: str) -> None:
        """A trial has ended, and needs nothing any more."""
        await self._start()
        self._admission.give_back(lease_id, self._parts.clock())
        await self._decide()

    async def end_app(self, app_name: str) -> None:
        """Give back whatever is held for an application whose trial is known to be gone."""
        for lease_id in self._admission.known():
            if app_of(lease_id) == app_name:
                self._admission.give_back(lease_id, self._parts.clock())
        await self._decide()

    async def about(self) -> LedgerAbout:
        """Whose code this is, and who uses it."""
        return LedgerAbout(own_version(), self._presence.n_at_work(self._parts.clock()))

    async def join(self, search_id: str) -> None:
        """A search begins; it waits while another one that has left ends Serve."""
        wait_s = self._presence.wait_s(self._parts.clock())
        async with self._changed:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._changed.wait_for(
                        lambda: not self._presence.wait_s(self._parts.clock())
                    )
        self._presence.join(search_id, self._parts.clock())

    async def started_serve(self) -> None:
        """See `Presence.started_serve`."""
        self._presence.started_serve()

    async def leave(self, search_id: str) -> bool:
        """A search ends; see `Presence.leave`."""
        return self._presence.leave(search_id, self._parts.clock())

    async def ended_serve(self) -> None:
        """The search that was told to end Serve has done so; others may join."""
        self._presence.ended_serve()
        async with self._changed:
            self._changed.notify_all()

    async def counts(self) -> Mapping[str, LineCounts]:
        """See `Admission.counts`."""
        return self._admission.counts()

    async def _start(self) -> None:
        """Begin to look around, at the first call; a constructor has no event loop to do it in."""
        if self._tasks:
            return
        loops = (self._look_around(), self._sweep())
        self._tasks = [asyncio.create_task(each) for each in loops]
        await self._look()

    async def _look_around(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_S)
            await self._look()

    async def _look(self) -> None:
        """Look at the nodes; a look that fails is made up for by the next, and asks wait for it."""
        try:
            await self._learn()
        except Exception as error:  # noqa: BLE001 - it is no fault of the trial that calls
            logger.warning("looking at the nodes failed: %s", error)

    async def _learn(self) -> None:
        watch = self._parts.watch
        nodes, types = await asyncio.gather(
            asyncio.to_thread(watch.nodes), asyncio.to_thread(watch.types)
        )
        self._admission.nodes_changed(tuple(nodes), tuple(types), self._parts.clock())
        await self._decide()
        self._parts.on_counts(self._admission.counts())

    async def _decide(self) -> None:
        async with self._deciding:
            self._admission.tick(self._parts.clock())
            wanted = {each.lease_id: each.demand for each in self._admission.wanted()}
            try:
                await asyncio.to_thread(self._parts.provisioner.want, wanted)
            except Exception as error:  # noqa: BLE001 - it is asked for again at the next look
                logger.warning("asking for nodes failed: %s", error)
        async with self._changed:
            self._changed.notify_all()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            held = self._admission.known()
            try:
                await asyncio.to_thread(self._parts.janitor.sweep, held, self._parts.clock())
            except Exception as error:  # noqa: BLE001 - it is swept again
                logger.warning("looking for what was left behind failed: %s", error)

    async def _other_answer(self, lease_id: str, before: Answer, wait_s: float) -> Answer:
        def differs() -> bool:
            return self._admission.answer(lease_id) != before

        async with self._changed:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._changed.wait_for(differs)
        return self._admission.answer(lease_id)
