"""All things of our clusters that stand in an account and region, found by their tags alone.

No journal is needed for that. Tags stay visible for a while on what is gone already, so each kind
is asked for itself, and what is ending anyway is left out. The module changes nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from botocore.exceptions import ClientError

from cluster.account.bucket import tags_of_bucket
from cluster.account.patience import is_missing
from cluster.clients import Clients
from cluster.identity import PREFIX, iam_path
from cluster.tags import CLUSTER, ID, MANAGED, as_mapping


class Kind(Enum):
    """What a cluster is made of, in the order in which it is taken apart."""

    INSTANCE = "instance"
    SPOT_REQUEST = "spot request"
    VOLUME = "volume"
    INTERFACE = "network interface"
    KEY_PAIR = "key pair"
    PROFILE = "instance profile"
    ROLE = "role"
    BUCKET = "bucket"
    GROUP = "security group"
    SUBNET = "subnet"
    ROUTE_TABLE = "route table"
    GATEWAY = "internet gateway"
    VPC = "VPC"


@dataclass(frozen=True, slots=True)
class Thing:
    """Something of ours.

    Attributes:
        kind: What it is.
        thing_id: What calls of AWS that concern it take.
        tags: Its tags.
    """

    kind: Kind
    thing_id: str
    tags: Mapping[str, str]

    @property
    def cluster_id(self) -> str:
        """Of which cluster."""
        return self.tags.get(ID, "")

    def __str__(self) -> str:
        return f"{self.kind.value} {self.thing_id}"


@dataclass(frozen=True, slots=True)
class _Ec2Kind:
    """How a kind of things of EC2 is described: the call, its answer's list, the id's key."""

    kind: Kind
    call: str
    answer: str
    id_key: str
    filters: tuple[tuple[str, tuple[str, ...]], ...] = ()
    tags_key: str = "Tags"


_EC2_KINDS = (
    _Ec2Kind(
        Kind.INSTANCE,
        "describe_instances",
        "Reservations",
        "InstanceId",
        # Not "terminated", which costs nothing and goes away by itself within the hour.
        (
            (
                "instance-state-name",
                ("pending", "running", "shutting-down", "stopping", "stopped"),
            ),
        ),
    ),
    _Ec2Kind(
        Kind.SPOT_REQUEST,
        "describe_spot_instance_requests",
        "SpotInstanceRequests",
        "SpotInstanceRequestId",
        (("state", ("open", "active")),),
    ),
    _Ec2Kind(Kind.VOLUME, "describe_volumes", "Volumes", "VolumeId"),
    _Ec2Kind(
        Kind.INTERFACE,
        "describe_network_interfaces",
        "NetworkInterfaces",
        "NetworkInterfaceId",
        tags_key="TagSet",
    ),
    _Ec2Kind(Kind.KEY_PAIR, "describe_key_pairs", "KeyPairs", "KeyName"),
    _Ec2Kind(Kind.GROUP, "describe_security_groups", "SecurityGroups", "GroupId"),
    _Ec2Kind(Kind.SUBNET, "describe_subnets", "Subnets", "SubnetId"),
    _Ec2Kind(Kind.ROUTE_TABLE, "describe_route_tables", "RouteTables", "RouteTableId"),
    _Ec2Kind(Kind.GATEWAY, "describe_internet_gateways", "InternetGateways", "InternetGatewayId"),
    _Ec2Kind(Kind.VPC, "describe_vpcs", "Vpcs", "VpcId"),
)


def things(
    clients: Clients, *, name: str | None = None, cluster_id: str | None = None
) -> tuple[Thing, ...]:
    """Everything of ours but buckets, in the order in which it is taken apart.

    Args:
        clients: Of the account and region.
        name: Only of clusters of this name; None for any.
        cluster_id: Only of this cluster; None for any.
    """
    wanted = {MANAGED: "true"}
    wanted |= {} if name is None else {CLUSTER: name}
    wanted |= {} if cluster_id is None else {ID: cluster_id}
    found = [
        each
        for each in [*_of_ec2(clients, wanted), *_of_iam(clients)]
        if wanted.items() <= each.tags.items()
    ]
    order = list(Kind)
    return tuple(sorted(found, key=lambda each: (order.index(each.kind), each.thing_id)))


def nodes(clients: Clients, *, cluster_id: str) -> tuple[Thing, ...]:
    """The instances of a cluster that have not ended."""
    wanted = {MANAGED: "true", ID: cluster_id}
    return tuple(_of_kind(clients, _EC2_KINDS[0], wanted))


def buckets(clients: Clients, *, name: str, account_id: str) -> tuple[Thing, ...]:
    """The buckets of all clusters that ever had this name here and were not deleted."""
    found: list[Thing] = []
    pages = clients.s3.get_paginator("list_buckets").paginate(
        Prefix=f"{PREFIX}-{name}-{account_id}-"
    )
    for bucket in [each["Name"] for page in pages for each in page["Buckets"]]:
        answer = clients.s3.get_bucket_location(Bucket=bucket, ExpectedBucketOwner=account_id)
        if (answer["LocationConstraint"] or "us-east-1") != clients.region:
            continue
        tags = tags_of_bucket(clients, bucket, account_id) or {}
        if tags.get(MANAGED) == "true" and tags.get(CLUSTER) == name:
            found.append(Thing(Kind.BUCKET, bucket, tags))
    return tuple(found)


def _of_ec2(clients: Clients, wanted: Mapping[str, str]) -> Iterator[Thing]:
    for each in _EC2_KINDS:
        yield from _of_kind(clients, each, wanted)


def _of_kind(clients: Clients, kind: _Ec2Kind, wanted: Mapping[str, str]) -> Iterator[Thing]:
    filters = [{"Name": f"tag:{key}", "Values": [value]} for key, value in wanted.items()]
    filters += [{"Name": name, "Values": list(values)} for name, values in kind.filters]
    for record in _records(clients.ec2, kind, filters):
        yield Thing(kind.kind, record[kind.id_key], as_mapping(record.get(kind.tags_key, [])))


def _records(
    ec2: Any,  # noqa: ANN401 - as boto3 makes it
    kind: _Ec2Kind,
    filters: Sequence[Mapping[str, object]],
) -> Iterator[Mapping[str, Any]]:
    if ec2.can_paginate(kind.call):
        pages = ec2.get_paginator(kind.call).paginate(Filters=filters)
    else:
        describe: Callable[..., Any] = getattr(ec2, kind.call)
        pages = [describe(Filters=filters)]
    for page in pages:
        for each in page[kind.answer]:
            if kind.kind is Kind.INSTANCE:
                yield from each["Instances"]
            else:
                yield each


def _of_iam(clients: Clients) -> Iterator[Thing]:
    iam, path = clients.iam, iam_path(clients.region)

    def profile(name: str) -> Any:  # noqa: ANN401 - as boto3 returns it
        return iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]

    def role(name: str) -> Any:  # noqa: ANN401 - as boto3 returns it
        return iam.get_role(RoleName=name)["Role"]

    for page in iam.get_paginator("list_instance_profiles").paginate(PathPrefix=path):
        for each in page["InstanceProfiles"]:
            name = each["InstanceProfileName"]
            if each["Path"] == path:
                yield from _tagged(Kind.PROFILE, name, profile)
    for page in iam.get_paginator("list_roles").paginate(PathPrefix=path):
        for each in page["Roles"]:
            name = each["RoleName"]
            if each["Path"] == path:
                yield from _tagged(Kind.ROLE, name, role)


def _tagged(kind: Kind, name: str, get: Callable[[str], Any]) -> Iterator[Thing]:
    """The thing with its tags, which lists of IAM leave out; nothing if it has just gone."""
    try:
        yield Thing(kind, name, as_mapping(get(name).get("Tags", [])))
    except ClientError as error:
        if not is_missing(error):
            raise
