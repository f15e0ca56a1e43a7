"""The process that sends: one asyncio actor, alone or one of several.

A driver loads the deployment itself, by a transport, or collects what replicas send to
themselves. It does not know how many drivers there are, nor when it has been long enough.
"""

import asyncio
import secrets
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray

from falcon_ray.runtime import serve_apps
from falcon_ray.runtime.load.core import Effort, LoadCore
from falcon_ray.runtime.load.inside import (
    Collector,
    Order,
    Report,
    Share,
    describe,
    describe_loss,
    telling,
)
from falcon_ray.runtime.load.transport import (
    HandleRoute,
    HandleTransport,
    HttpTransport,
    RefusedError,
    Route,
    Transport,
    is_dead_replica,
)
from falcon_ray.runtime.references import Reference, load_reference
from falcon_ray.space.configuration import FloatArray

INSIDE_METHOD = "load"
"""Method of our own replicas that loads them from inside."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What a driver knows of its session.

    Attributes:
        rows: Requests that ended, on the clock that the session was started with; as
            `LoadCore.take` gives them.
        trouble: Why the session cannot go on; empty where it can.
    """

    rows: FloatArray
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Failures:
    """What failed in a driver's latest session.

    Attributes:
        last_error: What the latest failed request said; empty where none failed.
        loss: What one said whose replica's process died; empty where none did.
    """

    last_error: str = ""
    loss: str = ""


@dataclass(frozen=True, slots=True)
class ResponseSums:
    """Sums of the metrics that were read from a number of answers."""

    sums: dict[str, float]
    n_read: int


class LoadDriver:
    """Sends one example request again and again; an asyncio actor.

    Args:
        request: The example request; what a handle is called with.
        response_metrics: A function from one answer to numbers by name, or None.
    """

    def __init__(self, request: Any, response_metrics: Reference | None = None) -> None:  # noqa: ANN401
        self._request = request
        self._metrics_name = response_metrics.name if response_metrics else ""
        self._read_metrics = load_reference(response_metrics) if response_metrics else None
        self._sums: dict[str, float] = {}
        self._n_read = 0
        self._route: Route | None = None
        self._transport: Transport | None = None
        self._session: LoadCore | Collector | None = None
        self._session_name = ""
        self._failures = Failures()

    async def ready(self) -> None:
        """Return once the process is up."""

    async def clock(self) -> float:
        """This node's monotonic seconds."""
        return time.monotonic()

    async def open(self, route: Route) -> str:
        """Get ready to send along a route; connections of an earlier session are kept.

        Returns:
            Why that is not possible; empty where it is.
        """
        self._forget()
        if self._transport is not None and route == self._route:
            return ""
        if self._transport is not None:
            await self._transport.close()
            self._transport = None
        on_answer = None if self._read_metrics is None else self._read
        if isinstance(route, HandleRoute):
            self._transport = HandleTransport(route, self._request, on_answer)
        else:
            by_http = HttpTransport(route, on_answer)
            if trouble := await by_http.wait_for_route():
                await by_http.close()
                return trouble
            self._transport = by_http
        self._route = route
        return ""

    async def start_closed_loop(self, concurrency: int) -> None:
        """Keep `concurrency` requests in flight until `stop`."""
        self._core().start_closed_loop(concurrency)

    async def start_open_loop(self, due_s: FloatArray) -> None:
        """Send at these times of this node's clock."""
        self._core().start_open_loop(due_s)

    async def start_inside(
        self,
        replicas: list[str],
        shares: list[Share],
        offsets_s: dict[str, float],
        own_offset_s: float,
    ) -> str:
        """Have replicas load themselves until `stop`.

        Args:
            replicas: Names of their actors.
            shares: What each of them sends.
            offsets_s: How far the clocks of the replicas' nodes are ahead of the records' clock.
            own_offset_s: The same of this node.

        Returns:
            Why it cannot; empty where all of them do.
        """
        name = self._session_name = secrets.token_hex(8)
        collector: Any = ray.get_runtime_context().current_actor
        self._forget()

        async def call(number: int, share: Share) -> None:
            order = Order(session=name, call=number, share=share, collector=collector)
            answer = serve_apps.call_replica(replicas[number], INSIDE_METHOD, order)
            try:
                await answer
            except asyncio.CancelledError:
                ray.cancel(answer)
                raise

        self._session = session = Collector(
            call,
            shares,
            offsets_s=offsets_s,
            own_offset_s=own_offset_s,
            is_loss=is_dead_replica,
        )
        return await session.start()

    async def join(self, session: str, call: int, replica: str, node: str) -> float | None:
        """See `Collector.join`; a call of an earlier session is not wanted."""
        collector = self._collector(session)
        return None if collector is None else await collector.join(call, replica, node)

    async def deliver(self, session: str, call: int, report: Report) -> bool:
        """See `Collector.deliver`; a report of an earlier session is not wanted."""
        collector = self._collector(session)
        return False if collector is None else await collector.deliver(call, report)

    async def collect(self, seconds: float) -> Collected:
        """Let the load go on for that long, or until an open loop is done."""
        session = self._session
        if session is None:
            return Collected(np.empty((0, 4)))
        await session.wait(seconds)
        trouble = session.trouble if isinstance(session, Collector) else ""
        return Collected(session.take(), trouble)

    async def efforts(self) -> list[Effort]:
        """What sending took since the last call, by process that sends."""
        session = self._session
        if session is None:
            return []
        return session.efforts() if isinstance(session, Collector) else [session.effort()]

    async def stop(self) -> None:
        """End the session; requests in flight are given up."""
        session = self._session
        if session is not None:
            await session.stop()
        if isinstance(session, Collector):
            self._failures = Failures(session.error, session.loss)
        self._session = None

    async def failures(self) -> Failures:
        """What failed in the session that goes on, or in the latest one."""
        session = self._session
        if isinstance(session, Collector):
            return Failures(session.error, session.loss)
        return self._failures

    async def response_sums(self) -> ResponseSums:
        """The response metrics of all answers of the session, or of the latest one."""
        return ResponseSums(dict(self._sums), self._n_read)

    def _core(self) -> LoadCore:
        transport = self._transport
        assert transport is not None, "open() comes first"
        self._forget()

        def note(error: Exception) -> None:
            loss = self._failures.loss
            if transport.is_loss(error):
                loss = telling((loss, describe_loss(error)))
            self._failures = Failures(describe(error), loss)

        self._session = core = LoadCore(transport.send, on_failure=note)
        return core

    def _forget(self) -> None:
        """What an earlier session said is not of the one that begins."""
        self._failures = Failures()
        self._sums, self._n_read = {}, 0

    def _collector(self, session: str) -> Collector | None:
        current = self._session
        return current if isinstance(current, Collector) and session == self._session_name else None

    def _read(self, answer: Any) -> None:  # noqa: ANN401 - whatever the target answers
        assert self._read_metrics is not None
        try:
            read = {name: float(value) for name, value in self._read_metrics(answer).items()}
        except Exception as error:  # the user's function may raise anything
            raise RefusedError(f"{self._metrics_name} failed: {describe(error)}") from error
        for name, value in read.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._n_read += 1
