"""Loads every replica of an application at the same time, through calls that may land anywhere.

It knows calls and their answers. It does not know Serve's router, which decides where a call
lands, nor what a replica does with it.
"""

import time
from collections.abc import Callable
from typing import Protocol

CALL_TIMEOUT_S = 30.0
POLL_S = 0.05
MAX_BURST = 16


class Call(Protocol):
    """A call that was sent; a Serve `DeploymentResponse` is one."""

    def result(self, *, timeout_s: float | None) -> float | None:
        """Requests per second of the replica that took it; None where it declined.

        Raises:
            TimeoutError: There is no answer within `timeout_s`.
        """
        ...


def saturate_each(
    send: Callable[[], Call],
    n: int,
    seconds: float,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> list[float]:
    """Requests per second of every replica that was found, loaded at almost the same time.

    A handle cannot address a replica, so calls are made until each has one: a replica that had
    one declines, at the latest between two batches, and the call is replaced. That ends before
    the first load can, so that none is loaded once another is at rest.

    Args:
        send: Sends a call that loads a replica, unless it had one of these calls before.
        n: How many replicas there are.
        seconds: For how long a call loads a replica at least.
        clock: Monotonic seconds.
    """
    rates: list[float] = []
    running = [send() for _ in range(n)]
    burst, deadline = 1, clock() + 0.8 * seconds
    while n > 1 and len(rates) < n and clock() < deadline:
        answered = [call for call in running if _is_answered(call)]
        running = [call for call in running if call not in answered]
        rates += _rates(answered)
        if len(rates) + len(running) < n:
            # Ever more at a time: the router passes a replica by once it holds enough calls.
            running += [send() for _ in range(burst)]
            burst = min(2 * burst, MAX_BURST)
    return rates + _rates(running, timeout_s=CALL_TIMEOUT_S + 3 * seconds)


def _rates(calls: list[Call], *, timeout_s: float = POLL_S) -> list[float]:
    said = [call.result(timeout_s=timeout_s) for call in calls]
    return [rate for rate in said if rate is not None]


def _is_answered(call: Call) -> bool:
    try:
        call.result(timeout_s=POLL_S)
    except TimeoutError:
        return False
    return True
