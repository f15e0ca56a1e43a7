"""Load from inside the replicas: who loads which, and when all begin.

A collector calls every replica, and each joins it once it has come to that call. Once all have
joined they begin at one time, and each reports what it sent now and then for as long as the
collector wants more: a replica whose collector is gone ends by itself.

It does not know what a request is, nor how a replica is reached.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from falcon_ray.errors import InfeasibleCause
from falcon_ray.runtime.load.core import Effort, LoadCore, Send
from falcon_ray.space.configuration import FloatArray
from falcon_ray.trial.causes import cause_of

REPORT_S = 0.2
OVERDUE_S = 2 * REPORT_S
"""After so long without a report, what was in flight at the latest one still is."""
JOIN_TIMEOUT_S = 20.0
START_MARGIN_S = 0.05
"""What an answer takes to reach the last replica."""
STOP_TIMEOUT_S = 2.0
MAX_MESSAGE = 300
"""Characters of an error that are kept."""

_TIMES = np.array([1.0, 1.0, 1.0, 0.0])  # the columns of a record that an offset moves


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one replica shall send: a closed loop, or an open one where there are arrivals.

    Attributes:
        concurrency: Requests in flight.
        arrivals_s: Ascending seconds from the start, shape (n,), or None.
    """

    concurrency: int = 0
    arrivals_s: FloatArray | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a call to a replica says.

    Attributes:
        session: Which session this is of.
        call: Number of the call within it, one for each replica.
        share: What to send.
        collector: Handle of the actor that has the methods `join` and `deliver`.
    """

    session: str
    call: int
    share: Share
    collector: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a replica sent since its last report.

    Attributes:
        rows: As `LoadCore.take` gives them, on the clock of the replica's node.
        effort: As `LoadCore.effort` gives it.
        is_done: Whether it has nothing left to send.
        error: What the latest failed request said; empty where none failed.
    """

    rows: FloatArray
    effort: Effort
    is_done: bool
    error: str


