"""What a search makes of a cluster's nodes: their words in the journal, and what they cost.

It knows nodes and the catalogue. It does not know what is searched.
"""

from collections import Counter
from collections.abc import Sequence

from falcon_ray.errors import InputError
from falcon_ray.report.record import SearchHeader
from falcon_ray.space.catalogue import Catalogue, Instance, cpu_node
from falcon_ray.space.defaults import NodeShape


def check_same_nodes(header: SearchHeader, nodes: Sequence[NodeShape]) -> None:
    """Refuse to go on elsewhere: measurements of different machines do not compare.

    How many nodes there are of a kind does not matter, nor that a kind is gone: nodes come, go and
    die. What needs a kind that is gone is tried last.

    Args:
        header: Of the search.
        nodes: What the cluster has, and what can be added to it.

    Raises:
        InputError: The cluster has kinds of nodes that it did not have when the search began, or
            nothing else.
    """
    before, now = str(header.settings["nodes"]), describe_nodes(nodes)
    if not _kinds(now) <= _kinds(before):
        raise InputError(
            f"the search began on nodes with {before}, this cluster has {now}; go on there, or "
            "start a new search here"
        )


def _kinds(description: str) -> set[str]:
    """The kinds of nodes in what `describe_nodes` gave."""
    return {each.partition(" x ")[2] for each in description.split(", ")}


def describe_nodes(nodes: Sequence[NodeShape]) -> str:
    """How many nodes there are of each kind, in words."""
    kinds = Counter((node.cpus, node.gpu_type, node.n_gpus) for node in nodes)
    return ", ".join(
        f"{n} x {cpus} CPUs" + (f" and {n_gpus} {gpu_type}" if n_gpus else "")
        for (cpus, gpu_type, n_gpus), n in sorted(kinds.items(), key=str)
    )


def node_prices(nodes: Sequence[NodeShape], *, usd_per_hour: float | None) -> tuple[Instance, ...]:
    """The instances whose prices the nodes are charged by.

    A node with GPUs is charged as the catalogue's instances with that GPU; one without as its
    vCPUs' part of the catalogue's CPU instance, unless its price is given.

    Raises:
        InputError: The catalogue lacks a GPU, or one price is given for different nodes.
    """
    catalogue = Catalogue.packaged()
    instances: dict[str, Instance] = {}
    if usd_per_hour is not None and any(node.n_gpus for node in nodes):
        raise InputError(
            "usd_per_hour prices nodes without GPUs; for GPUs the catalogue's instances are used"
        )
    for node in nodes:
        if node.gpu_type is not None:
            found = catalogue.instances_with(node.gpu_type)
            if not found:
                raise InputError(
                    f"no instance with a {node.gpu_type} has a price; add a row to "
                    "falcon_ray/data/instances.csv"
                )
        elif node.cpus > 0:
            found = (cpu_node(node.cpus, max(round(node.ram_gib), 1), usd_per_hour),)
        else:
            found = ()
        instances |= {each.instance_type: each for each in found}
    return tuple(instances.values())
