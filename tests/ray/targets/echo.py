"""A user's file with a Serve application of its own, and what is declared beside its builder."""

import asyncio
from typing import Any

from ray import serve

from falcon_ray.space.configuration import Configuration

AT_ONCE = 2


@serve.deployment(
    max_ongoing_requests=AT_ONCE,
    graceful_shutdown_timeout_s=0.5,
    graceful_shutdown_wait_loop_s=0.5,
)
class Echo:
    """Answers with the words it was sent, after a pause."""

    def __init__(self, pause_ms: float) -> None:
        self._pause_s = pause_ms / 1000

    async def speak(self, words: list[str]) -> dict[str, Any]:
        await asyncio.sleep(self._pause_s)
        return {"words": words, "pause_s": self._pause_s}


def echo(configuration: Configuration) -> serve.Application:
    return Echo.bind(configuration.number("pause_ms", 0.0))


def echo_space() -> dict[str, list[int]]:
    return {"pause_ms": [2, 20]}


def echo_request() -> list[str]:
    return ["one", "two", "three"]


def echo_concurrency(configuration: Configuration) -> int:  # noqa: ARG001 - any is alike
    return AT_ONCE


echo_method = "speak"


def echo_metrics(response: dict[str, Any]) -> dict[str, float]:
    return {"n_words": len(response["words"]), "pause_ms": 1000 * response["pause_s"]}
