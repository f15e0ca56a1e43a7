"""The cluster that a search runs on: one that is there, one of our own, or an emulated one.

It knows where each comes from. It does not know what is searched.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import ray

from falcon_ray.runtime.cluster_nodes import check_known_gpu_types
from falcon_ray.runtime.emulated.cluster import emulated_cluster
from falcon_ray.runtime.emulated.nodes import emulated_nodes
from falcon_ray.runtime.ray_session import Cluster, ray_session
from falcon_ray.runtime.search_request import SearchRequest


@contextmanager
def search_cluster(request: SearchRequest) -> Iterator[Cluster]:
    """Connect to the cluster of a search, and leave or end it on exit.

    An emulated search takes the emulated GPUs of a cluster that is there, and starts such a cluster
    on this machine where there is none.

    Raises:
        ClusterError: There is no cluster, it refuses us or lacks what is to be emulated, or nobody
            knows what that is.
    """
    check_known_gpu_types(request.emulate or ())
    if not request.emulate:
        with ray_session(request.address) as cluster:
            yield cluster
    elif request.address or os.environ.get("RAY_ADDRESS") or ray.is_initialized():
        with ray_session(request.address) as cluster:
            yield _emulating(cluster, tuple(request.emulate))
    else:
        with emulated_cluster(request.emulate) as address, ray_session(address) as cluster:
            # It ends with the search, as a Ray of our own does.
            yield replace(_emulating(cluster, tuple(request.emulate)), is_local=True)


def _emulating(cluster: Cluster, gpu_types: tuple[str, ...]) -> Cluster:
    """The part of a cluster that stands for these GPUs."""
    emulated_nodes(cluster.possible_nodes, gpu_types)
    return replace(
        cluster,
        nodes=tuple(each for each in cluster.nodes if each.gpu_type in gpu_types),
        types=tuple(each for each in cluster.types if each.shape.gpu_type in gpu_types),
    )
