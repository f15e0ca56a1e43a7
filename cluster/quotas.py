"""How many vCPUs of each family the account may run, and what a cluster would need of them.

The module knows EC2's vCPU quotas by name and code. It does not know what runs already, which
counts against the same quotas.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cluster.aws_errors import calling, missing_permission
from cluster.clients import Clients
from cluster.planned import PlannedNode
from cluster.spec import Market
from falcon_ray.errors import ClusterError

_NAMES = {
    Market.ON_DEMAND: r"Running On-Demand (.+) instances",
    Market.SPOT: r"All (.+) Spot Instance Requests",
}
# By the family's letters, and by letters and generation where that has a quota of its own.
# Source: the table of EC2's service quotas in AWS' general reference.
_CODES = {
    ("G", Market.ON_DEMAND): "L-DB2E81BA",
    ("G", Market.SPOT): "L-3819A6DF",
    ("P", Market.ON_DEMAND): "L-417A185B",
    ("P", Market.SPOT): "L-7212CCBC",
    ("P5", Market.SPOT): "L-C4BD4855",
    ("M", Market.ON_DEMAND): "L-1216C47A",
    ("M", Market.SPOT): "L-34B43A08",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """One of the account's limits on running vCPUs.

    Attributes:
        name: As the console shows it.
        code: As the API takes it.
        vcpus: How many may run at once.
    """

    name: str
    code: str
    vcpus: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaNeed:
    """What a cluster asks of one quota.

    Attributes:
        quota: Of the account.
        node_names: The types of nodes under it.
        least_vcpus: The smallest value with which every one of them can start alone.
        most_vcpus: What all that may run at once need.
    """

    quota: Quota
    node_names: tuple[str, ...]
    least_vcpus: int
    most_vcpus: int


def quota_needs(
    head: PlannedNode, workers: Sequence[PlannedNode], max_workers: int, clients: Clients
) -> tuple[tuple[QuotaNeed, ...], tuple[str, ...]]:
    """What a cluster asks of each quota, and remarks on those that could not be looked up.

    Args:
        head: Runs all the time.
        workers: The other types.
        max_workers: Of all of them together.
        clients: Of the region.
    """
    try:
        quotas = _quotas(clients)
        remarks: list[str] = []
    except ClusterError as error:
        quotas = ()
        if missing_permission(error.__cause__) is None:
            return (), (f"{error}; quotas are not checked",)
        # Reading one by its code is a permission of its own.
        remarks = [str(error)]
    nodes_of: dict[Quota, list[PlannedNode]] = {}
    for node in (head, *workers):
        try:
            quota = _quota_of(node, quotas, clients)
        except ClusterError as error:
            remarks.append(f"{error}; the quota of {node.name} is not checked")
            continue
        nodes_of.setdefault(quota, []).append(node)
    needs = tuple(
        _need(quota, nodes, head, max_workers=max_workers) for quota, nodes in nodes_of.items()
    )
    return needs, tuple(remarks)


def refusal(need: QuotaNeed, region: str) -> ClusterError | None:
    """Why a cluster cannot be, where some type of its nodes could never start."""
    if need.quota.vcpus >= need.least_vcpus:
        return None
    return ClusterError(
        f"quota {need.quota.name!r} ({need.quota.code}) is {need.quota.vcpus:g} vCPUs in {region}, "
        f"but {', '.join(need.node_names)} need {need.least_vcpus}; {_ask(need, region)}, or take "
        "them out of the cluster's file"
    )


def shortage(need: QuotaNeed, region: str) -> str | None:
    """That not all nodes can run at once, where every type can run by itself."""
    if not need.least_vcpus <= need.quota.vcpus < need.most_vcpus:
        return None
    return (
        f"quota {need.quota.name!r} ({need.quota.code}) is {need.quota.vcpus:g} vCPUs, all nodes "
        f"together would need {need.most_vcpus}: fewer will run; to have all, {_ask(need, region)}"
    )


def family_of(instance_type: str) -> tuple[str, str]:
    """The letters of an instance family, and those with its generation: "P", "P5" of p5en."""
    found = re.match(r"([a-z]+)(\d*)", instance_type)
    if found is None:
        raise ClusterError(f"{instance_type} is not named as instance types of EC2 are")
    letters, generation = found.groups()
    # Sizes with a letter of their own, as g4dn and g5g, belong to the letter before the number.
    return letters.upper(), f"{letters}{generation}".upper()


def _quotas(clients: Clients) -> tuple[Quota, ...]:
    """The account's own values over the defaults, which also name quotas that were never used."""
    found: dict[str, Quota] = {}
    with calling("looking up the account's quotas"):
        for call in ("list_aws_default_service_quotas", "list_service_quotas"):
            for page in clients.quotas.get_paginator(call).paginate(ServiceCode="ec2"):
                found.update({each["QuotaCode"]: _quota(each) for each in page["Quotas"]})
    return tuple(found.values())


def _quota_of(node: PlannedNode, quotas: Iterable[Quota], clients: Clients) -> Quota:
    letters, generation = family_of(node.instance.instance_type)
    for token in (generation, letters):
        for quota in quotas:
            if token in _families(quota.name, node.market):
                return quota
    code = _CODES.get((generation, node.market)) or _CODES.get((letters, node.market))
    if code is None:
        raise ClusterError(f"no quota is known for {node.instance.instance_type}")
    with calling(f"looking up the quota {code}"):
        return _quota(clients.quotas.get_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"])


def _families(name: str, market: Market) -> frozenset[str]:
    """The families in a quota's name: {"P4", "P3", "P2"} of "All P4, P3 and P2 Spot ..."."""
    found = re.fullmatch(_NAMES[market], name)
    return frozenset(re.findall(r"\b[A-Z]+\d*\b", found.group(1))) if found else frozenset()


def _quota(record: dict[str, object]) -> Quota:
    return Quota(
        name=str(record["QuotaName"]),
        code=str(record["QuotaCode"]),
        vcpus=float(str(record["Value"])),
    )


def _need(
    quota: Quota, nodes: Sequence[PlannedNode], head: PlannedNode, *, max_workers: int
) -> QuotaNeed:
    always = head.instance.vcpus if head in nodes else 0
    sizes = sorted(
        (
            each.instance.vcpus
            for each in nodes
            if each is not head
            for _ in range(each.max_workers)
        ),
        reverse=True,
    )
    return QuotaNeed(
        quota=quota,
        node_names=tuple(each.name for each in nodes),
        least_vcpus=always + max(sizes, default=0),
        most_vcpus=always + sum(sizes[:max_workers]),
    )


def _ask(need: QuotaNeed, region: str) -> str:
    return (
        "ask for more by `aws service-quotas request-service-quota-increase --service-code ec2 "
        f"--quota-code {need.quota.code} --desired-value {need.most_vcpus} --region {region}`"
    )
