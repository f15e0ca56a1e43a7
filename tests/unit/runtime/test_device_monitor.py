"""Watching replicas on one node and on many; the nodes themselves are fakes."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from falcon_ray.runtime.cgroups import Cgroups
from falcon_ray.runtime.monitors.device_monitor import CombinedUsage, ReplicaMonitor
from falcon_ray.runtime.monitors.node_watch import LocalWatch, NodeUsage
from falcon_ray.runtime.monitors.nvml_monitor import GpuUsage
from falcon_ray.trial.protocols import EndpointFacts
from tests.unit.runtime.gpus import GIB, FakeGpu, FakeNvml

LONG_S = 3600.0
"""Between two samples, where only those that a test asks for should be taken."""


class FakeEndpoint:
    """Replicas on a few nodes."""

    concurrency = 1
    granularity = 1

    def __init__(self, *processes: tuple[str, int]) -> None:
        self._processes = processes

    def replicas(self) -> frozenset[str]:
        return frozenset()

    def facts(self) -> EndpointFacts:
        return EndpointFacts()

    def processes(self) -> Sequence[tuple[str, int]]:
        return self._processes


class FakeWatch:
    """A node that says always the same; None where it cannot be asked."""

    def __init__(self, usage: NodeUsage | None) -> None:
        self._usage = usage
        self.stopped = False

    def usage(self) -> NodeUsage | None:
        return self._usage

    def stop(self) -> None:
        self.stopped = True


def _combined(*usages: NodeUsage | None) -> CombinedUsage:
    return CombinedUsage([FakeWatch(usage) for usage in usages])


def test_every_node_watches_its_own_replicas_until_the_context_ends() -> None:
    made: dict[str, tuple[Sequence[int], FakeWatch]] = {}

    def watch(node: str, pids: Sequence[int]) -> FakeWatch:
        made[node] = (pids, FakeWatch(NodeUsage(memory_bytes=GIB * len(pids))))
        return made[node][1]

    endpoint = FakeEndpoint(("here", 1), ("there", 2), ("here", 3))
    with ReplicaMonitor(watch).watch(endpoint) as usage:
        assert {node: pids for node, (pids, _) in made.items()} == {"here": [1, 3], "there": [2]}
        assert usage.memory_gib == 2.0
        assert not any(each.stopped for _, each in made.values())
    assert all(each.stopped for _, each in made.values())


def test_a_watch_that_cannot_begin_ends_those_that_did() -> None:
    first = FakeWatch(None)

    def watch(_: str, pids: Sequence[int]) -> FakeWatch:
        if 2 in pids:
            raise OSError("no more threads")
        return first

    monitor = ReplicaMonitor(watch)
    with (
        pytest.raises(OSError, match="no more threads"),
        monitor.watch(FakeEndpoint(("here", 1), ("there", 2))),
    ):
        pass
    assert first.stopped


def test_memory_is_the_largest_and_kills_add_up_over_nodes() -> None:
    usage = _combined(NodeUsage(3 * GIB, None, 1), None, NodeUsage(2 * GIB, None, 2))
    assert (usage.memory_gib, usage.out_of_memory_kills) == (3.0, 3)


def test_gpus_of_all_nodes_weigh_the_same() -> None:
    usage = _combined(
        NodeUsage(gpu=GpuUsage(3, 4 * GIB, 90.0, 700.0)),
        NodeUsage(gpu=GpuUsage(1, 6 * GIB, 50.0, 200.0)),
        NodeUsage(gpu=GpuUsage(2, None, None, None)),
    )
    assert usage.gpu_memory_gib == 6.0
    assert usage.gpu_utilization_pct == pytest.approx((3 * 90 + 50) / 4)
    assert usage.gpu_power_w == 900.0


def test_what_nobody_saw_is_none() -> None:
    usage = _combined(NodeUsage(), None)
    assert usage.memory_gib is None
    assert usage.gpu_memory_gib is None
    assert usage.gpu_utilization_pct is None
    assert usage.gpu_power_w is None
    assert usage.out_of_memory_kills == 0


def test_a_nodes_own_watch_sees_memory_gpus_and_kills(tmp_path: Path) -> None:
    pid = os.getpid()
    membership = tmp_path / "proc" / str(pid) / "cgroup"
    membership.parent.mkdir(parents=True)
    membership.write_text("4:memory:/replica\n")
    control = tmp_path / "cgroup" / "memory" / "replica" / "memory.oom_control"
    control.parent.mkdir(parents=True)
    control.write_text("oom_kill 5\n")
    nvml = FakeNvml(FakeGpu("GPU-a", processes={pid: 2 * GIB}, utilization=70.0))
    watch = LocalWatch(
        [pid],
        nvml=nvml,
        cgroups=Cgroups(tmp_path / "proc", tmp_path / "cgroup"),
        interval_s=LONG_S,
    )
    try:
        control.write_text("oom_kill 7\n")
        usage = watch.usage()
    finally:
        watch.stop()
    assert usage.memory_bytes > 10 * 2**20  # a Python process takes more than 10 MiB
    assert usage.gpu == GpuUsage(1, 2 * GIB, 70.0, None)
    assert usage.out_of_memory_kills == 2
    assert nvml.closed


def test_processes_that_are_gone_are_seen_as_nothing(tmp_path: Path) -> None:
    watch = LocalWatch([2**22 + 1], nvml=None, cgroups=Cgroups(tmp_path, tmp_path))
    try:
        assert watch.usage() == NodeUsage()
    finally:
        watch.stop()
