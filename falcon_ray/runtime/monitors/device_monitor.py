"""What the replicas of a deployment take, seen from outside their processes, on every node.

This process watches those of its own node; on each other node an actor does. Of a node that
does not answer in time, what it said last counts; one that never did is left out of the sum: it
says nothing against the trial.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Protocol

import ray
from ray.exceptions import RayActorError, RayError

from falcon_ray.runtime.monitors.node_watch import NodeUsage
from falcon_ray.runtime.monitors.watch_actor import local_watch
from falcon_ray.trial.protocols import DeviceMonitor, DeviceUsage, Endpoint

logger = logging.getLogger(__name__)

GIB = 2.0**30
START_TIMEOUT_S = 10.0
ASK_TIMEOUT_S = 5.0


class ProcessEndpoint(Endpoint, Protocol):
    """An endpoint whose replicas are known processes."""

    def processes(self) -> Sequence[tuple[str, int]]:
        """Ray node and process id of every replica."""
        ...


class NodeWatch(Protocol):
    """Watches processes of one node from its making on."""

    def usage(self) -> NodeUsage | None:
        """What was seen up to now; None where the node cannot be asked."""
        ...

    def stop(self) -> None:
        """End the watch."""
        ...


class ReplicaMonitor:
    """Watches the replicas of an endpoint, each on its own node.

    Args:
        watch: Watches processes of a node, given by its Ray id.
    """

    def __init__(self, watch: Callable[[str, Sequence[int]], NodeWatch]) -> None:
        self._watch = watch

    @contextmanager
    def watch(self, endpoint: ProcessEndpoint) -> Iterator[DeviceUsage]:
        """See `DeviceMonitor.watch`."""
        with ExitStack() as stack:
            watches: list[NodeWatch] = []
            for node, pids in _by_node(endpoint.processes()).items():
                watches.append(self._watch(node, pids))
                stack.callback(watches[-1].stop)
            yield CombinedUsage(watches)


class CombinedUsage:
    """See `DeviceUsage`; over all nodes.

    Args:
        watches: One per node.
    """

    def __init__(self, watches: Sequence[NodeWatch]) -> None:
        self._watches = tuple(watches)

    @property
    def memory_gib(self) -> float | None:
        """See `DeviceUsage.memory_gib`."""
        peak = max((usage.memory_bytes for usage in self._usages()), default=0)
        return peak / GIB if peak else None

    @property
    def gpu_memory_gib(self) -> float | None:
        """See `DeviceUsage.gpu_memory_gib`."""
        peaks = [usage.gpu.memory_bytes for usage in self._usages() if usage.gpu is not None]
        peak = max((each for each in peaks if each is not None), default=None)
        return None if peak is None else peak / GIB

    @property
    def gpu_utilization_pct(self) -> float | None:
        """See `DeviceUsage.gpu_utilization_pct`."""
        seen = [
            (usage.gpu.utilization_pct, usage.gpu.n_gpus)
            for usage in self._usages()
            if usage.gpu is not None and usage.gpu.utilization_pct is not None
        ]
        if not seen:
            return None
        return sum(percent * n for percent, n in seen) / sum(n for _, n in seen)

    @property
    def gpu_power_w(self) -> float | None:
        """See `DeviceUsage.gpu_power_w`."""
        powers = [usage.gpu.power_w for usage in self._usages() if usage.gpu is not None]
        known = [power for power in powers if power is not None]
        return sum(known) if known else None

    @property
    def out_of_memory_kills(self) -> int:
        """See `DeviceUsage.out_of_memory_kills`."""
        return sum(usage.out_of_memory_kills for usage in self._usages())

    def _usages(self) -> list[NodeUsage]:
        usages = [watch.usage() for watch in self._watches]
        return [usage for usage in usages if usage is not None]


def device_monitor(name: str, watch_on: Callable[[str], Any]) -> DeviceMonitor[ProcessEndpoint]:
    """Watches replicas on all nodes of the Ray that this process is connected to.

    Args:
        name: Of whoever watches, alone of that name.
        watch_on: Gives the `WatchActor` of a node, given by its Ray id.
    """
    here = ray.get_runtime_context().get_node_id()

    def watch(node: str, pids: Sequence[int]) -> NodeWatch:
        if node == here:
            return local_watch(pids)
        return RemoteWatch(watch_on(node), name=name, node=node, pids=pids)

    return ReplicaMonitor(watch)


class RemoteWatch:
    """Watches processes of another node by the actor there.

    Args:
        actor: Handle of a `WatchActor`.
        name: Of the watch.
        node: The node's Ray id, for the log.
        pids: The processes.
    """

    def __init__(self, actor: Any, *, name: str, node: str, pids: Sequence[int]) -> None:  # noqa: ANN401
        self._actor = actor
        self._name = name
        self._node = node
        self._lost = False
        self._known: NodeUsage | None = None
        actor.begin.remote(name, list(pids))
        # Its start should not fall into what is measured.
        self._ask(START_TIMEOUT_S)

    def usage(self) -> NodeUsage | None:
        """See `NodeWatch.usage`."""
        if not self._lost:
            self._ask(ASK_TIMEOUT_S)
        return self._known

    def stop(self) -> None:
        """See `NodeWatch.stop`."""
        with suppress(RayError):
            self._actor.finish.remote(self._name)

    def _ask(self, timeout_s: float) -> None:
        try:
            self._known = ray.get(self._actor.usage.remote(self._name), timeout=timeout_s)
        except RayActorError as error:
            self._lost = True
            logger.info("replicas on node %s are watched no more: %s", self._node[:8], error)
        except (RayError, TimeoutError) as error:
            logger.info("the watch on node %s did not answer: %s", self._node[:8], error)


def _by_node(processes: Sequence[tuple[str, int]]) -> Mapping[str, Sequence[int]]:
    by_node: dict[str, list[int]] = {}
    for node, pid in processes:
        by_node.setdefault(node, []).append(pid)
    return by_node
