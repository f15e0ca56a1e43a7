"""Placement groups that ask Ray's autoscaler for nodes, one for each lease that waits for some.

A group is a demand and nothing more: as soon as Ray has found a place for it, it is removed, and
the ledger gives that place to whoever is next. It knows Ray's placement groups. It does not know
who needs them.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from ray.util.placement_group import (
    PlacementGroup,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

from falcon_ray.space.demand import Demand

logger = logging.getLogger(__name__)

PREFIX = "falcon:"
"""Of the names of our groups; the lease's own stands behind it."""
TYPE_FRACTION = 0.001
"""Of the resource that names an accelerator type: what Ray itself asks for with one."""


class Groups(Protocol):
    """The placement groups of a cluster, by name."""

    def names(self) -> Iterable[str]:
        """Of all that are there."""
        ...

    def add(self, name: str, bundles: Sequence[Mapping[str, float]]) -> None:
        """Ask for places for these."""
        ...

    def is_placed(self, name: str) -> bool:
        """Whether one that was added has its places."""
        ...

    def remove(self, name: str) -> None:
        """Ask for it no more; one that is not there is none either."""
        ...


class PlacementGroups:
    """Asks for nodes by placement groups; a `Provisioner`.

    A ledger that is started again no longer knows for whom the groups of the one before it were:
    they are removed before anything is asked for.

    Args:
        groups: Those of the cluster.
    """

    def __init__(self, groups: Groups) -> None:
        self._groups = groups
        self._are_ours = False
        self._asked: set[str] = set()

    def want(self, demands: Mapping[str, Demand]) -> None:
        """See `Provisioner.want`."""
        self._remove_those_left()
        for lease_id in self._asked - demands.keys():
            self._remove(lease_id)
        for lease_id, demand in demands.items():
            if lease_id not in self._asked:
                self._groups.add(f"{PREFIX}{lease_id}", bundles(demand))
                self._asked.add(lease_id)
            elif self._groups.is_placed(f"{PREFIX}{lease_id}"):
                self._remove(lease_id)

    def _remove(self, lease_id: str) -> None:
        self._groups.remove(f"{PREFIX}{lease_id}")
        self._asked.discard(lease_id)

    def _remove_those_left(self) -> None:
        if self._are_ours:
            return
        for name in self._groups.names():
            if name.startswith(PREFIX):
                logger.info("removing the placement group %s of a ledger before this one", name)
                self._groups.remove(name)
        self._are_ours = True


class RayGroups:
    """Ray's placement groups, as `Groups`.

    Names are those of one namespace, that of the job which made the ledger: it is the same when
    the ledger is started again, and where the ledger is gone for good, so are its groups.
    """

    def __init__(self) -> None:
        self._groups: dict[str, PlacementGroup] = {}

    def names(self) -> Iterable[str]:
        """See `Groups.names`."""
        table: Mapping[str, Mapping[str, Any]] = placement_group_table()
        return tuple(each["name"] for each in table.values() if each["state"] != "REMOVED")

    def add(self, name: str, bundles: Sequence[Mapping[str, float]]) -> None:
        """See `Groups.add`."""
        self._groups[name] = placement_group(
            [dict(each) for each in bundles], strategy="PACK", name=name
        )

    def is_placed(self, name: str) -> bool:
        """See `Groups.is_placed`."""
        said: Mapping[str, Any] = placement_group_table(self._groups[name])
        return said.get("state") == "CREATED"

    def remove(self, name: str) -> None:
        """See `Groups.remove`."""
        with suppress(ValueError):  # it is gone
            remove_placement_group(self._groups.get(name) or get_placement_group(name))
        self._groups.pop(name, None)


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
