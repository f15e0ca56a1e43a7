"""How many trials run at once where nobody said: what the cluster can measure side by side.

It knows nodes and candidates. It does not know what trials are, nor how they get their places.
"""

import math
from collections.abc import Sequence

from falcon_ray.space.configuration import ConfigurationSpace
from falcon_ray.space.defaults import NodeShape
from falcon_ray.space.demand import Demand

ROUNDS = 3
"""Trials that run at once learn nothing from each other, so that at least so many groups of them
follow one another."""


def trials_at_once(
    space: ConfigurationSpace,
    nodes: Sequence[NodeShape],
    *,
    max_trials: int,
    colocate: bool,
) -> int:
    """As many of the smallest trials as fit, yet a third of all trials at most.

    Args:
        space: What may be tried.
        nodes: What the cluster has, or can have.
        max_trials: Of the whole search.
        colocate: Whether several may share a GPU, or a node where they take no GPU.
    """
    demands = {Demand.of(each) for each in space.candidates}
    fewest = min(each.replicas for each in demands)
    smallest = {each for each in demands if each.replicas == fewest}
    fitting = sum(
        max(_fitting(each, node, colocate=colocate) for each in smallest) for node in nodes
    )
    return max(1, min(fitting // fewest, math.ceil(max_trials / ROUNDS)))


def _fitting(demand: Demand, node: NodeShape, *, colocate: bool) -> int:
    """Replicas of different trials that a node holds at once."""
    by_cores = math.floor(node.cpus / demand.cpu_cores) if demand.cpu_cores else node.cpus
    if demand.gpu_type is not None and demand.gpu_type != node.gpu_type:
        return 0
    if demand.n_gpus == 0:
        return by_cores if colocate else min(by_cores, 1)
    taken = demand.n_gpus if colocate else math.ceil(demand.n_gpus)
    return min(by_cores, math.floor(node.n_gpus / taken + 1e-9))
