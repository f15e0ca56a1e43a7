"""Whether the kernel killed workers of Ray for want of memory, node by node.

A process that is killed so cannot say why it ended; the counter of its control group can. Others
whose processes run in other groups are not counted. The module does not know what the workers are
for.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from falcon_ray.runtime.cgroups import Cgroups, kills_since

ASK_TIMEOUT_S = 10.0

Reading: TypeAlias = Callable[[], Mapping[str, int] | None]
"""Waits for what a node was asked, kills by group; None where it does not answer."""


class WorkerKills:
    """Memory kills on a number of nodes from now on.

    Args:
        nodes: Their Ray ids.
        ask: Asks a node, given by its Ray id, and returns at once.
    """

    def __init__(self, nodes: Iterable[str], ask: Callable[[str], Reading] | None = None) -> None:
        self._ask = ask or ask_node
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


def ask_node(node: str) -> Reading:
    """Ask a node of the cluster by a task there, which is in the group of its workers."""
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    task = ray.remote(num_cpus=0, max_retries=0)(kills_of_this_group)
    asked = task.options(scheduling_strategy=there).remote()

    def read() -> Mapping[str, int] | None:
        try:
            return ray.get(asked, timeout=ASK_TIMEOUT_S)
        except (RayError, TimeoutError):
            ray.cancel(asked)
            return None

    return read


def kills_of_this_group() -> Mapping[str, int]:
    """Kills so far in the group of this process and below it; empty where nothing counts them."""
    counter = Cgroups().kill_counter(os.getpid())
    return {} if counter is None else counter.read()
