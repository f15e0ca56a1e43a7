"""A plan and a catalogue, printed for people or as one JSON document.

The module knows how things look. It does not look anything up and decides nothing.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cluster.costs import ADDRESS_USD_PER_HOUR, DISK_USD_PER_GIB_MONTH
from cluster.plan import Planning
from cluster.planned import PlannedNode, Price
from cluster.prices import Priced
from falcon_ray.space.catalogue import Instance, InstanceStatus

_RIGHT = frozenset({"max", "vCPUs", "GiB", "USD/h"})


def plan_json(planning: Planning, today: dt.date) -> dict[str, Any]:
    """All of a plan as plain JSON values."""
    plan, spec, costs = planning.plan, planning.plan.spec, planning.costs
    return {
        "name": spec.name,
        "region": spec.region,
        "account_id": plan.account_id,
        "caller_arn": plan.caller_arn,
        "ssh_from": spec.ssh_from,
        "image": {
            "ami_id": plan.image.ami_id,
            "root_device": plan.image.root_device,
            "ssh_user": plan.image.ssh_user,
            "min_disk_gib": plan.image.min_disk_gib,
        },
        "nodes": [_node_json(each, today) for each in (plan.head, *plan.workers)],
        "max_workers": spec.max_workers,
        "best_usd_per_hour": costs.best_usd_per_hour,
        "cheapest_usd_per_hour": costs.cheapest_usd_per_hour,
        "worst_usd_per_hour": costs.worst_usd_per_hour,
        "max_usd_per_hour": spec.max_usd_per_hour,
        "max_cost_usd": spec.max_cost_usd,
        "ttl_hours": spec.ttl_hours,
        "quotas": [
            {
                "name": each.quota.name,
                "code": each.quota.code,
                "vcpus": each.quota.vcpus,
                "least_vcpus": each.least_vcpus,
                "most_vcpus": each.most_vcpus,
                "nodes": list(each.node_names),
            }
            for each in planning.quotas
        ],
        "remarks": list(planning.remarks),
        "refusals": [
            {"exit_code": each.exit_code, "reason": str(each)} for each in planning.refusals
        ],
    }


def print_plan(console: Console, planning: Planning, today: dt.date) -> None:
    """A plan for people: nodes, dollars, quotas, remarks."""
    plan, spec, costs = planning.plan, planning.plan.spec, planning.costs
    _say(
        console,
        f"Cluster {spec.name} in {spec.region}, account {plan.account_id}, as {plan.caller_arn}",
        style="bold",
    )
    head = plan.head.instance.instance_type
    _say(console, f"image {plan.image.ami_id}, head {head}, SSH from {spec.ssh_from} only")
    nodes = (plan.head, *plan.workers)
    origins = _footnotes([each.price for each in nodes])
    rows = [
        {
            "node": each.name,
            "max": str(each.max_workers),
            "GPU": _gpus(each.instance),
            "USD/h": f"{each.price.usd_per_hour:.4f}",
            "price": _described(each.price, origins, today),
            "zones": " ".join(zone.removeprefix(spec.region) for zone in each.zones),
        }
        for each in nodes
    ]
    console.print(_table(rows))
    _say_footnotes(console, origins)
    _say(console, f"at most {spec.max_workers} workers at once, none at first")
    _say(console, f"best   {costs.best_usd_per_hour:8.2f} USD/h: the head alone")
    _say(console, f"worst  {costs.worst_usd_per_hour:8.2f} USD/h: {_worst(spec.max_workers)}")
    _say(
        console,
        f"       {costs.worst_usd_per_hour * spec.ttl_hours:8.2f} USD at the very most in the "
        f"{spec.ttl_hours:g} h after which the head ends itself",
    )
    _say(
        console,
        f"with {spec.disk_gib} GiB of disk ({DISK_USD_PER_GIB_MONTH:g} USD per GiB and month) and "
        f"a public address ({ADDRESS_USD_PER_HOUR:g} USD/h) for every node: us-east-1's list "
        "prices; traffic and the bucket are not counted",
    )
    if spec.max_cost_usd is not None:
        _say(console, f"the head ends the cluster before it has cost {spec.max_cost_usd:g} USD")
    for each in planning.quotas:
        _say(
            console,
            f"quota {each.quota.name} ({each.quota.code}): {each.quota.vcpus:g} vCPUs, up to "
            f"{each.most_vcpus} would be used",
        )
    for remark in planning.remarks:
        _say(console, f"note: {remark}")


def catalogue_json(
    instances: Sequence[Instance], priced: Priced, region: str, today: dt.date
) -> dict[str, Any]:
    """The rows with their prices as plain JSON values."""
    rows = [
        {
            **each.to_json(),
            **_price_json(priced.prices[each.instance_type], today),
            "region": region,
        }
        for each in instances
    ]
    for row in rows:
        del row["price_source"]
    return {"region": region, "instances": rows, "remarks": list(priced.remarks)}


def print_catalogue(
    console: Console, instances: Sequence[Instance], priced: Priced, region: str, today: dt.date
) -> None:
    """The rows with their prices for people."""
    origins = _footnotes([priced.prices[each.instance_type] for each in instances])
    rows = [
        {
            "type": each.instance_type + ("" if each.status is InstanceStatus.ACTIVE else " *"),
            "GPU": _gpus(each),
            "vCPUs": str(each.vcpus),
            "GiB": f"{each.ram_gib:g}",
            "USD/h": f"{priced.prices[each.instance_type].usd_per_hour:.4f}",
            "price": _described(priced.prices[each.instance_type], origins, today),
        }
        for each in instances
    ]
    _say(console, f"On demand in {region}, Linux", style="bold")
    console.print(_table(rows))
    _say_footnotes(console, origins)
    _say(console, "* retired: kept to replay old measurements; no cluster is made of it")
    for remark in priced.remarks:
        _say(console, f"note: {remark}")


def _node_json(node: PlannedNode, today: dt.date) -> dict[str, Any]:
    return {
        "name": node.name,
        "instance_type": node.instance.instance_type,
        "market": node.market.value,
        "max_workers": node.max_workers,
        "gpu_type": node.instance.gpu_type,
        "n_gpus": node.instance.n_gpus,
        "vcpus": node.instance.vcpus,
        "ram_gib": node.instance.ram_gib,
        **_price_json(node.price, today),
        "most_usd_per_hour": node.most_usd_per_hour,
        "zones": list(node.zones),
    }


def _price_json(price: Price, today: dt.date) -> dict[str, Any]:
    return {
        "usd_per_hour": price.usd_per_hour,
        "price_date": price.date.isoformat(),
        "price_age_days": (today - price.date).days,
        "price_origin": price.origin,
    }


def _footnotes(prices: Sequence[Price]) -> dict[str, int]:
    """A number for each origin."""
    origins = dict.fromkeys(each.origin for each in prices)
    return {origin: number for number, origin in enumerate(origins, start=1)}


def _say_footnotes(console: Console, origins: Mapping[str, int]) -> None:
    for origin, number in origins.items():
        _say(console, f"[{number}] {origin}")


def _described(price: Price, origins: Mapping[str, int], today: dt.date) -> str:
    return f"{_age(price, today)} [{origins[price.origin]}]"


def _age(price: Price, today: dt.date) -> str:
    days = (today - price.date).days
    return "today" if days <= 0 else f"{days} day{'s' if days > 1 else ''} old"


def _gpus(instance: Instance) -> str:
    return f"{instance.n_gpus} x {instance.gpu_type}" if instance.gpu_type else "-"


def _worst(max_workers: int) -> str:
    return f"with the dearest {max_workers} workers, spot at its price on demand"


def _table(rows: Sequence[Mapping[str, str]]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for name in rows[0]:
        table.add_column(name, justify="right" if name in _RIGHT else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(each) for each in row.values()))
    return table


def _say(console: Console, text: str, *, style: str = "") -> None:
    console.print(Text(text, style=style), soft_wrap=True)
