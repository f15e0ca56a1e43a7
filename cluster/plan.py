"""What a `ClusterSpec` comes to in this account today: looked up, added up, and judged.

Planning reads and never changes anything in the account. It does not know how any of it is
printed, made, or given to Ray.
"""

import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from cluster.aws_errors import calling
from cluster.clients import Clients
from cluster.costs import Costs, costs
from cluster.costs import refusals as budget_refusals
from cluster.hardware import checked_rows
from cluster.images import machine_image
from cluster.offers import zones_that_offer
from cluster.own_address import own_address
from cluster.planned import ClusterPlan, PlannedNode, Price
from cluster.prices import on_demand_prices, spot_price
from cluster.quotas import QuotaNeed, quota_needs, refusal, shortage
from cluster.spec import ClusterSpec, Market, WorkerSpec
from cluster.user_cache import UserCache
from falcon_ray.errors import FalconRayError, InputError
from falcon_ray.space.catalogue import Catalogue, Instance, InstanceStatus

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Planning:
    """A plan, and all there is to say about it.

    Attributes:
        plan: What would be made.
        costs: Of an hour of it.
        quotas: What it asks of the account's.
        remarks: What the user should know: prices that are not today's, what was not checked.
        refusals: Why it must not be made; none where it may.
    """

    plan: ClusterPlan
    costs: Costs
    quotas: tuple[QuotaNeed, ...]
    remarks: tuple[str, ...]
    refusals: tuple[FalconRayError, ...]


def make_plan(
    spec: ClusterSpec,
    clients: Clients,
    *,
    catalogue: Catalogue,
    cache: UserCache,
    now: dt.datetime,
    find_own_address: Callable[[], str] = own_address,
) -> Planning:
    """Look up everything that decides what a cluster is and costs.

    Args:
        spec: What is asked for.
        clients: Of the spec's region.
        catalogue: Rows of instance types.
        cache: Of prices and hardware.
        now: With its time zone.
        find_own_address: Gives the caller's own network; asked only if the spec names none.

    Raises:
        ClusterError: No credentials, a permission is missing, a type is not offered, or there
            is no machine image.
        InputError: A type is unknown or retired, or something in the spec cannot be.
    """
    rows = _rentable(spec, catalogue)
    with calling("asking who the caller is"):
        identity = clients.sts.get_caller_identity()
    zones = zones_that_offer(
        [each.instance_type for each in rows], spec.availability_zones, clients
    )
    image, remarks = machine_image(spec, clients)
    rows, about_hardware = checked_rows(rows, clients, cache=cache.hardware, now=now)
    priced = on_demand_prices(rows, clients, cache=cache.prices, now=now)
    by_type = {each.instance_type: each for each in rows}
    head = PlannedNode(
        name="head",
        instance=by_type[spec.head_instance_type],
        market=Market.ON_DEMAND,
        max_workers=1,
        price=priced.prices[spec.head_instance_type],
        zones=_near(
            zones[spec.head_instance_type],
            {zone for each in spec.workers for zone in zones[each.instance_type]},
        ),
    )
    planned = [
        _worker(each, by_type, zones, priced.prices, clients=clients, now=now)
        for each in spec.workers
    ]
    workers = tuple(node for node, _ in planned)
    needs, about_quotas = quota_needs(head, workers, spec.max_workers, clients)
    plan = ClusterPlan(
        spec=spec if spec.ssh_from else replace(spec, ssh_from=find_own_address()),
        account_id=identity["Account"],
        caller_arn=identity["Arn"],
        head=head,
        workers=workers,
        image=image,
    )
    hourly = costs(plan)
    return Planning(
        plan=plan,
        costs=hourly,
        quotas=needs,
        remarks=(
            *remarks,
            *about_hardware,
            *priced.remarks,
            *(remark for _, remark in planned if remark),
            *about_quotas,
            *_given(shortage(each, spec.region) for each in needs),
        ),
        refusals=(
            *_given(refusal(each, spec.region) for each in needs),
            *budget_refusals(hourly, spec),
        ),
    )


def _rentable(spec: ClusterSpec, catalogue: Catalogue) -> list[Instance]:
    """The rows of all types, each once, the head's first."""
    names = dict.fromkeys([spec.head_instance_type, *(each.instance_type for each in spec.workers)])
    rows = [catalogue.instance(name) for name in names]
    for row in rows:
        if row.status is InstanceStatus.RETIRED:
            raise InputError(
                f"{row.instance_type} ({row.gpu_type}) is retired: the catalogue keeps it to "
                "replay old measurements, and no cluster is made of it; choose another type"
            )
    return rows


def _worker(
    worker: WorkerSpec,
    rows: Mapping[str, Instance],
    zones: Mapping[str, tuple[str, ...]],
    prices: Mapping[str, Price],
    *,
    clients: Clients,
    now: dt.datetime,
) -> tuple[PlannedNode, str | None]:
    name = worker.instance_type
    price, most, remark = prices[name], None, None
    if worker.market is Market.SPOT:
        most = price.usd_per_hour
        price, remark = spot_price(name, zones[name], price, clients=clients, now=now)
    node = PlannedNode(
        name=f"{name.replace('.', '-')}-{worker.market.value}",
        instance=rows[name],
        market=worker.market,
        max_workers=worker.max_workers,
        price=price,
        zones=zones[name],
        most_usd_per_hour=most,
    )
    return node, remark


def _near(zones: tuple[str, ...], workers_zones: set[str]) -> tuple[str, ...]:
    """Zones for the head: those that may hold workers too, for traffic between zones is billed."""
    return tuple(zone for zone in zones if zone in workers_zones) or zones


def _given(each: Iterable[_T | None]) -> tuple[_T, ...]:
    return tuple(value for value in each if value is not None)
