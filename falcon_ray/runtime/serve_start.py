"""Waits until an application runs, and says why where it will not.

It knows what Serve says of one application, and nodes that are lost. It does not know what is
deployed, nor how it is asked for again.
"""

import math
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from falcon_ray.errors import (
    InfeasibleCause,
    InfeasibleError,
    ReplicaLostError,
    TrialFailedError,
)
from falcon_ray.runtime import serve_apps
from falcon_ray.runtime.node_health import lost_nodes
from falcon_ray.runtime.serve_apps import AppState
from falcon_ray.runtime.serve_messages import cause, died_silently, lost_after_start
from falcon_ray.trial.causes import cause_of

FIRST_POLL_S = 0.1
LONGEST_POLL_S = 0.5
POLL_GROWTH = 1.3
"""Each look makes Serve's controller list all applications, those of all other trials as well."""
LOST_NODES_S = 1.0
"""Between two looks at the nodes that replicas are pinned to."""


class DiedSilentlyError(Exception):
    """A replica's process ended while it started, and nothing says why."""


@dataclass(frozen=True, slots=True)
class StartSeams:
    """What a start is seen through.

    Attributes:
        app_state: What Serve says of an application by its name.
        lost_nodes: Those of some nodes that are lost.
        clock: Monotonic seconds.
        pause: Waits for so many seconds.
    """

    app_state: Callable[[str], AppState | None] = serve_apps.app_state
    lost_nodes: Callable[[Collection[str]], frozenset[str]] = lost_nodes
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep


def wait_until_running(
    app_name: str,
    *,
    n_replicas: int,
    pinned_to: Collection[str],
    timeout_s: float,
    seams: StartSeams | None = None,
) -> frozenset[str]:
    """Wait for an application that was deployed.

    Args:
        app_name: Its name.
        n_replicas: How many it has.
        pinned_to: The only nodes that its replicas can be on; none where any will do.
        timeout_s: Longest time to wait.
        seams: What is looked through.

    Returns:
        The nodes that its replicas are on.

    Raises:
        InfeasibleError: It cannot start, or takes too long.
        TrialFailedError: It was not given its resources, or a node that it is pinned to is lost.
        ReplicaLostError: A replica that had started is lost.
        DiedSilentlyError: A process of its ended while it started, and nothing says why.
    """
    seams = seams or StartSeams()
    start_s = nodes_seen_s = seams.clock()
    polls = _polls_s()
    while True:
        state = seams.app_state(app_name)
        if state is not None and state.status == "RUNNING":
            replicas = serve_apps.replicas_of(state)
            return frozenset(each.node_id for each in replicas if each.node_id)
        if state is not None and state.status in {"DEPLOY_FAILED", "UNHEALTHY"}:
            raise _why_failed(state)
        now_s = seams.clock()
        if now_s - start_s > timeout_s:
            raise _too_late(state, n_replicas, timeout_s=timeout_s)
        if pinned_to and now_s - nodes_seen_s >= LOST_NODES_S:
            nodes_seen_s = now_s
            # Its places are on no other node, so waiting would not help.
            if lost := seams.lost_nodes(pinned_to):
                raise TrialFailedError(f"{lost_words(lost)} while the replica started")
        seams.pause(next(polls))


def lost_words(nodes: Collection[str]) -> str:
    """That nodes were lost, in words."""
    names = ", ".join(sorted(each[:8] for each in nodes))
    return f"node {names} was lost" if len(nodes) == 1 else f"nodes {names} were lost"


def _polls_s() -> Iterator[float]:
    wait_s = FIRST_POLL_S
    while True:
        yield wait_s
        wait_s = min(LONGEST_POLL_S, wait_s * POLL_GROWTH)


def _why_failed(state: AppState) -> InfeasibleError | DiedSilentlyError | ReplicaLostError:
    if lost_after_start(state.message):
        return ReplicaLostError("a replica was lost as soon as it had started")
    if died_silently(state.message):
        return DiedSilentlyError(cause(state.message))
    return InfeasibleError(
        f"the replica did not start: {cause(state.message)}", cause=cause_of(state.message)
    )


def _too_late(
    state: AppState | None, n_replicas: int, *, timeout_s: float
) -> InfeasibleError | TrialFailedError:
    """A replica that has a process hangs; one that has none was never given its resources."""
    placed = sum(each.pid is not None for each in serve_apps.replicas_of(state))
    if placed < n_replicas:
        return TrialFailedError(
            f"the cluster gave {placed} of {n_replicas} replicas a place within "
            f"{math.ceil(timeout_s)} s; its resources are taken by others"
        )
    return InfeasibleError(
        f"the replica was still starting after {math.ceil(timeout_s)} s; "
        "give --deploy-timeout-s more time if the model loads slowly",
        cause=InfeasibleCause.TIMEOUT,
    )
