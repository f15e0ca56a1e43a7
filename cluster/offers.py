"""Where an instance type can be had.

The module knows zones and regions. It does not know prices or quotas.
"""

from collections.abc import Mapping, Sequence

from cluster.aws_errors import calling
from cluster.clients import Clients
from cluster.price_list import regions_with
from falcon_ray.errors import ClusterError


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
