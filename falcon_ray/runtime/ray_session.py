"""A connection to Ray: a cluster that is there, or one of our own on this machine.

It knows how to come in, what to say where that fails, and how to leave nothing behind. It does
not know searches.
"""

import logging
import os
import re
import socket
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
from falcon_ray.runtime.ray_messages import log_what_ray_prints
from falcon_ray.space.defaults import NodeShape

__all__ = ["ACCELERATOR_PREFIX", "GIB", "Cluster", "live_nodes", "ray_session"]

REACH_TIMEOUT_S = 5.0
SUBMIT = "ray job submit --address {} --working-dir . -- python scripts/search.py ..."

_VERSIONS = re.compile(r"Ray:\s*(?P<ray>\S+)\s+Python:\s*(?P<python>\S+)")
_UNAUTHENTICATED = ("unauthenticated", "authentication", "auth token")


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


def check_address(address: str) -> None:
    """Notice within seconds what Ray itself notices after minutes, or not at all.

    Raises:
        ClusterError: It is not an address of a cluster, or nobody listens there.
    """
    if address.startswith(("http://", "https://")):
        raise ClusterError(_dashboard(address))
    if address.startswith("ray://"):
        raise ClusterError(
            f"{address} is for Ray's client, which a search cannot use: it deploys and measures "
            "from within the cluster; submit it as a job by "
            f"{SUBMIT.format('http://HOST:8265')}, or give the address of Ray itself on one of its "
            "nodes, HOST:6379"
        )
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        with socket.create_connection(
            (host.strip("[]"), int(port)), timeout=REACH_TIMEOUT_S
        ) as peer:
            speaks_http = _speaks_http(peer)
    except OSError as error:
        raise ClusterError(
            f"no Ray cluster answers at {address} ({error}); check the address and the network, "
            "or leave it out to search on this machine"
        ) from error
    if speaks_http:
        raise ClusterError(_dashboard(f"http://{address}"))


def _dashboard(url: str) -> str:
    return (
        f"{url} is the address of a dashboard; submit the search there as a job by "
        f"{SUBMIT.format(url)}, or give the address of Ray itself, such as HOST:6379"
    )


def _speaks_http(peer: socket.socket) -> bool:
    """Whether an old-fashioned request is answered, which Ray's own server does not."""
    try:
        peer.sendall(b"HEAD / HTTP/1.0\r\n\r\n")
        return peer.recv(5) == b"HTTP/"
    except OSError:
        return False


def why_refused(where: str, error: BaseException) -> str:
    """What to say of a connection that Ray could not make, in one line.

    Args:
        where: The address.
        error: What Ray raised.
    """
    said = " ".join(str(each) for each in _chain(error))
    versions = _VERSIONS.findall(said)
    if len(versions) >= 2:
        (there_ray, there_python), (here_ray, here_python) = versions[:2]
        return (
            f"the cluster at {where} runs Ray {there_ray} on Python {there_python}, and this is "
            f"Ray {here_ray} on Python {here_python}; make them the same, or submit the search as "
            f"a job, which runs with what is there: {SUBMIT.format('http://HOST:8265')}"
        )
    if any(word in said.lower() for word in _UNAUTHENTICATED):
        return (
            f"the cluster at {where} refuses our token; set RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) to those of the cluster"
        )
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return (
        f"no connection to {where}: {first}; check the address, that Ray {ray.__version__} "
        "runs there, and RAY_AUTH_TOKEN"
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it came from."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


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
