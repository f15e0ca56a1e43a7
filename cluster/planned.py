"""What would be made for a `ClusterSpec`, and what it would cost: facts that were looked up.

The module looks nothing up itself and makes nothing; it does not know Ray.
"""

import datetime as dt
from dataclasses import dataclass

from cluster.spec import ClusterSpec, Market
from falcon_ray.space.catalogue import Instance


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What an instance costs, and who says so.

    Attributes:
        usd_per_hour: The whole machine, in its region and market.
        date: When that was so.
        origin: Where from, in words: "AWS Price List", "spot history", or the catalogue's source.
    """

    usd_per_hour: float
    date: dt.date
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedNode:
    """One type of nodes.

    Attributes:
        name: In Ray's cluster file: "head", or such as "g6-2xlarge-spot".
        instance: Its row of the catalogue.
        market: How it is paid for.
        max_workers: How many may run at once; 1 for the head.
        price: Of one.
        zones: Availability zones that offer it and may be used, at least one.
        most_usd_per_hour: What one can come to cost; None where `price` is fixed. For spot it is
            the price on demand, which nobody exceeds who names no price limit.
    """

    name: str
    instance: Instance
    market: Market
    max_workers: int
    price: Price
    zones: tuple[str, ...]
    most_usd_per_hour: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineImage:
    """What nodes boot from.

    Attributes:
        ami_id: Its id, pinned so that a newer "latest" relaunches nothing.
        root_device: Name of its root volume, such as "/dev/sda1".
        ssh_user: Who may log in.
        min_disk_gib: Size of its snapshot, below which no root volume can be.
    """

    ami_id: str
    root_device: str
    ssh_user: str
    min_disk_gib: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterPlan:
    """All that is decided before anything is made.

    Attributes:
        spec: What was asked for; `ssh_from` is filled in.
        account_id: Of AWS.
        caller_arn: Who asks.
        head: The node that runs all the time.
        workers: The other types, in the order of the spec.
        image: What all of them boot from.
    """

    spec: ClusterSpec
    account_id: str
    caller_arn: str
    head: PlannedNode
    workers: tuple[PlannedNode, ...]
    image: MachineImage
