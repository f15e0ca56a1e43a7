"""Load on an asyncio loop: sends one request again and again, and records each one.

It knows when to send and how well it kept up. It does not know what a request is or where it
goes: `send` is a function that returns when one is answered and raises when it failed.

All times are of one monotonic clock, the one of the node that it runs on.
"""

import asyncio
import time
import types
from array import array
from collections.abc import Awaitable, Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from falcon_ray.space.configuration import FloatArray

REQUEST_TIMEOUT_S = 30.0
"""An open-loop request without an answer by then has failed."""

BEAT_S = 0.02
FAILURE_PAUSE_S = 0.01
"""What fails at once would otherwise be sent as fast as the client can."""
YIELD_EVERY = 16
"""Requests in a row after which others get their turn, also where nothing has to be waited for."""
STOP_TIMEOUT_S = 2.0

Send: TypeAlias = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """What sending took, since the last asking; the sums of several askings may be added.

    Attributes:
        lag_s: Sum of how late what was due was done.
        n_due: How many things were due.
        cpu_s: CPU time.
        wall_s: Time.
        in_flight: Requests without an answer now.
        oldest_s: How long the oldest of these has waited.
    """

    lag_s: float = 0.0
    n_due: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0
    in_flight: int = 0
    oldest_s: float = 0.0

    def then(self, later: "Effort") -> "Effort":
        """This effort and the one after it as one."""
        return Effort(
            lag_s=self.lag_s + later.lag_s,
            n_due=self.n_due + later.n_due,
            cpu_s=self.cpu_s + later.cpu_s,
            wall_s=self.wall_s + later.wall_s,
            in_flight=later.in_flight,
            oldest_s=later.oldest_s,
        )


