"""A connection to Ray: a cluster that is there, or one of our own on this machine.

It knows what the nodes have and how to leave nothing behind. It does not know searches.
"""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray

from falcon_ray.errors import ClusterError
from falcon_ray.space.defaults import NodeShape

GIB = 2.0**30
ACCELERATOR_PREFIX = "accelerator_type:"
REACH_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Cluster:
    """The cluster that a search runs on.

    Attributes:
        nodes: What each live node has.
        is_local: Whether it was started for this search, on this machine.
    """

    nodes: tuple[NodeShape, ...]
    is_local: bool


@contextmanager
def ray_session(address: str | None) -> Iterator[Cluster]:
    """Connect to Ray, and disconnect (or end the Ray that was started) on exit.

    Args:
        address: A cluster's address; None takes RAY_ADDRESS, or the Ray that this process is
            connected to already, or else starts one of its own.

    Raises:
        ClusterError: There is no cluster at the address, or it refuses us.
    """
    if ray.is_initialized():
        yield Cluster(live_nodes(), is_local=False)
        return
    is_local = address is None and not os.environ.get("RAY_ADDRESS")
    if not is_local:
        _check_reachable(address or os.environ["RAY_ADDRESS"])
    # Ray's own table of trials would scroll between our lines.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    if is_local:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(
            address="local" if is_local else address,
            namespace="falcon_ray",
            include_dashboard=False if is_local else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        where = "a local Ray" if is_local else (address or os.environ["RAY_ADDRESS"])
        raise ClusterError(
            f"no connection to {where}: {first}; check the address, that Ray {ray.__version__} "
            "runs there, and RAY_AUTH_TOKEN"
        ) from error
    try:
        yield Cluster(live_nodes(), is_local=is_local)
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Notice within seconds what Ray itself notices after minutes: that nobody listens there."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=REACH_TIMEOUT_S).close()
    except OSError as error:
        raise ClusterError(
            f"no Ray cluster answers at {address} ({error}); check the address and the network, "
            "or leave it out to search on this machine"
        ) from error


def live_nodes() -> tuple[NodeShape, ...]:
    """What every live node of the connected cluster has.

    Raises:
        ClusterError: No node is alive.
    """
    shapes: list[NodeShape] = []
    for node in ray.nodes():
        if not node["Alive"]:
            continue
        resources: dict[str, float] = node["Resources"]
        gpu_types = [
            name.removeprefix(ACCELERATOR_PREFIX)
            for name in resources
            if name.startswith(ACCELERATOR_PREFIX)
        ]
        n_gpus = int(resources.get("GPU", 0)) if gpu_types else 0
        shapes.append(
            NodeShape(
                cpus=int(resources.get("CPU", 0)),
                ram_gib=resources.get("memory", 0.0) / GIB,
                gpu_type=gpu_types[0] if n_gpus else None,
                n_gpus=n_gpus,
            )
        )
    if not shapes:
        raise ClusterError("the cluster has no live node; start one, then search again")
    return tuple(shapes)
