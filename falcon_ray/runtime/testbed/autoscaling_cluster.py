"""A cluster on this machine whose nodes Ray's own autoscaler adds and lets go.

Its nodes are Ray's fake ones: raylets that say what they have. It knows how such a cluster is
started and ended. It does not know what asks for nodes.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import yaml
from ray._private.authentication.authentication_token_setup import (
    enable_token_auth_by_default,
    ensure_token_if_auth_enabled,
)

from falcon_ray.errors import ClusterError
from falcon_ray.runtime.cluster_nodes import ACCELERATOR_LABEL
from falcon_ray.runtime.ledger.contract import NodeType

PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
HEAD_ID = "f" * 51 + "00000"
"""Ray's name for the head of such a cluster; a fake provider counts the others from it."""
HEAD_TYPE = "ray.head.default"
START_TIMEOUT_S = 90.0
END_TIMEOUT_S = 30.0
STORE_BYTES = 100 * 2**20
_LISTS = (
    *("setup_commands", "head_setup_commands", "worker_setup_commands"),
    *("initialization_commands", "head_start_ray_commands", "worker_start_ray_commands"),
    *("cluster_synced_files", "rsync_exclude", "rsync_filter"),
)
_MAPPINGS = ("auth", "docker", "file_mounts")
_PORTS = range(20000, 32000)
_POLL_S = 0.1


def launcher_config(
    types: Sequence[NodeType], *, gcs_address: str, idle_timeout_s: float
) -> dict[str, Any]:
    """A cluster file as Ray's launcher takes it, with nodes that are raylets of this machine.

    Args:
        types: What can be added.
        gcs_address: Of the head.
        idle_timeout_s: After which an idle node is let go.
    """
    workers = {
        each.name: {
            "resources": {
                "CPU": each.shape.cpus,
                **({"GPU": each.shape.n_gpus} if each.shape.n_gpus else {}),
                **({f"accelerator_type:{each.shape.gpu_type}": 1} if each.shape.gpu_type else {}),
                "object_store_memory": STORE_BYTES,
            },
            "labels": ({ACCELERATOR_LABEL: each.shape.gpu_type} if each.shape.gpu_type else {}),
            "node_config": {},
            "min_workers": 0,
            "max_workers": each.max_nodes,
        }
        for each in types
    }
    head = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    return {
        "cluster_name": "fake-autoscaling",
        "max_workers": sum(each.max_nodes for each in types),
        "idle_timeout_minutes": idle_timeout_s / 60,
        "upscaling_speed": 8.0,
        "provider": {
            "type": "external",
            "module": PROVIDER,
            "launch_multiple": True,
            "head_node_id": HEAD_ID,
            "gcs_address": gcs_address,
        },
        "head_node_type": HEAD_TYPE,
        "available_node_types": {HEAD_TYPE: head, **workers},
        # Nothing is set up on nodes that are this machine, yet Ray wants to be told so.
        **{name: [] for name in _LISTS},
        **{name: {} for name in _MAPPINGS},
    }


@contextmanager
def autoscaling_cluster(
    types: Sequence[NodeType], *, idle_timeout_s: float = 10.0
) -> Iterator[str]:
    """Keep a head without CPUs whose autoscaler adds nodes of these types, and give its address.

    Args:
        types: What can be added.
        idle_timeout_s: After which an idle node is let go.

    Raises:
        ClusterError: The head does not start.
    """
    enable_token_auth_by_default()
    ensure_token_if_auth_enabled()
    directory = Path(tempfile.mkdtemp(prefix="fa", dir="/tmp"))
    port, client_port = _free_ports(2)
    address = f"127.0.0.1:{port}"
    file = directory / "cluster.yaml"
    config = launcher_config(types, gcs_address=address, idle_timeout_s=idle_timeout_s)
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    with (directory / "head.log").open("wb") as output:
        head = subprocess.Popen(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
                *("--port", str(port), "--num-cpus", "0", "--node-ip-address", "127.0.0.1"),
                *("--include-dashboard", "false", "--ray-client-server-port", str(client_port)),
                *("--dashboard-agent-listen-port", "0", "--temp-dir", str(directory / "ray")),
                *("--object-store-memory", str(STORE_BYTES), "--disable-usage-stats"),
                f"--autoscaling-config={file}",
            ],
            env={**os.environ, **_environment()},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_for(head, port, directory / "head.log")
        yield address
    finally:
        _end(head)
        shutil.rmtree(directory, ignore_errors=True)


def _environment() -> Mapping[str, str]:
    return {
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
        "RAY_NODE_TYPE_NAME": HEAD_TYPE,
    }


def _wait_for(head: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while b"Ray runtime started" not in log.read_bytes():
        if head.poll() is not None or time.monotonic() > deadline:
            said = log.read_text(errors="replace").strip()[-500:]
            raise ClusterError(f"no head with an autoscaler on port {port}: {said}")
        time.sleep(_POLL_S)


def _end(head: "subprocess.Popen[bytes]") -> None:
    """End the head, and whatever was started below it, its nodes among that."""
    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(head.pid).children(recursive=True)
    head.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        head.wait(END_TIMEOUT_S)
    _, alive = psutil.wait_procs(family, timeout=3.0)
    for each in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    head.kill()
    head.wait()


def _free_ports(n: int) -> list[int]:
    """Ports that are free now, and none of those that Ray gives to its workers."""
    found: list[int] = []
    with contextlib.ExitStack() as held:
        for port in _PORTS:
            if len(found) == n:
                return found
            with contextlib.suppress(OSError):
                held.enter_context(socket.socket()).bind(("127.0.0.1", port))
                found.append(port)
    raise ClusterError(f"fewer than {n} ports from {_PORTS.start} to {_PORTS.stop} are free")
