"""Whether the kernel killed workers of Ray for want of memory, node by node.

A process that is killed so cannot say why it ended; the counter of its control group can. Others
whose processes run in other groups are not counted. The module does not know what the workers are
for.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import ray
from ray.exceptions import RayError

from falcon_ray.runtime.cgroups import kills_since
from falcon_ray.runtime.monitors.watch_actor import kills_of_this_group

ASK_TIMEOUT_S = 10.0

Reading: TypeAlias = Callable[[], Mapping[str, int] | None]
"""Waits for what a node was asked, kills by group; None where it does not answer."""


class WorkerKills:
    """Memory kills on a number of nodes from now on.

    Args:
        nodes: Their Ray ids.
        ask: Asks a node, given by its Ray id, and returns at once.
    """

    def __init__(self, nodes: Iterable[str], ask: Callable[[str], Reading]) -> None:
        self._ask = ask
        self._before = {node: self._ask(node) for node in nodes}

    def count(self) -> int:
        """Kills since then; of a node that does not answer, none."""
        asked = [(before, self._ask(node)) for node, before in self._before.items()]
        readings = [(before(), after()) for before, after in asked]
        return sum(
            kills_since(before, after)
            for before, after in readings
            if before is not None and after is not None
        )


def asking(watch_on: Callable[[str], Any]) -> Callable[[str], Reading]:
    """Asks nodes of the cluster.

    Args:
        watch_on: Gives the `WatchActor` of another node, given by its Ray id.
    """
    here = ray.get_runtime_context().get_node_id()

    def ask(node: str) -> Reading:
        if node == here:
            said = kills_of_this_group()
            return lambda: said
        asked = watch_on(node).kills.remote()

        def read() -> Mapping[str, int] | None:
            try:
                return ray.get(asked, timeout=ASK_TIMEOUT_S)
            except (RayError, TimeoutError):
                return None

        return read

    return ask
