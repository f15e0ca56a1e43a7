"""What can happen to a cluster under a trial, made to happen on the machine that runs it.

One more node that can be killed, resources that somebody else holds, processes that are killed
or kept from running. Only processes that were started below this one are touched. The module
does not know what a trial makes of any of it.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import psutil
import ray
from ray.util.placement_group import placement_group, remove_placement_group

from falcon_ray.errors import ClusterError
from falcon_ray.runtime import serve_apps
from falcon_ray.runtime.node_health import alive_nodes
from falcon_ray.runtime.testbed.leftovers import live_actors

POLL_S = 0.02
NODE_TIMEOUT_S = 30.0
STORE_BYTES = 100 * 2**20

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SecondNode:
    """A node of the connected Ray that this process started.

    Attributes:
        node_id: Of Ray.
        cpus: That it offers, one more than any other node.
        raylet_pid: Of the process that stands for the node.
    """

    node_id: str
    cpus: int
    raylet_pid: int

    def kill(self) -> None:
        """End the node in a way that nobody can notice before it is gone."""
        os.kill(self.raylet_pid, signal.SIGKILL)


@contextmanager
def second_node() -> Iterator[SecondNode]:
    """Keep one more node on this machine; it offers more CPUs than any other, on paper.

    So a replica that asks for all of them can only be there.

    Raises:
        ClusterError: The node does not start.
    """
    before = alive_nodes()
    cpus = 1 + max(int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"])
    with tempfile.TemporaryFile() as output:
        command = subprocess.Popen(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block"),
                *("--address", ray.get_runtime_context().gcs_address),
                *("--num-cpus", str(cpus), "--resources", json.dumps({"second_node": 1})),
                *("--object-store-memory", str(STORE_BYTES), "--disable-usage-stats"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        family: list[psutil.Process] = []
        try:
            try:
                (node_id,) = _wait(lambda: alive_nodes() - before, timeout_s=NODE_TIMEOUT_S)
            except TimeoutError as error:
                output.seek(0)
                said = output.read().decode(errors="replace").strip()[-500:]
                raise ClusterError(f"no second node within {NODE_TIMEOUT_S:g} s: {said}") from error
            family = psutil.Process(command.pid).children(recursive=True)
            (raylet,) = (each for each in family if each.name() == "raylet")
            yield SecondNode(node_id, cpus, raylet.pid)
        finally:
            _end(command, family)
            # Until then Ray would still place work there.
            with contextlib.suppress(TimeoutError):
                _wait(lambda: not alive_nodes() - before, timeout_s=NODE_TIMEOUT_S)


def _end(command: "subprocess.Popen[bytes]", family: Sequence[psutil.Process]) -> None:
    """End the command that keeps a node, and what is left of its children a little later."""
    command.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        command.wait(NODE_TIMEOUT_S)
    _, alive = psutil.wait_procs(family, timeout=5.0)
    for each in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    command.kill()
    command.wait()


@contextmanager
def taken_cpus() -> Iterator[None]:
    """Hold all CPUs of the connected Ray, as somebody else's work would.

    Raises:
        ClusterError: They are not free.
    """
    cpus = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    group = placement_group([{"CPU": each} for each in cpus if each])
    try:
        if not group.wait(timeout_seconds=int(NODE_TIMEOUT_S)):
            raise ClusterError(f"{sum(cpus)} CPUs are not free within {NODE_TIMEOUT_S:g} s")
        yield
    finally:
        remove_placement_group(group)


def kill_replica(app_name: str) -> None:
    """Kill the process of one replica of an application, and nothing else."""
    os.kill(replica_pids(app_name)[0], signal.SIGKILL)


def replica_pids(app_name: str) -> tuple[int, ...]:
    """Processes of an application's replicas, those that still start included."""
    state = serve_apps.app_state(app_name)
    replicas = () if state is None else state.replicas
    return tuple(each.pid for each in replicas if each.pid is not None)


def driver_pids() -> tuple[int, ...]:
    """Processes of all load drivers."""
    return tuple(each.pid for each in live_actors() if each.class_name == "LoadDriver" and each.pid)


def kill_driver() -> None:
    """Kill the process of one load driver."""
    os.kill(driver_pids()[0], signal.SIGKILL)


@contextmanager
def starved(pids: Collection[int], *, stopped_s: float, running_s: float) -> Iterator[None]:
    """Let processes run only now and then, as on a machine that others keep busy."""
    ended = threading.Event()

    def stop_and_go() -> None:
        while not ended.is_set():
            _signal(pids, signal.SIGSTOP)
            ended.wait(stopped_s)
            _signal(pids, signal.SIGCONT)
            ended.wait(running_s)

    thread = threading.Thread(target=stop_and_go, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        _signal(pids, signal.SIGCONT)


def _signal(pids: Collection[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


@contextmanager
def once_starting(app_name: str, act: Callable[[], None], *, timeout_s: float) -> Iterator[None]:
    """Call `act` in a thread as soon as a replica of an application has a process."""
    left = threading.Event()

    def watch() -> None:
        with contextlib.suppress(TimeoutError):
            _wait(lambda: left.is_set() or replica_pids(app_name), timeout_s=timeout_s)
            if not left.is_set():
                act()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join()


def _wait(condition: Callable[[], T], *, timeout_s: float) -> T:
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:g} s in vain")
        time.sleep(POLL_S)
    return value
