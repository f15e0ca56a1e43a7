"""What a user asks of a cluster, checked for itself.

The module does not know what AWS offers, what it costs, or how any of it is made.
"""

from dataclasses import dataclass
from enum import Enum


class Market(Enum):
    """How an instance is paid for."""

    ON_DEMAND = "on-demand"
    SPOT = "spot"
    """Cheaper, and taken away at two minutes' notice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpec:
    """One type of workers, none of which runs until a trial asks for it.

    Attributes:
        instance_type: As EC2 calls it.
        market: How it is paid for; for spot with on-demand behind it, two types are asked for.
        max_workers: How many may run at once.
    """

    instance_type: str
    market: Market
    max_workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSpec:
    """The user's short file, with its defaults filled in.

    Attributes:
        name: Of the cluster: lower case letters, digits and hyphens, at most 24.
        region: Of AWS.
        head_instance_type: Of the node that runs drivers and the autoscaler, no trials.
        workers: Types of workers, each (instance type, market) once.
        max_workers: Of all types together.
        max_usd_per_hour: `up` refuses a cluster whose worst hour costs more; None for no limit.
        max_cost_usd: The head ends the cluster before it has cost more; None for no limit.
        ttl_hours: So long after `up` every node ends itself, whatever else happens.
        idle_timeout_minutes: After so long without work a worker ends.
        ssh_from: The one network that may connect, in CIDR notation, /16 or narrower; None for
            the caller's own address.
        disk_gib: Of every node's encrypted root volume.
        ami_parameter: SSM parameter that names the machine image; `ami_id` goes before it.
        ami_id: The machine image itself; None to look it up.
        availability_zones: In which nodes may be; none for all that offer a worker's type.
    """

    name: str
    region: str
    head_instance_type: str
    workers: tuple[WorkerSpec, ...]
    max_workers: int
    max_usd_per_hour: float | None
    max_cost_usd: float | None
    ttl_hours: float
    idle_timeout_minutes: float
    ssh_from: str | None
    disk_gib: int
    ami_parameter: str
    ami_id: str | None
    availability_zones: tuple[str, ...]
