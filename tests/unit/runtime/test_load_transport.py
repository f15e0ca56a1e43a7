import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import ClientConnectionError, web
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayActorError

from falcon_ray.runtime.load.transport import (
    HttpRoute,
    HttpTransport,
    RefusedError,
    is_dead_replica,
)

Handler = Callable[[web.Request], Awaitable[web.Response]]


def served(handler: Handler, use: Callable[[str], Awaitable[None]]) -> None:
    """Use the address of a server on loopback that answers POST by a handler."""

    async def main() -> None:
        app = web.Application()
        app.router.add_post("/model", handler)
        app.router.add_get("/-/routes", handler)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        try:
            await use(f"http://{host}:{port}/model")
        finally:
            await runner.cleanup()

    asyncio.run(main())


def test_the_body_is_posted_and_json_is_read() -> None:
    seen: list[Any] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append((request.content_type, await request.read()))
        return web.json_response({"outputs": [1.5]})

    async def use(url: str) -> None:
        transport = HttpTransport(HttpRoute(url, b"abc", "application/octet-stream"), seen.append)
        await transport.send()
        await transport.close()

    served(handler, use)
    assert seen == [("application/octet-stream", b"abc"), {"outputs": [1.5]}]


def test_an_answer_that_is_no_json_is_given_as_bytes() -> None:
    seen: list[Any] = []

    async def handler(request: web.Request) -> web.Response:  # noqa: ARG001
        return web.Response(text="plain")

    async def use(url: str) -> None:
        transport = HttpTransport(HttpRoute(url, b"", "text/plain"), seen.append)
        await transport.send()
        await transport.close()

    served(handler, use)
    assert seen == [b"plain"]


def test_a_refusal_has_failed_with_the_first_line_of_what_it_says() -> None:
    async def handler(request: web.Request) -> web.Response:  # noqa: ARG001
        return web.Response(status=503, text="\n no replica is left \nmore words\n")

    async def use(url: str) -> None:
        transport = HttpTransport(HttpRoute(url, b"", "text/plain"), None)
        with pytest.raises(RefusedError, match=r"^HTTP 503: no replica is left$"):
            await transport.send()
        await transport.close()

    served(handler, use)


def test_one_connection_serves_requests_in_a_row() -> None:
    peers: set[Any] = set()

    async def handler(request: web.Request) -> web.Response:
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        return web.Response()

    async def use(url: str) -> None:
        transport = HttpTransport(HttpRoute(url, b"", "text/plain"), None)
        for _ in range(3):
            await transport.send()
        await transport.close()

    served(handler, use)
    assert len(peers) == 1


def test_nobody_who_listens_is_a_failure() -> None:
    async def refuse() -> None:
        # Port 1 needs privileges to listen on, and nothing here does.
        transport = HttpTransport(HttpRoute("http://127.0.0.1:1", b"", "text/plain"), None)
        with pytest.raises(ClientConnectionError):
            await transport.send()
        await transport.close()

    asyncio.run(refuse())


def test_a_route_that_the_proxy_learns_later_is_waited_for() -> None:
    answers = [
        web.Response(status=503, text="not ready"),
        web.json_response({"/another": "app"}),
        web.json_response({"/another": "app", "/model": "app"}),
    ]
    asked: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(f"{request.method} {request.path}")
        return answers[len(asked) - 1]

    async def use(url: str) -> None:
        transport = HttpTransport(HttpRoute(url, b"", "text/plain"), None)
        assert await transport.wait_for_route() == ""
        await transport.close()

    served(handler, use)
    assert asked == ["GET /-/routes"] * 3  # and the application never


def test_a_proxy_that_is_not_there_is_trouble() -> None:
    async def refuse() -> str:
        transport = HttpTransport(HttpRoute("http://127.0.0.1:1/model", b"", "text/plain"), None)
        said = await transport.wait_for_route(timeout_s=0.0)
        await transport.close()
        return said

    said = asyncio.run(refuse())
    assert said.startswith("the HTTP proxy at http://127.0.0.1:1 did not serve the application")


def test_a_process_that_ray_killed_for_memory_is_a_dead_replica() -> None:
    assert is_dead_replica(OutOfMemoryError("the node was running low on memory"))
    assert is_dead_replica(RayActorError(error_msg="it died"))
    assert not is_dead_replica(GetTimeoutError("late"))
