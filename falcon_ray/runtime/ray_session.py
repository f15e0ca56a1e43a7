"""A connection to Ray: a cluster that is there, or one of our own on this machine.

It knows how to come in, and how to leave nothing behind. It does not know searches.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray
from ray.exceptions import RayError

from falcon_ray.errors import ClusterError
from falcon_ray.runtime.cluster_nodes import (
    ACCELERATOR_PREFIX,
    GIB,
    ledger_nodes,
    node_types,
    possible_nodes,
)
from falcon_ray.runtime.ledger.contract import NodeType
from falcon_ray.runtime.ray_address import check_address, why_refused
from falcon_ray.runtime.ray_messages import log_what_ray_prints
from falcon_ray.space.defaults import NodeShape

__all__ = ["ACCELERATOR_PREFIX", "GIB", "Cluster", "live_nodes", "ray_session"]


@dataclass(frozen=True, slots=True)
class Cluster:
    """The cluster that a search runs on.

    Attributes:
        nodes: What each live node has that takes work.
        is_local: Whether it was started for this search, on this machine.
        types: Of nodes that its autoscaler can add.
    """

    nodes: tuple[NodeShape, ...]
    is_local: bool
    types: tuple[NodeType, ...] = ()

    @property
    def possible_nodes(self) -> tuple[NodeShape, ...]:
        """The nodes that are there, and behind them all that could be added to them."""
        return possible_nodes(self.nodes, self.types)


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
        yield _cluster(is_local=False)
        return
    given = address or os.environ.get("RAY_ADDRESS")
    is_local = not given
    if given:
        check_address(given)
    # Ray's own table of trials would scroll between our lines.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    if is_local:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    log_what_ray_prints()
    try:
        ray.init(
            address="local" if is_local else address,
            namespace="falcon_ray",
            include_dashboard=False if is_local else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, RayError, RuntimeError, ValueError) as error:
        ray.shutdown()  # what of it had begun
        raise ClusterError(why_refused(given or "a local Ray", error)) from error
    try:
        yield _cluster(is_local=is_local)
    finally:
        ray.shutdown()


def _cluster(*, is_local: bool) -> Cluster:
    types = () if is_local else node_types()
    nodes = tuple(node.shape for node in ledger_nodes())
    if not nodes and not types:
        raise ClusterError(
            "the cluster has no live node that takes work, and can add none; start one, then "
            "search again"
        )
    return Cluster(nodes, is_local=is_local, types=types)


def live_nodes() -> tuple[NodeShape, ...]:
    """What every live node of the connected cluster has that takes work.

    Raises:
        ClusterError: There is none.
    """
    nodes = tuple(node.shape for node in ledger_nodes())
    if not nodes:
        raise ClusterError(
            "the cluster has no live node that takes work; start one, then search again"
        )
    return nodes