class LoadCore:
    """One session of load; start it once, and `stop` it.

    In its own process, the CPU time is that of all the process's threads, as a Serve handle
    works in several, and its lag is that of a heartbeat, or in open loop of each request.

    Inside a replica the model computes in the same thread and lets nothing else run meanwhile;
    neither says anything of the load there. With `shares_thread`, the CPU time is that of the
    load's own steps, and a heartbeat is late only by what these took.

    Args:
        send: Sends one request.
        on_failure: Told of every request that fails.
        clock: Monotonic seconds.
        timeout_s: When an open-loop request has failed.
        shares_thread: Whether what is loaded computes in this thread.
    """

    def __init__(
        self,
        send: Send,
        *,
        on_failure: Callable[[Exception], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        timeout_s: float = REQUEST_TIMEOUT_S,
        shares_thread: bool = False,
    ) -> None:
        self._send = send
        self._on_failure = on_failure
        self._clock = clock
        self._timeout_s = timeout_s
        self._shares_thread = shares_thread
        self._rows = array("d")
        self._in_flight: dict[int, float] = {}  # ascending times, as a dict keeps its order
        self._tasks: set[asyncio.Task[None]] = set()
        self._all_sent = False
        self._done = asyncio.Event()
        self._lag_s, self._n_due = 0.0, 0
        self._own_cpu_s = 0.0
        self._asked_s, self._asked_cpu_s = clock(), self._cpu_s()

    @property
    def is_done(self) -> bool:
        """Whether every request of an open loop has ended; never in closed loop."""
        return self._done.is_set()

    def start_closed_loop(self, concurrency: int) -> None:
        """Keep `concurrency` requests in flight."""
        self._task(self._beat())
        for slot in range(concurrency):
            self._task(self._metered(self._client(slot)))

    def start_open_loop(self, due_s: FloatArray) -> None:
        """Send one request at each time of the clock; ascending, shape (n,)."""
        if self._shares_thread:
            self._task(self._beat())
        self._task(self._metered(self._schedule(due_s)))

    async def wait(self, seconds: float) -> None:
        """Return after that long, or once an open loop is done."""
        if self.is_done:
            return
        # Not `wait_for`, which would wait on where the loop is too busy to cancel in time.
        waiting = asyncio.ensure_future(self._done.wait())
        try:
            await asyncio.wait([waiting], timeout=seconds)
        finally:
            waiting.cancel()

    def take(self) -> FloatArray:
        """The requests that ended since the last call: due, sent, done, ok; shape (n, 4)."""
        rows, self._rows = self._rows, array("d")
        return np.frombuffer(rows, dtype=np.float64).reshape(-1, 4)

    def effort(self) -> Effort:
        """What sending took since the last call."""
        now, cpu_s = self._clock(), self._cpu_s()
        effort = Effort(
            lag_s=self._lag_s,
            n_due=self._n_due,
            cpu_s=cpu_s - self._asked_cpu_s,
            wall_s=now - self._asked_s,
            in_flight=len(self._in_flight),
            oldest_s=max(0.0, now - next(iter(self._in_flight.values()), now)),
        )
        self._lag_s, self._n_due = 0.0, 0
        self._asked_s, self._asked_cpu_s = now, cpu_s
        return effort

    async def stop(self) -> None:
        """Give up what is in flight; it leaves no record."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_TIMEOUT_S)
        self._in_flight.clear()

    async def _client(self, slot: int) -> None:
        clock, send, in_flight = self._clock, self._send, self._in_flight
        n = 0
        while True:
            sent = in_flight[slot] = clock()
            try:
                await send()
                failure = None
            except Exception as error:  # noqa: BLE001 - the target may raise anything
                failure = error
            done = clock()
            in_flight.pop(slot, None)
            self._rows.extend((sent, sent, done, failure is None))
            if failure is not None:
                self._on_failure(failure)
                await asyncio.sleep(FAILURE_PAUSE_S)
            n += 1
            if n % YIELD_EVERY == 0:
                await asyncio.sleep(0)

    async def _schedule(self, due_s: FloatArray) -> None:
        for i, due in enumerate(due_s.tolist()):
            if (wait_s := due - self._clock()) > 0:
                await asyncio.sleep(wait_s)
                # A timer of whole milliseconds may ring up to half of one early; the request
                # then arrives that much earlier, as none is done before it was due.
                due = min(due, self._clock())  # noqa: PLW2901 - the moment it is really due
            elif i % YIELD_EVERY == 0:
                await asyncio.sleep(0)
            self._in_flight[i] = due
            self._task(self._metered(self._request(i, due)))
        self._all_sent = True
        self._finish()

    async def _request(self, i: int, due: float) -> None:
        sent = self._clock()
        failure: Exception | None = None
        limit = asyncio.timeout(self._timeout_s)
        try:
            async with limit:
                await self._send()
        except Exception as error:  # noqa: BLE001 - the target may raise anything
            failure = error
            if limit.expired():
                failure = TimeoutError(f"no answer within {self._timeout_s:g} s")
        self._rows.extend((due, sent, self._clock(), failure is None))
        self._in_flight.pop(i, None)
        if not self._shares_thread:
            self._late_by(sent - due)
        if failure is not None:
            self._on_failure(failure)
        self._finish()

    def _finish(self) -> None:
        if self._all_sent and not self._in_flight:
            self._done.set()

    async def _beat(self) -> None:
        while True:
            due, cpu_s = self._clock() + BEAT_S, self._cpu_s()
            await asyncio.sleep(BEAT_S)
            late_s = self._clock() - due
            self._late_by(min(late_s, self._cpu_s() - cpu_s) if self._shares_thread else late_s)

    def _late_by(self, seconds: float) -> None:
        self._lag_s += max(0.0, seconds)
        self._n_due += 1

    def _cpu_s(self) -> float:
        return self._own_cpu_s if self._shares_thread else time.process_time()

    def _task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _metered(self, work: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None]:
        return self._counted(work) if self._shares_thread else work

    async def _counted(self, work: Coroutine[Any, Any, None]) -> None:
        await self._steps(work)

    @types.coroutine
    def _steps(self, work: Coroutine[Any, Any, None]) -> Generator[Any, Any, None]:
        """Run a coroutine step by step, and count the CPU time of each."""
        thrown: BaseException | None = None
        while True:
            start_s = time.thread_time()
            try:
                waits_for = work.send(None) if thrown is None else work.throw(thrown)
            except StopIteration:
                return
            finally:
                self._own_cpu_s += time.thread_time() - start_s
            thrown = None
            try:
                yield waits_for
            except BaseException as error:  # noqa: BLE001 - handed on, as `await` would
                thrown = error
