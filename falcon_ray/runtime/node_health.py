"""Which nodes of the cluster are there, and which of them were lost since.

Ray counts a node as alive until it has missed several health checks, seconds after its death:
replicas that died with it are reported earlier. So a node is asked as well whether it still
listens. The module knows nodes. It does not know what ran on them.
"""

import socket
from collections.abc import Collection
from dataclasses import dataclass

import ray

CONNECT_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Raylet:
    """The Ray process that stands for a node, by where it listens."""

    address: str
    port: int

    def answers(self) -> bool:
        """Whether it takes a connection."""
        try:
            socket.create_connection((self.address, self.port), CONNECT_TIMEOUT_S).close()
        except OSError:
            return False
        return True


def alive_nodes() -> frozenset[str]:
    """Ids of the nodes that Ray counts as alive."""
    return frozenset(_raylets())


def lost_nodes(nodes: Collection[str]) -> frozenset[str]:
    """Those of `nodes` that are no more, or do not listen."""
    if not nodes:
        return frozenset()
    raylets = _raylets()
    return frozenset(each for each in nodes if each not in raylets or not raylets[each].answers())


def _raylets() -> dict[str, Raylet]:
    return {
        node["NodeID"]: Raylet(node["NodeManagerAddress"], node["NodeManagerPort"])
        for node in ray.nodes()
        if node["Alive"]
    }
