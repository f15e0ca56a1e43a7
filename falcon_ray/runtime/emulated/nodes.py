"""Which nodes of a cluster stand for emulated GPUs, and what such a node has.

It knows the catalogue and what nodes say they have. It does not know how nodes are started.
"""

from collections.abc import Sequence

from falcon_ray.errors import ClusterError, InputError
from falcon_ray.space.catalogue import Catalogue, InstanceStatus
from falcon_ray.space.defaults import NodeShape


def node_with(gpu_type: str) -> NodeShape:
    """One GPU with its part of the cheapest instance that has it, by the price of one GPU.

    Raises:
        InputError: The catalogue does not know the GPU, or no instance that has it.
    """
    offers = Catalogue.packaged().instances_with(gpu_type)
    if not offers:
        raise InputError(
            f"no instance with a {gpu_type} has a price; add a row to falcon_ray/data/instances.csv"
        )
    active = [each for each in offers if each.status is InstanceStatus.ACTIVE] or offers
    cheapest = min(active, key=lambda each: (each.usd_per_hour / each.n_gpus, each.n_gpus))
    return NodeShape(
        cpus=max(cheapest.vcpus // cheapest.n_gpus, 1),
        ram_gib=cheapest.ram_gib / cheapest.n_gpus,
        gpu_type=gpu_type,
        n_gpus=1,
    )


def emulated_nodes(nodes: Sequence[NodeShape], gpu_types: Sequence[str]) -> tuple[NodeShape, ...]:
    """The nodes of a cluster whose GPUs are to be emulated.

    Args:
        nodes: What the cluster has.
        gpu_types: What was asked for; a name that stands twice asks for no second node.

    Raises:
        InputError: The catalogue does not know a GPU type.
        ClusterError: The cluster has no node of one of them.
    """
    catalogue = Catalogue.packaged()
    for name in gpu_types:
        catalogue.gpu(name)
    there = dict.fromkeys(node.gpu_type for node in nodes if node.gpu_type is not None)
    if missing := [name for name in dict.fromkeys(gpu_types) if name not in there]:
        raise ClusterError(
            f"the cluster has no node with {' or '.join(missing)} to emulate; it has "
            f"{', '.join(there) or 'no GPUs'}; start one there (ray start --num-gpus 1 --resources "
            f"'{{\"accelerator_type:{missing[0]}\": 1}}'), or leave out the address to emulate on "
            "this machine"
        )
    return tuple(node for node in nodes if node.gpu_type in gpu_types)
