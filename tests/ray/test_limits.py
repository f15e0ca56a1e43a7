"""Replicas of a deployed app stay on cores of their own, and give them back however they end."""

import os
import signal
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import psutil
import pytest
import ray
from ray import serve

from falcon_ray.runtime import serve_apps
from falcon_ray.runtime.agents.shared import own_agents
from falcon_ray.runtime.limits import replica_limits
from falcon_ray.runtime.limits.cpu_affinity import CorePool, LinuxAffinity
from falcon_ray.runtime.model_reference import ModelReference
from falcon_ray.runtime.monitors.device_monitor import RemoteWatch, device_monitor
from falcon_ray.runtime.serve_backend import AppEndpoint
from falcon_ray.runtime.target import ModelTarget
from falcon_ray.runtime.testbed.leftovers import live_actors
from falcon_ray.runtime.torch_app import TorchReplica
from falcon_ray.space.configuration import Configuration
from tests.ray.conftest import target_reference
from tests.ray.processes import wait_until

_AFFINITY = LinuxAffinity()
pytestmark = [
    pytest.mark.ray,
    pytest.mark.usefixtures("no_app_left"),
    pytest.mark.skipif(
        len(_AFFINITY.usable()) < 2 or _AFFINITY.quota() is not None,
        reason="needs two cores of its own",
    ),
]

APP = "falcon-test-limits"
START_TIMEOUT_S = 60.0


@pytest.fixture
def two_replicas(tmp_path: Path) -> Iterator[AppEndpoint]:
    """An app with two replicas of a core each, and locks that no other test shares."""
    model = ModelReference(target_reference("tiny.py", "tiny"))
    values = {"cpu_cores": 1, "batch_size": 2, "replicas": 2}
    locks = tmp_path / "locks"

    class Replica(TorchReplica):
        def __init__(self, *arguments: Any) -> None:  # noqa: ANN401 - as its base has them
            replica_limits.CorePool = partial(CorePool, locks)
            super().__init__(*arguments)

    deployment: serve.Deployment = serve.deployment(  # pyright: ignore[reportAssignmentType]
        Replica,
        num_replicas=2,
        ray_actor_options={"num_cpus": 1},
        graceful_shutdown_timeout_s=0.5,
    )
    serve_apps.deploy(deployment.bind(model, values), APP)
    try:
        wait_until(lambda: len(_cores()) == 2, "both run", timeout_s=START_TIMEOUT_S)
        yield AppEndpoint(APP, ModelTarget(model), Configuration(values))
    finally:
        serve_apps.delete(APP, timeout_s=30)


def _cores() -> Mapping[int, frozenset[int]]:
    """Cores that the threads of a replica may run on, by process id, of those that run."""
    state = serve_apps.app_state(APP)
    if state is None:
        return {}
    pids = [each.pid for each in state.replicas if each.running and each.pid is not None]
    # Serve's controller may not have noticed yet that one was killed.
    return {pid: _cores_of(pid) for pid in pids if psutil.pid_exists(pid)}


def _cores_of(pid: int) -> frozenset[int]:
    threads = [int(each.name) for each in Path(f"/proc/{pid}/task").iterdir()]
    return frozenset[int]().union(*(os.sched_getaffinity(thread) for thread in threads))


def test_two_replicas_are_kept_to_different_cores_and_a_killed_one_leaves_its_core_free(
    two_replicas: AppEndpoint,
) -> None:
    before = _cores()
    assert [len(cores) for cores in before.values()] == [1, 1]
    assert len(frozenset().union(*before.values())) == 2

    facts = two_replicas.facts()
    assert facts.enforcement == {"cpu": "affinity", "compute": "none", "memory": "none"}
    assert frozenset({int(facts.environment["cores"])}) in before.values()
    assert facts.environment["threads"] == "1"

    with device_monitor(APP, _no_other_node).watch(two_replicas) as usage:
        assert usage.memory_gib is not None
        assert 0.05 < usage.memory_gib < 4  # torch alone takes a few hundred MiB
        assert usage.out_of_memory_kills == 0

    killed, survivor = before
    os.kill(killed, signal.SIGKILL)

    def replaced() -> Mapping[int, frozenset[int]] | None:
        now = _cores()
        return now if len(now) == 2 and killed not in now else None

    after = wait_until(replaced, "the killed replica is replaced", timeout_s=START_TIMEOUT_S)
    (replacement,) = set(after) - {survivor}
    assert (after[replacement], after[survivor]) == (before[killed], before[survivor])


def _no_other_node(node: str) -> NoReturn:
    raise AssertionError(f"{node} is not this node")


def test_another_nodes_actor_watches_until_it_is_told_to_stop(request_ref: ray.ObjectRef) -> None:
    # The only node there is stands for the other one.
    node = ray.get_runtime_context().get_node_id()
    with own_agents(request_ref) as agents:
        actor = agents.watch("trial", node)
        watch = RemoteWatch(actor, name="trial", node=node, pids=[os.getpid()])
        usage = watch.usage()
        assert usage is not None
        assert usage.memory_bytes > 50 * 2**20  # a process with Ray and torch takes hundreds of MiB
        watch.stop()
        last = watch.usage()
        assert last is not None, "what it saw is still known"
        assert last.memory_bytes >= usage.memory_bytes
        assert "WatchActor" in {each.class_name for each in live_actors()}
    wait_until(
        lambda: "WatchActor" not in {each.class_name for each in live_actors()},
        "the actor ends",
        timeout_s=10,
    )


def test_a_node_that_is_gone_is_not_watched(request_ref: ray.ObjectRef) -> None:
    gone = "0" * 56
    with own_agents(request_ref) as agents:
        watch = RemoteWatch(agents.watch("trial", gone), name="trial", node=gone, pids=[1])
        assert watch.usage() is None
        watch.stop()


@pytest.fixture
def request_ref() -> ray.ObjectRef:
    """An example request that no driver sends."""
    return ray.put(None)
