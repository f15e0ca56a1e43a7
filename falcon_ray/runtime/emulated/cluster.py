"""A Ray cluster on this machine whose nodes say that they have GPUs, for emulation alone.

It knows how such nodes are started and ended. It does not know what runs on them.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ray._private.authentication.authentication_token_setup import (
    enable_token_auth_by_default,
    ensure_token_if_auth_enabled,
)
from ray.cluster_utils import Cluster

from falcon_ray.errors import ClusterError, InputError
from falcon_ray.runtime.cluster_nodes import ACCELERATOR_LABEL
from falcon_ray.runtime.emulated.nodes import node_with
from falcon_ray.runtime.emulated.ray_directory import ray_directory
from falcon_ray.runtime.ray_session import ACCELERATOR_PREFIX, GIB
from falcon_ray.space.defaults import NodeShape

STORE_BYTES = 100 * 2**20


@contextmanager
def emulated_cluster(gpu_types: Sequence[str]) -> Iterator[str]:
    """Keep a head and one node for each GPU type that is named, and give the head's address.

    The head takes no trials. A node says that it has one GPU of its type, and the GPU's part of
    the CPUs and of the memory of the cheapest instance that has it. All is ended on exit, by
    process id.

    Args:
        gpu_types: As the catalogue or Ray names them; a name that stands twice makes two nodes.

    Raises:
        InputError: None is named, or the catalogue does not know one.
        ClusterError: A node does not start.
    """
    if not gpu_types:
        raise InputError("name a GPU type to emulate, such as T4")
    shapes = [node_with(each) for each in gpu_types]
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    logging.getLogger("ray").setLevel(logging.ERROR)
    with ray_directory():
        cluster = Cluster()
        try:
            yield _started(cluster, shapes)
        finally:
            cluster.shutdown()


def _started(cluster: Cluster, shapes: Sequence[NodeShape]) -> str:
    """Its address, once all nodes are there."""
    try:
        # As `ray.init` does for a Ray that it starts.
        enable_token_auth_by_default()
        ensure_token_if_auth_enabled()
        _start(cluster, shapes)
    except Exception as error:  # Ray raises plain ones
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ClusterError(
            f"the emulated cluster did not start: {first}; emulate fewer GPUs at once, or search "
            "on a cluster that is there"
        ) from error
    address = cluster.address
    assert address is not None, "its head was started"
    return address


def _start(cluster: Cluster, shapes: Sequence[NodeShape]) -> None:
    cluster.add_node(
        num_cpus=0,
        object_store_memory=STORE_BYTES,
        include_dashboard=False,
        # Any free port: the usual ones may be those of another Ray here.
        dashboard_agent_listen_port=0,
        # Workers are for what runs, not for every CPU that a node says it has.
        _system_config={"prestart_worker_first_driver": False},
    )
    for shape in shapes:
        cluster.add_node(
            num_cpus=shape.cpus,
            num_gpus=shape.n_gpus,
            memory=int(shape.ram_gib * GIB),
            object_store_memory=STORE_BYTES,
            resources={f"{ACCELERATOR_PREFIX}{shape.gpu_type}": 1},
            labels={ACCELERATOR_LABEL: shape.gpu_type},
        )
