"""What can happen to a cluster of emulated GPUs under a search, made to happen to a real one.

Only processes of the connected cluster are killed, which whoever calls this has started on this
machine. The module does not know what a search makes of it.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import psutil
import ray

from falcon_ray.errors import ClusterError
from falcon_ray.runtime import serve_apps
from falcon_ray.runtime.cluster_ledger import LEDGER_NAME, NAMESPACE
from falcon_ray.runtime.cluster_nodes import ACCELERATOR_LABEL, ACCELERATOR_PREFIX, ledger_nodes
from falcon_ray.runtime.emulated.nodes import node_with
from falcon_ray.runtime.ledger.line import LineCounts
from falcon_ray.runtime.testbed.leftovers import live_actors

TRIAL_CLASS = "ImplicitFunc"
"""What Tune calls the actor that runs a function for a trial."""
LEDGER_CLASS = "ClusterLedger"
STORE_CLASS = "CurveStore"
NODE_TIMEOUT_S = 60.0
CALL_TIMEOUT_S = 30.0
STORE_BYTES = 100 * 2**20
_POLL_S = 0.05

T = TypeVar("T")


def kill_actor(class_name: str) -> int:
    """Kill the process of one actor of a class; its process id.

    Raises:
        ClusterError: None of that class has a process.
    """
    pids = [each.pid for each in live_actors() if each.class_name == class_name and each.pid]
    if not pids:
        raise ClusterError(f"no actor {class_name} is alive on this cluster")
    os.kill(pids[0], signal.SIGKILL)
    return pids[0]


def wait_for_successor(class_name: str, pid: int) -> None:
    """Wait until an actor that was killed is back in another process.

    Raises:
        TimeoutError: It is not.
    """
    _wait(
        lambda: any(
            each.class_name == class_name and each.pid not in {0, pid} for each in live_actors()
        ),
        f"another {class_name} is there",
    )


def running_app(prefix: str) -> str | None:
    """Name of an application that serves now and begins so; None where none does."""
    for name in sorted(each for each in serve_apps.app_names() if each.startswith(prefix)):
        state = serve_apps.app_state(name)
        if state is not None and state.status == "RUNNING" and any(e.pid for e in state.replicas):
            return name
    return None


def kill_node_under(app_name: str) -> str:
    """Kill the node that an application has a replica on, and wait until Ray knows.

    Returns:
        The type of its GPU.

    Raises:
        ClusterError: There is no such application, or no such GPU.
        TimeoutError: Ray does not notice.
    """
    state = serve_apps.app_state(app_name)
    node_id = next((each.node_id for each in state.replicas if each.node_id), "") if state else ""
    types = {each.node_id: each.shape.gpu_type for each in ledger_nodes()}
    gpu_type = types.get(node_id)
    if gpu_type is None:
        raise ClusterError(f"the application {app_name} is on no node with a GPU")
    os.kill(_raylet(node_id).pid, signal.SIGKILL)
    _wait(lambda: node_id not in {each.node_id for each in ledger_nodes()}, "the node is gone")
    return gpu_type


def _raylet(node_id: str) -> psutil.Process:
    """The process that stands for a node, which this process or its like has started."""
    (socket,) = (n["RayletSocketName"] for n in ray.nodes() if n["NodeID"] == node_id)
    flag = f"--raylet_socket_name={socket}"
    for each in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if flag in each.cmdline():
                return each
    raise ClusterError(f"node {node_id} is none that was started by this process")


@contextmanager
def further_node(gpu_type: str) -> Iterator[None]:
    """Keep one more node with an emulated GPU on the connected cluster.

    Raises:
        ClusterError: It does not start.
    """
    shape = node_with(gpu_type)
    before = {each.node_id for each in ledger_nodes()}
    with tempfile.TemporaryFile() as output:
        command = subprocess.Popen(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block"),
                *("--address", ray.get_runtime_context().gcs_address),
                *("--num-cpus", str(shape.cpus), "--num-gpus", str(shape.n_gpus)),
                *("--resources", json.dumps({f"{ACCELERATOR_PREFIX}{gpu_type}": 1})),
                *("--labels", f"{ACCELERATOR_LABEL}={gpu_type}"),
                *("--memory", str(int(shape.ram_gib * 2**30))),
                *("--object-store-memory", str(STORE_BYTES), "--disable-usage-stats"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            try:
                _wait(lambda: {e.node_id for e in ledger_nodes()} - before, "a node has come")
            except TimeoutError as error:
                output.seek(0)
                said = output.read().decode(errors="replace").strip()[-500:]
                raise ClusterError(f"no further node: {error}; {said}") from error
            yield
        finally:
            _end(command)


def _end(command: "subprocess.Popen[bytes]") -> None:
    """End the command that keeps a node, and what is left of its children a little later."""
    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(command.pid).children(recursive=True)
    command.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        command.wait(NODE_TIMEOUT_S)
    _, alive = psutil.wait_procs(family, timeout=5.0)
    for each in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    command.kill()
    command.wait()


def leases() -> Mapping[str, int]:
    """How many trials wait for or hold resources, by line, as the ledger counts them."""
    try:
        ledger: Any = ray.get_actor(LEDGER_NAME, namespace=NAMESPACE)
    except ValueError:
        return {}
    counts: Any = ray.get(ledger.counts.remote(), timeout=CALL_TIMEOUT_S)
    lines: Mapping[str, LineCounts] = counts
    found = {line: each.waiting + each.provisioning + each.granted for line, each in lines.items()}
    return {line: n for line, n in found.items() if n}


def gpu_types() -> tuple[str, ...]:
    """What the nodes of the cluster that take trials stand for now, sorted."""
    return tuple(sorted(str(each.shape.gpu_type) for each in ledger_nodes()))


def rss_mib(class_names: frozenset[str]) -> Mapping[str, float]:
    """Resident memory of the actors of some classes, by class."""
    found: dict[str, float] = {}
    for each in live_actors():
        if each.class_name in class_names and each.pid:
            with contextlib.suppress(psutil.NoSuchProcess):
                size = psutil.Process(each.pid).memory_info().rss / 2**20
                found[each.class_name] = found.get(each.class_name, 0.0) + size
    return found


def _wait(condition: Callable[[], T], what: str) -> T:
    deadline = time.monotonic() + NODE_TIMEOUT_S
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {NODE_TIMEOUT_S:g} s in vain until {what}")
        time.sleep(_POLL_S)
    return value
