"""Placement groups that ask Ray's autoscaler for nodes, one for each lease that waits for some.

A group is a demand and nothing more: as soon as Ray has found a place for it, it is removed, and
the ledger gives that place to whoever is next. It knows Ray's placement groups. It does not know
who needs them.
"""

import logging
from collections.abc import Mapping
from typing import Any

from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

from falcon_ray.space.demand import Demand

logger = logging.getLogger(__name__)

TYPE_FRACTION = 0.001
"""Of the resource that names an accelerator type: what Ray itself asks for with one."""


class PlacementGroups:
    """Asks for nodes by placement groups; a `Provisioner`."""

    def __init__(self) -> None:
        self._groups: dict[str, PlacementGroup] = {}

    def want(self, demands: Mapping[str, Demand]) -> None:
        """See `Provisioner.want`."""
        for lease_id in [each for each in self._groups if each not in demands]:
            remove_placement_group(self._groups.pop(lease_id))
        for lease_id, demand in demands.items():
            group = self._groups.get(lease_id)
            if group is None:
                self._groups[lease_id] = placement_group(bundles(demand), strategy="PACK")
            elif _is_placed(group):
                remove_placement_group(self._groups.pop(lease_id))


def bundles(demand: Demand) -> list[dict[str, float]]:
    """One bundle of resources for each replica."""
    bundle: dict[str, float] = {}
    if demand.cpu_cores:
        bundle["CPU"] = demand.cpu_cores
    if demand.n_gpus:
        bundle["GPU"] = demand.n_gpus
    if demand.gpu_type is not None:
        bundle[f"accelerator_type:{demand.gpu_type}"] = TYPE_FRACTION
    return [dict(bundle) for _ in range(demand.replicas)]


def _is_placed(group: PlacementGroup) -> bool:
    said: dict[str, Any] = placement_group_table(group)
    return said.get("state") == "CREATED"
