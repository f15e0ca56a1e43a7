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

_RIGHT = frozenset({"at most", "GPUs", "vCPUs", "GiB", "USD/h"})


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
    _say(console, f"image {plan.image.ami_id}, SSH from {spec.ssh_from} only")
    rows = [
        {
            "node": each.name,
            "at most": str(each.max_workers),
            "type": each.instance.instance_type,
            "GPU": _gpus(each.instance),
            "vCPUs": str(each.instance.vcpus),
            "USD/h": f"{each.price.usd_per_hour:.4f}",
            "price of": _described(each.price, today),
            "zones": ", ".join(each.zones),
        }
        for each in (plan.head, *plan.workers)
    ]
    console.print(_table(rows))
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
    rows = [
        {
            "type": each.instance_type,
            "GPU": _gpus(each),
            "vCPUs": str(each.vcpus),
            "GiB": f"{each.ram_gib:g}",
            "USD/h": f"{priced.prices[each.instance_type].usd_per_hour:.4f}",
            "price of": _described(priced.prices[each.instance_type], today),
            "": "" if each.status is InstanceStatus.ACTIVE else "retired: for replay only",
        }
        for each in instances
    ]
    _say(console, f"On demand in {region}, Linux", style="bold")
    console.print(_table(rows))
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


def _described(price: Price, today: dt.date) -> str:
    return f"{_age(price, today)}, {price.origin}"


def _age(price: Price, today: dt.date) -> str:
    days = (today - price.date).days
    return "today" if days <= 0 else f"{price.date} ({days} day{'s' if days > 1 else ''} old)"


def _gpus(instance: Instance) -> str:
    return f"{instance.n_gpus} x {instance.gpu_type}" if instance.gpu_type else "-"


def _worst(max_workers: int) -> str:
    return f"with the dearest {max_workers} workers, spot at its price on demand"


def _table(rows: Sequence[Mapping[str, str]]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for name in rows[0]:
        table.add_column(
            name,
            justify="right" if name in _RIGHT else "left",
            overflow="fold",
            no_wrap=name in _RIGHT or name in ("node", "type"),
        )
    for row in rows:
        table.add_row(*(Text(each) for each in row.values()))
    return table


def _say(console: Console, text: str, *, style: str = "") -> None:
    console.print(Text(text, style=style), soft_wrap=True)
