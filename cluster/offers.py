"""Where an instance type can be had, and whether the catalogue is right about it.

The module knows zones and hardware. It does not know prices or quotas.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from cluster.aws_errors import calling
from cluster.clients import Clients
from cluster.price_list import regions_with
from falcon_ray.errors import ClusterError, InputError
from falcon_ray.space.catalogue import Instance

# Sizes are rounded when they are written down.
_RAM_TOLERANCE = 0.01


def zones_that_offer(
    instance_types: Sequence[str], wanted_zones: Sequence[str], clients: Clients
) -> Mapping[str, tuple[str, ...]]:
    """The availability zones of the region that offer each instance type, at least one each.

    Args:
        instance_types: Unique names.
        wanted_zones: Those that may be used; all of the region where empty.
        clients: Of the region.

    Raises:
        ClusterError: A type is not offered there; the message says where it is.
    """
    with calling(f"looking up the availability zones of {clients.region}"):
        answer = clients.ec2.describe_availability_zones(
            Filters=[
                {"Name": "zone-type", "Values": ["availability-zone"]},
                {"Name": "state", "Values": ["available"]},
            ]
        )
    open_zones = {each["ZoneName"] for each in answer["AvailabilityZones"]}
    if unknown := [zone for zone in wanted_zones if zone not in open_zones]:
        raise ClusterError(
            f"availability_zones: {', '.join(unknown)} is not open to this account; open are "
            f"{', '.join(sorted(open_zones))}"
        )
    offered: dict[str, set[str]] = {name: set() for name in instance_types}
    with calling(f"looking up which instance types {clients.region} offers"):
        pages = clients.ec2.get_paginator("describe_instance_type_offerings").paginate(
            LocationType="availability-zone",
            Filters=[{"Name": "instance-type", "Values": sorted(offered)}],
        )
        for page in pages:
            for each in page["InstanceTypeOfferings"]:
                offered[each["InstanceType"]].add(each["Location"])
    usable = open_zones & set(wanted_zones or open_zones)
    for name, zones in offered.items():
        if not zones & usable:
            raise ClusterError(_not_offered(name, sorted(zones & open_zones), clients))
    return {name: tuple(sorted(zones & usable)) for name, zones in offered.items()}


def checked_facts(
    instances: Sequence[Instance], clients: Clients
) -> tuple[list[Instance], list[str]]:
    """The rows as EC2 describes the hardware, and a remark for each that was wrong.

    A row that EC2 does not describe stays as it is.
    """
    try:
        described = _described([each.instance_type for each in instances], clients)
    except ClusterError as error:
        return list(instances), [f"{error}; the catalogue's facts hold"]
    found = [_corrected(each, described.get(each.instance_type)) for each in instances]
    return [row for row, _ in found], [remark for _, remark in found if remark]


def _described(instance_types: Sequence[str], clients: Clients) -> Mapping[str, Mapping[str, Any]]:
    with calling("looking up the hardware of instance types"):
        pages = clients.ec2.get_paginator("describe_instance_types").paginate(
            Filters=[{"Name": "instance-type", "Values": sorted(set(instance_types))}]
        )
        return {each["InstanceType"]: each for page in pages for each in page["InstanceTypes"]}


def _corrected(row: Instance, described: Mapping[str, Any] | None) -> tuple[Instance, str | None]:
    if described is None:
        return row, None
    gpus = described.get("GpuInfo", {}).get("Gpus", [])
    ram_gib = described["MemoryInfo"]["SizeInMiB"] / 1024
    facts = {
        "vcpus": described["VCpuInfo"]["DefaultVCpus"],
        "ram_gib": row.ram_gib if abs(ram_gib / row.ram_gib - 1) < _RAM_TOLERANCE else ram_gib,
        "n_gpus": sum(each["Count"] for each in gpus),
        "gpu_memory_mib": gpus[0]["MemoryInfo"]["SizeInMiB"] if gpus else 0,
    }
    wrong = {
        name: (getattr(row, name), value)
        for name, value in facts.items()
        if value != getattr(row, name)
    }
    if not wrong:
        return row, None
    changes = ", ".join(f"{name} {old:g} -> {new:g}" for name, (old, new) in wrong.items())
    try:
        corrected = replace(row, **facts)
    except InputError as error:
        return row, f"{row.instance_type}: EC2 contradicts the catalogue ({changes}): {error}"
    return corrected, f"{row.instance_type}: EC2's facts replace the catalogue's: {changes}"


def _not_offered(instance_type: str, other_zones: Sequence[str], clients: Clients) -> str:
    if other_zones:
        return (
            f"{instance_type} is not offered in the zones of availability_zones; add one of "
            f"{', '.join(other_zones)}, or leave availability_zones empty"
        )
    try:
        regions = regions_with(clients, instance_type)
    except ClusterError as error:
        where = f"where it is could not be looked up ({error})"
    else:
        where = f"it is in {', '.join(regions)}" if regions else "no region sells it by the hour"
    return (
        f"{instance_type} is not offered in {clients.region}; {where}; change region or the type "
        "in the cluster's file"
    )
