"""What an hour of a planned cluster costs, at best and at worst.

The module adds up prices. It does not know where they come from.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.planned import ClusterPlan, PlannedNode
from cluster.spec import ClusterSpec
from falcon_ray.errors import OverBudgetError

# us-east-1's list prices of gp3 volumes and of public IPv4 addresses; they are not looked up.
DISK_USD_PER_GIB_MONTH = 0.08
ADDRESS_USD_PER_HOUR = 0.005
_HOURS_PER_MONTH = 730


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Dollars per hour, disks and public addresses included.

    Attributes:
        best_usd_per_hour: Of the head alone, while nothing runs.
        cheapest_usd_per_hour: Of the head and one worker of the cheapest type.
        worst_usd_per_hour: Of the head and the dearest workers that may run at once, spot at the
            price on demand, which is the most that anybody pays for it.
    """

    best_usd_per_hour: float
    cheapest_usd_per_hour: float
    worst_usd_per_hour: float


def costs(plan: ClusterPlan) -> Costs:
    """What an hour of it costs."""
    extras = also_usd_per_hour(max(plan.spec.disk_gib, plan.image.min_disk_gib))
    head = plan.head.price.usd_per_hour + extras
    today = [each.price.usd_per_hour + extras for each in plan.workers]
    return Costs(
        best_usd_per_hour=head,
        cheapest_usd_per_hour=head + min(today, default=0.0),
        worst_usd_per_hour=head + sum(_dearest(plan.workers, plan.spec.max_workers, extras)),
    )


def also_usd_per_hour(disk_gib: int) -> float:
    """What a node costs beside the instance: its disk and its public address."""
    return disk_gib * DISK_USD_PER_GIB_MONTH / _HOURS_PER_MONTH + ADDRESS_USD_PER_HOUR


def refusals(found: Costs, spec: ClusterSpec) -> tuple[OverBudgetError, ...]:
    """Which of the spec's limits the cluster would not keep."""
    errors: list[OverBudgetError] = []
    limit = spec.max_usd_per_hour
    if limit is not None and found.cheapest_usd_per_hour > limit:
        errors.append(
            OverBudgetError(
                f"max_usd_per_hour is {limit:g}, but the head with one worker of the cheapest type "
                f"costs {found.cheapest_usd_per_hour:.2f} USD/h; raise it or choose smaller types"
            )
        )
    elif limit is not None and found.worst_usd_per_hour > limit:
        errors.append(
            OverBudgetError(
                f"max_usd_per_hour is {limit:g}, but the worst hour costs "
                f"{found.worst_usd_per_hour:.2f} USD; raise it, or lower max_workers"
            )
        )
    total = spec.max_cost_usd
    if total is not None and found.cheapest_usd_per_hour > total:
        errors.append(
            OverBudgetError(
                f"max_cost_usd is {total:g}, but one hour of the head with one worker of the "
                f"cheapest type costs {found.cheapest_usd_per_hour:.2f} USD; raise it or choose "
                "smaller types"
            )
        )
    return tuple(errors)


def _dearest(workers: Sequence[PlannedNode], most: int, extras: float) -> Sequence[float]:
    each_worker = [
        max(each.price.usd_per_hour, each.most_usd_per_hour or 0.0) + extras
        for each in workers
        for _ in range(each.max_workers)
    ]
    return sorted(each_worker, reverse=True)[:most]
