"""How a cluster stands: its nodes, what it has cost, and how long it has left.

What it has cost is what the watcher on its head counts, which takes the price on demand for spot
instances as well and so errs upwards; where that has not counted yet, what the
instances that EC2 still knows cost on demand. The module only reads.
"""

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from cluster.budget_watcher import (
    LIVE,
    Rates,
    Report,
    instances_of,
    kind_of,
    read_report,
    runs_of,
    spent_usd,
    usd_per_hour,
)
from cluster.clients import Clients
from cluster.provisioned import Provisioned
from cluster.tags import as_mapping
from falcon_ray.errors import ClusterError
from falcon_ray.space.catalogue import Catalogue

LATE = dt.timedelta(minutes=15)
"""After so long without a count the watcher is taken to be dead; it counts twice a minute."""
_TYPE_TAG = "ray-user-node-type"
_STATUS_TAG = "ray-node-status"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """One instance.

    Attributes:
        instance_id: EC2's.
        node_type: As in the plan, such as "g6-2xlarge-spot".
        kind: Instance type and market, such as "g6.2xlarge/spot".
        state: EC2's: pending or running.
        setup: Ray's: "up-to-date" once it is set up.
        address: Public; None where it has none.
        hours: Since its launch.
        usd_per_hour: Its disk and its address included.
    """

    instance_id: str
    node_type: str
    kind: str
    state: str
    setup: str
    address: str | None
    hours: float
    usd_per_hour: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterStatus:
    """How a cluster stands.

    Attributes:
        name: The cluster's.
        cluster_id: Its id.
        nodes: Those that cost money, the head first.
        spent_usd: So far.
        usd_per_hour: Now.
        max_cost_usd: At which the watcher ends it; None for no limit, or where it is not known.
        counted_by: Who says what it has cost.
        expires_at: When the last node ends itself.
        hours_left: Until then.
        bucket: Where the results are.
    """

    name: str
    cluster_id: str
    nodes: tuple[NodeStatus, ...]
    spent_usd: float
    usd_per_hour: float
    max_cost_usd: float | None
    counted_by: str
    expires_at: dt.datetime
    hours_left: float
    bucket: str

    def __str__(self) -> str:
        n = len(self.nodes)
        nodes = f"{n or 'no'} {'node' if n == 1 else 'nodes'}"
        limit = "" if self.max_cost_usd is None else f" of {self.max_cost_usd:.2f}"
        lines = [
            f"{self.name} ({self.cluster_id}): {nodes}, {self.usd_per_hour:.2f} USD/h",
            f"spent: {self.spent_usd:.2f}{limit} USD ({self.counted_by})",
            f"ends:  {self.expires_at:%Y-%m-%d %H:%M} UTC, in {self.hours_left:.1f} h",
            f"results: s3://{self.bucket}/runs/",
        ]
        lines += [
            f"  {each.node_type:<24} {each.instance_id:<20} {each.state:<8} {each.setup:<16} "
            f"{each.address or '-':<16} {each.hours:5.1f} h  {each.usd_per_hour:.3f} USD/h"
            for each in self.nodes
        ]
        return "\n".join(lines)


def status(provisioned: Provisioned, clients: Clients, *, now: dt.datetime) -> ClusterStatus:
    """Look at a cluster.

    Raises:
        ClusterError: AWS does not say.
    """
    try:
        instances = instances_of(clients.ec2, provisioned.cluster_id)
        report = read_report(clients.s3, provisioned.bucket, provisioned.cluster_id)
    except (BotoCoreError, ClientError, json.JSONDecodeError) as error:
        raise ClusterError(
            f"AWS does not say how {provisioned.name} stands: {error}; check the credentials and "
            "the network"
        ) from error
    if report is None:
        report, counted_by = _uncounted(now), "at prices on demand; its head has not counted yet"
    else:
        at = dt.datetime.fromtimestamp(report.at_s, dt.UTC)
        counted_by = f"at most; counted by its head at prices on demand, last at {at:%H:%M} UTC"
        if now - at > LATE and any(each["State"]["Name"] in LIVE for each in instances):
            counted_by += ", which is too long ago: nobody ends it at its limit; up mends that"
    rates, now_s = report.rates, now.timestamp()
    runs = runs_of(instances, report.runs, now_s)
    left = provisioned.expires_at - now
    return ClusterStatus(
        name=provisioned.name,
        cluster_id=provisioned.cluster_id,
        nodes=_nodes(instances, rates, now),
        spent_usd=spent_usd(runs, rates, now_s),
        usd_per_hour=usd_per_hour(runs, rates),
        max_cost_usd=report.max_cost_usd,
        counted_by=counted_by,
        expires_at=provisioned.expires_at.astimezone(dt.UTC),
        hours_left=max(0.0, left.total_seconds() / 3600),
        bucket=provisioned.bucket,
    )


def _uncounted(now: dt.datetime) -> Report:
    """A report of nothing, with what the catalogue knows of prices."""
    prices = {
        f"{each.instance_type}/{market}": each.usd_per_hour
        for each in Catalogue.packaged().instances
        for market in ("on-demand", "spot")
    }
    rates = Rates(usd_per_hour=prices, also_usd_per_hour=0.0)
    return Report(at_s=now.timestamp(), runs=(), rates=rates, max_cost_usd=None)


def _nodes(
    instances: Sequence[Mapping[str, Any]], rates: Rates, now: dt.datetime
) -> tuple[NodeStatus, ...]:
    found: list[tuple[bool, NodeStatus]] = []
    for each in instances:
        if each["State"]["Name"] not in LIVE:
            continue
        tags = as_mapping(each.get("Tags", ()))
        kind = kind_of(each)
        node = NodeStatus(
            instance_id=each["InstanceId"],
            node_type=tags.get(_TYPE_TAG, "?"),
            kind=kind,
            state=each["State"]["Name"],
            setup=tags.get(_STATUS_TAG, "?"),
            address=each.get("PublicIpAddress"),
            hours=(now - each["LaunchTime"]).total_seconds() / 3600,
            usd_per_hour=rates.of(kind),
        )
        found.append((tags.get("ray-node-type") != "head", node))
    return tuple(node for _, node in sorted(found, key=lambda pair: (pair[0], pair[1].node_type)))