async def load_from_inside(
    send: Send,
    order: Order,
    *,
    replica: str,
    node: str,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Load a replica as the collector wants; runs in that replica, in the thread that computes.

    Args:
        send: Sends one request to what is measured.
        order: What to send.
        replica: Identity of this replica.
        node: Where it runs.
        clock: Monotonic seconds.
    """
    start_s = await order.collector.join.remote(order.session, order.call, replica, node)
    if start_s is None:
        return
    errors = [""]

    def note(error: Exception) -> None:
        errors[0] = describe(error)

    core = LoadCore(send, on_failure=note, clock=clock, shares_thread=True)
    if order.share.arrivals_s is None:
        await asyncio.sleep(max(0.0, start_s - clock()))
        core.start_closed_loop(order.share.concurrency)
    else:
        core.start_open_loop(start_s + order.share.arrivals_s)
    try:
        wanted = True
        while wanted:
            await core.wait(REPORT_S)
            report = Report(
                rows=core.take(), effort=core.effort(), is_done=core.is_done, error=errors[0]
            )
            wanted = await order.collector.deliver.remote(order.session, order.call, report)
            if core.is_done:
                break
    finally:
        await core.stop()


def describe(error: Exception) -> str:
    """An error's type and the last line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1].strip()[:MAX_MESSAGE] if lines else ''}"


def describe_loss(error: Exception) -> str:
    """The same of an error that ended a process: the line that says that memory ran out, if any."""
    said = describe(error)
    if cause_of(said) is InfeasibleCause.MEMORY:
        return said
    lines = [line.strip() for line in str(error).splitlines()]
    of_memory = [line for line in lines if cause_of(line) is InfeasibleCause.MEMORY]
    return f"{type(error).__name__}: {of_memory[0][:MAX_MESSAGE]}" if of_memory else said


def telling(losses: Iterable[str]) -> str:
    """Of what was said of lost replicas, the first that blames memory, else the first of all."""
    said = [each for each in losses if each]
    of_memory = (each for each in said if cause_of(each) is InfeasibleCause.MEMORY)
    return next(of_memory, said[0] if said else "")


@dataclass(slots=True)
class _Member:
    """A replica that was found."""

    replica: str
    node: str
    heard_s: float
    effort: Effort
    is_done: bool = False


class Collector:
    """One session of load from inside a number of replicas; lives in an asyncio actor.

    Args:
        call: Sends a replica the order of its number and share, and returns when that is over.
        shares: What each replica shall send.
        offsets_s: By node, how far its clock is ahead of the clock that records shall have.
        own_offset_s: The same of the node that this runs on.
        clock: Monotonic seconds of that node.
        is_loss: Whether an error of a call means that its replica's process died.
    """

    def __init__(
        self,
        call: Callable[[int, Share], Awaitable[None]],
        shares: Sequence[Share],
        *,
        offsets_s: Mapping[str, float],
        own_offset_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        is_loss: Callable[[Exception], bool] = lambda _: False,
    ) -> None:
        self._call = call
        self._shares = tuple(shares)
        self._offsets_s = dict(offsets_s)
        self._own_offset_s = own_offset_s
        self._clock = clock
        self._is_loss = is_loss
        self._members: dict[int, _Member] = {}  # by number of the call
        self._tasks: set[asyncio.Task[None]] = set()
        self._complete, self._changed = asyncio.Event(), asyncio.Event()
        self._start_s = 0.0
        self._closed = False
        self._rows: list[FloatArray] = []
        self.error, self.loss, self.trouble = "", "", ""

    async def start(self) -> str:
        """Call every replica, and let all begin; why that cannot be, empty where it can."""
        for number, share in enumerate(self._shares):
            task = asyncio.get_running_loop().create_task(self._hold(number, share))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        deadline_s = self._clock() + JOIN_TIMEOUT_S
        while not self._complete.is_set() and not self.trouble:
            left_s = deadline_s - self._clock()
            if left_s <= 0:
                self.trouble = (
                    f"only {len(self._members)} of {len(self._shares)} replicas came to load "
                    f"themselves within {JOIN_TIMEOUT_S:g} s"
                )
            self._changed.clear()
            await _wait(self._changed, left_s)
        return self.trouble

    async def join(self, call: int, replica: str, node: str) -> float | None:
        """When a replica shall begin, on its own node's clock; None where it shall not at all."""
        if self._closed:
            return None
        if call in self._members:
            # Ray may send a call again whose replica died and was replaced.
            self._lost(f"the replica {self._members[call].replica} died under load")
            return None
        # One that is never heard of again hangs in the first requests.
        first = Effort(in_flight=max(1, self._shares[call].concurrency))
        self._members[call] = _Member(replica, node, self._clock(), first)
        if len(self._members) == len(self._shares):
            self._start_s = self._clock() - self._own_offset_s + START_MARGIN_S
            for member in self._members.values():
                member.heard_s = self._clock()
            self._complete.set()
            self._changed.set()
        await _wait(self._complete, JOIN_TIMEOUT_S)
        return None if self._closed else self._start_s + self._offsets_s.get(node, 0.0)

    async def deliver(self, call: int, report: Report) -> bool:
        """Take what a replica sent; whether it shall go on."""
        member = self._members.get(call)
        if self._closed or member is None:
            return False
        member.heard_s = self._clock()
        member.effort = member.effort.then(report.effort)
        member.is_done = report.is_done
        self._rows.append(report.rows - self._offsets_s.get(member.node, 0.0) * _TIMES)
        self.error = report.error or self.error
        if self.is_done:
            self._changed.set()
        return True

    @property
    def is_done(self) -> bool:
        """Whether no replica has anything left to send."""
        return self._complete.is_set() and all(each.is_done for each in self._members.values())

    async def wait(self, seconds: float) -> None:
        """Return after that long, or once all are done, or when something went wrong."""
        deadline_s = self._clock() + seconds
        while not (self.is_done or self.trouble) and (left_s := deadline_s - self._clock()) > 0:
            self._changed.clear()
            await _wait(self._changed, left_s)

    def take(self) -> FloatArray:
        """As `LoadCore.take`, of all replicas, on the clock that records shall have."""
        rows, self._rows = self._rows, []
        return np.concatenate([np.empty((0, 4)), *rows])

    def efforts(self) -> list[Effort]:
        """As `LoadCore.effort`, of each replica; one that is silent is waiting."""
        said: list[Effort] = []
        for member in self._members.values():
            effort = member.effort
            silent_s = self._clock() - member.heard_s
            if member.is_done or silent_s <= OVERDUE_S:
                silent_s = 0.0
            waited = Effort(
                in_flight=effort.in_flight,
                oldest_s=effort.oldest_s + silent_s if effort.in_flight else 0.0,
            )
            said.append(effort.then(waited))
            member.effort = Effort(in_flight=effort.in_flight, oldest_s=effort.oldest_s)
        return said

    async def stop(self) -> None:
        """End the load; a replica that hangs is left to itself."""
        self._closed = True
        self._complete.set()
        if self._tasks:
            _, hanging = await asyncio.wait(self._tasks, timeout=STOP_TIMEOUT_S)
            for task in hanging:
                task.cancel()

    async def _hold(self, call: int, share: Share) -> None:
        try:
            await self._call(call, share)
        except Exception as error:  # noqa: BLE001 - the call may raise anything
            if self._closed:
                return
            if self._is_loss(error):
                self._lost(f"a replica died under load ({describe_loss(error)})")
            else:
                self._fail(f"loading a replica from inside failed: {describe(error)}")
            return
        member = self._members.get(call)
        if member is not None and not (self._closed or member.is_done):
            self._lost(f"the replica {member.replica} ended its load by itself")

    def _lost(self, what: str) -> None:
        self.loss = telling((self.loss, what))
        self._fail(what)

    def _fail(self, what: str) -> None:
        self.trouble = self.trouble or what
        self._changed.set()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Return once an event came, or after that time."""
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait([waiting], timeout=max(0.0, seconds))
    finally:
        waiting.cancel()
