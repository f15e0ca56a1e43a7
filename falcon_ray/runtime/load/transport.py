"""How a request of a load driver gets to the deployment: by Serve's handle or by HTTP.

A transport sends one request and returns once it is answered. It does not know when to send,
nor how many are in flight.
"""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import aiohttp
from ray import serve
from ray.exceptions import OutOfMemoryError, RayActorError

from falcon_ray.errors import TrialFailedError
from falcon_ray.runtime.load.inside import describe

MAX_MESSAGE = 300
"""Characters of an error page that are kept."""
ROUTE_TIMEOUT_S = 10.0
ROUTE_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class HttpBody:
    """What is sent by HTTP, and what kind of thing it is."""

    content: bytes
    content_type: str


@dataclass(frozen=True, slots=True)
class HandleRoute:
    """To an application's ingress by a deployment handle.

    Attributes:
        app: Name of the application.
        method: Method of the ingress.
        replicas: Who serves it; a handle to other replicas may still remember these.
    """

    app: str
    method: str
    replicas: frozenset[str]


@dataclass(frozen=True, slots=True)
class HttpRoute:
    """To an application by HTTP POST.

    Attributes:
        url: Where to; on loopback it is that of the driver's own node.
        body: What is sent.
        content_type: Of the body.
    """

    url: str
    body: bytes
    content_type: str


Route: TypeAlias = HandleRoute | HttpRoute


class Transport(Protocol):
    """Sends requests along a route."""

    async def send(self) -> None:
        """Send one request and wait for its answer.

        Raises:
            Exception: It failed.
        """
        ...

    def is_loss(self, error: Exception) -> bool:
        """Whether a request failed because the process that had it died."""
        ...

    async def close(self) -> None:
        """Give back what is held."""
        ...


class RefusedError(TrialFailedError):
    """An answer that says no."""


class HandleTransport:
    """Through a deployment handle.

    Args:
        route: Where to.
        request: Argument of each call.
        on_answer: Given each answer.
    """

    def __init__(
        self,
        route: HandleRoute,
        request: Any,  # noqa: ANN401 - whatever the target takes
        on_answer: Callable[[Any], None] | None,
    ) -> None:
        self._handle = method_handle(route.app, route.method)
        self._request = request
        self._on_answer = on_answer

    async def send(self) -> None:
        """See `Transport.send`."""
        response = self._handle.remote(self._request)
        try:
            answer = await response
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or not task.cancelling():
                # Serve's own way to say that a replica gave up a request; nobody wants this
                # client to end.
                raise RefusedError("Serve cancelled the request") from None
            response.cancel()
            raise
        if self._on_answer is not None:
            self._on_answer(answer)

    def is_loss(self, error: Exception) -> bool:
        """See `Transport.is_loss`."""
        return is_dead_replica(error)

    async def close(self) -> None:
        """See `Transport.close`; a handle has no end."""


class HttpTransport:
    """By HTTP with connections that are kept; one per request in flight.

    Args:
        route: Where to.
        on_answer: Given each answer: what its JSON says, else its bytes.
    """

    def __init__(self, route: HttpRoute, on_answer: Callable[[Any], None] | None) -> None:
        self._url = route.url
        self._body = route.body
        self._on_answer = on_answer
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            headers={"Content-Type": route.content_type},
        )

    async def wait_for_route(self, *, timeout_s: float = ROUTE_TIMEOUT_S) -> str:
        """Wait until the proxy is there and knows the application; it asks the proxy alone.

        Returns:
            Why it is of no use; empty once it is.
        """
        proxy, _, name = self._url.rpartition("/")
        deadline_s = time.monotonic() + timeout_s
        while True:
            said = await self._ask_for_route(f"{proxy}/-/routes", f"/{name}")
            if not said:
                return ""
            if time.monotonic() >= deadline_s:
                return (
                    f"the HTTP proxy at {proxy} did not serve the application within "
                    f"{timeout_s:g} s: {said}"
                )
            await asyncio.sleep(ROUTE_POLL_S)

    async def _ask_for_route(self, routes: str, route: str) -> str:
        try:
            limit = aiohttp.ClientTimeout(total=ROUTE_TIMEOUT_S)
            async with self._session.get(routes, timeout=limit) as response:
                answer = await response.read()
                if not response.ok:
                    return f"HTTP {response.status}: {_message(answer)}"
                return "" if route in json.loads(answer) else f"it does not know {route}"
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            return describe(error)

    async def send(self) -> None:
        """See `Transport.send`."""
        async with self._session.post(self._url, data=self._body) as response:
            answer = await response.read()
            if not response.ok:
                raise RefusedError(f"HTTP {response.status}: {_message(answer)}")
            if self._on_answer is not None:
                is_json = response.content_type == "application/json"
                self._on_answer(json.loads(answer) if is_json else answer)

    def is_loss(self, error: Exception) -> bool:  # noqa: ARG002 - as the protocol has it
        """See `Transport.is_loss`; the proxy says the same of every failure in a replica."""
        return False

    async def close(self) -> None:
        """See `Transport.close`."""
        await self._session.close()


def method_handle(app: str, method: str) -> Any:  # noqa: ANN401 - a DeploymentHandle
    """A handle to one method of an application's ingress."""
    handle = serve.get_app_handle(app)
    return handle if method == "__call__" else getattr(handle, method)


def is_dead_replica(error: Exception) -> bool:
    """Whether a call by a handle failed because the replica's process died."""
    return isinstance(error, (RayActorError, OutOfMemoryError))


def _message(body: bytes) -> str:
    lines = body.decode(errors="replace").strip().splitlines()
    return lines[0].strip()[:MAX_MESSAGE] if lines else "no message"
