"""From a configuration to what Ray and Serve have to be told: resources and batching.

A new dimension that changes where or how a replica runs is one line here.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from falcon_ray.runtime.ledger.capacity import why_never_held
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.defaults import NodeShape
from falcon_ray.space.demand import Demand

BATCHES_IN_FLIGHT = 3
"""That keep a replica's queue full: one that computes, one that waits, and one on its way through
Serve's path. With two, a replica takes up a part of a batch before the rest has come."""
NODE_ID_LABEL = "ray.io/node-id"
WAITING_ROOM = 64
"""Requests that may wait in a replica beside those of these batches."""


@dataclass(frozen=True, slots=True)
class Batching:
    """How a replica forms its batches."""

    max_batch_size: int
    wait_s: float

    @property
    def saturating_requests(self) -> int:
        """Requests in flight at which every batch is full."""
        return BATCHES_IN_FLIGHT * self.max_batch_size

    @property
    def max_ongoing_requests(self) -> int:
        """What a replica must be allowed to hold: what saturates it, and more.

        What it may not hold waits in Serve's router, which looks for a place again only after
        up to half a second: random arrivals at two thirds of saturation then wait for seconds.
        """
        return self.saturating_requests + WAITING_ROOM


def batching(configuration: Configuration) -> Batching:
    """The batching queue of one replica."""
    return Batching(
        max_batch_size=configuration.count("batch_size", 1),
        wait_s=configuration.number("batch_wait_ms", 0.0) / 1000,
    )


def actor_options(configuration: Configuration, node_ids: Sequence[str] = ()) -> dict[str, Any]:
    """Options of a replica's Ray actor.

    Args:
        configuration: What a replica takes.
        node_ids: Ray nodes that it may be on; any where there are none.
    """
    demand = Demand.of(configuration)
    options: dict[str, Any] = {"num_cpus": demand.cpu_cores}
    if demand.n_gpus:
        options["num_gpus"] = demand.n_gpus
    if demand.gpu_type is not None:
        options["accelerator_type"] = demand.gpu_type
    if node_ids:
        options["label_selector"] = {NODE_ID_LABEL: f"in({','.join(sorted(set(node_ids)))})"}
    return options


def why_no_node_fits(configuration: Configuration, nodes: Sequence[NodeShape]) -> str | None:
    """Why the nodes could never hold all replicas, or None where they could.

    A configuration that does not say how many cores a replica takes is not judged by cores.
    """
    demand = Demand.of(configuration)
    if "cpu_cores" not in configuration:
        demand = replace(demand, cpu_cores=0.0)
    return why_never_held(demand, Counter(nodes))
