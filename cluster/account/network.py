"""The cluster's own network: one VPC, a public subnet for each zone, a way out, no way in.

Nothing of the account's default network is used. Nodes have public addresses instead of a NAT
gateway, which would cost by the hour and by the gigabyte; what may reach them is for the security
group to say, which the module does not know.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.account.ownership import Site
from falcon_ray.errors import ClusterError

VPC_NETWORK = "10.0.0.0/16"
_SUBNET_BITS = 20
"""Sixteen subnets of 4091 nodes each."""
ANYWHERE = "0.0.0.0/0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Where nodes are.

    Attributes:
        vpc_id: The network.
        subnet_ids: By availability zone.
    """

    vpc_id: str
    subnet_ids: Mapping[str, str]


def make_network(site: Site, zones: Sequence[str]) -> Network:
    """The network, with a subnet in each of these zones; what is there already is kept."""
    vpc_id = _vpc(site)
    subnet_ids = {zone: _subnet(site, vpc_id, zone) for zone in sorted(zones)}
    gateway_id = _gateway(site, vpc_id)
    _routes(site, vpc_id, gateway_id, list(subnet_ids.values()))
    return Network(vpc_id=vpc_id, subnet_ids=subnet_ids)


def find_network(site: Site) -> Network | None:
    """The network as it is; None where there is none."""
    vpcs = _vpcs(site)
    if not vpcs:
        return None
    known = site.journal.id_of("vpc")
    vpc_id = known if known in vpcs else min(vpcs)
    found = {each["AvailabilityZone"]: each["SubnetId"] for each in _subnets(site, vpc_id)}
    return Network(vpc_id=vpc_id, subnet_ids=dict(sorted(found.items())))


def _vpc(site: Site) -> str:
    """The VPC's id: made before all else and removed after all else, it tells whose the rest is."""
    ec2, identity = site.clients.ec2, site.identity
    return site.find_or_make(
        "vpc",
        find=lambda: _vpcs(site),
        make=lambda: ec2.create_vpc(
            CidrBlock=VPC_NETWORK, TagSpecifications=identity.specification("vpc")
        )["Vpc"]["VpcId"],
    )


def _vpcs(site: Site) -> list[str]:
    pages = site.clients.ec2.get_paginator("describe_vpcs").paginate(Filters=site.identity.filters)
    return [each["VpcId"] for page in pages for each in page["Vpcs"]]


def _in_vpc(site: Site, vpc_id: str) -> list[dict[str, object]]:
    return [*site.identity.filters, {"Name": "vpc-id", "Values": [vpc_id]}]


def _subnets(site: Site, vpc_id: str) -> list[dict[str, Any]]:
    pages = site.clients.ec2.get_paginator("describe_subnets").paginate(
        Filters=_in_vpc(site, vpc_id)
    )
    return [each for page in pages for each in page["Subnets"]]


def _subnet(site: Site, vpc_id: str, zone: str) -> str:
    ec2 = site.clients.ec2

    def find() -> list[str]:
        return [
            each["SubnetId"] for each in _subnets(site, vpc_id) if each["AvailabilityZone"] == zone
        ]

    def make() -> str:
        used = {each["CidrBlock"] for each in _subnets(site, vpc_id)}
        return ec2.create_subnet(
            VpcId=vpc_id,
            AvailabilityZone=zone,
            CidrBlock=_free_network(used),
            TagSpecifications=site.identity.specification("subnet"),
        )["Subnet"]["SubnetId"]

    subnet_id = site.find_or_make(f"subnet {zone}", find=find, make=make)
    seen = [each for each in _subnets(site, vpc_id) if each["SubnetId"] == subnet_id]
    if not (seen and seen[0]["MapPublicIpOnLaunch"]):
        site.change(
            f"public addresses in {subnet_id}",
            lambda: ec2.modify_subnet_attribute(
                SubnetId=subnet_id, MapPublicIpOnLaunch={"Value": True}
            ),
        )
    return subnet_id


def _free_network(used: set[str]) -> str:
    for each in ipaddress.ip_network(VPC_NETWORK).subnets(new_prefix=_SUBNET_BITS):
        if str(each) not in used:
            return str(each)
    raise ClusterError(
        f"all {len(used)} subnets of {VPC_NETWORK} are taken; list fewer availability_zones in "
        "the cluster's file"
    )


def _gateway(site: Site, vpc_id: str) -> str:
    ec2 = site.clients.ec2

    def seen() -> dict[str, list[str]]:
        pages = ec2.get_paginator("describe_internet_gateways").paginate(
            Filters=site.identity.filters
        )
        return {
            each["InternetGatewayId"]: [to["VpcId"] for to in each["Attachments"]]
            for page in pages
            for each in page["InternetGateways"]
        }

    gateway_id = site.find_or_make(
        "internet gateway",
        find=lambda: list(seen()),
        make=lambda: ec2.create_internet_gateway(
            TagSpecifications=site.identity.specification("internet-gateway")
        )["InternetGateway"]["InternetGatewayId"],
    )
    if vpc_id not in seen().get(gateway_id, []):
        site.change(
            f"{gateway_id} at {vpc_id}",
            lambda: ec2.attach_internet_gateway(InternetGatewayId=gateway_id, VpcId=vpc_id),
        )
    return gateway_id


def _routes(site: Site, vpc_id: str, gateway_id: str, subnet_ids: Sequence[str]) -> None:
    ec2 = site.clients.ec2

    def seen() -> dict[str, dict[str, Any]]:
        pages = ec2.get_paginator("describe_route_tables").paginate(Filters=_in_vpc(site, vpc_id))
        return {each["RouteTableId"]: each for page in pages for each in page["RouteTables"]}

    table_id = site.find_or_make(
        "route table",
        find=lambda: list(seen()),
        make=lambda: ec2.create_route_table(
            VpcId=vpc_id, TagSpecifications=site.identity.specification("route-table")
        )["RouteTable"]["RouteTableId"],
    )
    table = seen().get(table_id, {"Routes": [], "Associations": []})
    ways_out = [r for r in table["Routes"] if r.get("DestinationCidrBlock") == ANYWHERE]
    if gateway_id not in [each.get("GatewayId") for each in ways_out]:
        call = ec2.replace_route if ways_out else ec2.create_route
        site.change(
            f"way out by {table_id}",
            lambda: call(
                RouteTableId=table_id, DestinationCidrBlock=ANYWHERE, GatewayId=gateway_id
            ),
        )
    associated = {each.get("SubnetId") for each in table["Associations"]}
    for subnet_id in subnet_ids:
        if subnet_id not in associated:
            site.change(
                f"{subnet_id} with {table_id}",
                lambda subnet_id=subnet_id: ec2.associate_route_table(
                    RouteTableId=table_id, SubnetId=subnet_id
                ),
            )
