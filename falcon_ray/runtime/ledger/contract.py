"""What the ledger is told and what it says: plain values, so that they cross processes.

Nothing here decides anything; `admission.py` does.
"""

from dataclasses import dataclass
from enum import Enum

from falcon_ray.space.defaults import NodeShape
from falcon_ray.space.demand import Demand


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerNode:
    """One node that is there now.

    Attributes:
        node_id: Ray's.
        shape: What it has, in use or not.
        used_cpus: Cores that Ray counts as in use now, by whomever.
        used_gpus: GPUs likewise.
        node_type: Name of the `NodeType` that it is one of; None where the autoscaler did not add
            it, or that is not known. Known types keep nodes from being counted twice, as there
            and as ones that can be added.
    """

    node_id: str
    shape: NodeShape
    used_cpus: float = 0.0
    used_gpus: float = 0.0
    node_type: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeType:
    """Nodes that the autoscaler can add.

    Attributes:
        name: Of the type.
        shape: What each of them has.
        max_nodes: How many there can be at once, those that are there included.
    """

    name: str
    shape: NodeShape
    max_nodes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A trial that asks for all its resources at once.

    Attributes:
        lease_id: Names the trial and, once it is granted, its lease; unique for ever.
        search_id: Whose trial it is; searches are treated alike.
        demand: What it takes.
        exclusive: Whether no other trial may be beside it on its GPUs (on its nodes, where it
            takes none): what others do there would be measured as well.
        provision_timeout_s: How long it waits for nodes that are not there yet.
    """

    lease_id: str
    search_id: str
    demand: Demand
    exclusive: bool = True
    provision_timeout_s: float = 600.0


class AskState(Enum):
    """What became of an ask."""

    WAITING = "waiting"
    """Others have what it needs."""
    PROVISIONING = "provisioning"
    """It waits for nodes that the autoscaler can add, or that are gone and may come back."""
    GRANTED = "granted"
    """The resources are its own until it gives them back or stops to tell that it is alive."""
    INFEASIBLE = "infeasible"
    """No node that the cluster ever had or can add could hold it: a fact about the demand."""
    UNAVAILABLE = "unavailable"
    """The nodes that could hold it are gone or did not come in time: no fact about the demand."""
    UNKNOWN = "unknown"
    """No such ask: it was given back, or was silent for too long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the ledger says of an ask.

    Attributes:
        state: What became of it.
        node_ids: Where its replicas have their places, one entry for each replica; empty unless
            it is granted.
        reason: For people; empty where there is nothing to explain.
        is_adding: Whether the autoscaler is asked for nodes for it, be it that no node could hold
            it or that others have those that could.
    """

    state: AskState
    node_ids: tuple[str, ...] = ()
    reason: str = ""
    is_adding: bool = False
