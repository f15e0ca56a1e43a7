"""Clusters as the tests of what Ray does with them need them: planned, made by hand, packaged."""

import dataclasses
import datetime as dt
from collections.abc import Sequence
from pathlib import Path

from cluster.clients import Clients
from cluster.package import Package
from cluster.planned import ClusterPlan, MachineImage, PlannedNode, Price
from cluster.provisioned import Provisioned
from cluster.spec import ClusterSpec, Market, WorkerSpec
from falcon_ray.space.catalogue import Catalogue

REGION = "us-east-1"
ZONES = ("us-east-1a", "us-east-1b")
NOW = dt.datetime(2026, 12, 1, 12, 0, tzinfo=dt.UTC)
EXPIRES_AT = NOW + dt.timedelta(hours=8)
TOKEN = "0123456789abcdef" * 4
UV_WHEEL = "uv-0.13.8-py3-none-any.whl"
TRUST = '{"Version": "2012-10-17", "Statement": []}'


def node(
    instance_type: str,
    market: Market = Market.ON_DEMAND,
    *,
    name: str | None = None,
    max_workers: int = 2,
    usd_per_hour: float | None = None,
) -> PlannedNode:
    instance = Catalogue.packaged().instance(instance_type)
    usual = f"{instance_type.replace('.', '-')}{'-spot' if market is Market.SPOT else ''}"
    usd = instance.usd_per_hour if usd_per_hour is None else usd_per_hour
    return PlannedNode(
        name=name or usual,
        instance=instance,
        market=market,
        max_workers=max_workers,
        price=Price(usd_per_hour=usd, date=NOW.date(), origin="a test"),
        zones=ZONES,
    )


def plan(
    workers: Sequence[PlannedNode] = (
        node("g4dn.xlarge"),
        node("g6.xlarge", Market.SPOT, usd_per_hour=0.4),
        node("g5.xlarge"),
    ),
    *,
    idle_timeout_minutes: float = 5.0,
    max_cost_usd: float | None = 20.0,
    image: MachineImage | None = None,
) -> ClusterPlan:
    return ClusterPlan(
        spec=ClusterSpec(
            name="trial",
            region=REGION,
            head_instance_type="m6i.xlarge",
            workers=tuple(
                WorkerSpec(
                    instance_type=each.instance.instance_type,
                    market=each.market,
                    max_workers=each.max_workers,
                )
                for each in workers
            ),
            max_workers=4,
            max_usd_per_hour=None,
            max_cost_usd=max_cost_usd,
            ttl_hours=8.0,
            idle_timeout_minutes=idle_timeout_minutes,
            ssh_from="203.0.113.7/32",
            disk_gib=100,
            ami_parameter="/a/parameter",
            ami_id=None,
            availability_zones=(),
        ),
        account_id="123456789012",
        caller_arn="arn:aws:iam::123456789012:user/tester",
        head=node("m6i.xlarge", name="head", max_workers=1),
        workers=tuple(workers),
        image=image
        or MachineImage(
            ami_id="ami-12345678", root_device="/dev/sda1", ssh_user="ubuntu", min_disk_gib=45
        ),
    )


def provisioned(directory: Path) -> Provisioned:
    """A cluster of which only the files are there."""
    private_key, token_file = directory / "key.pem", directory / "token"
    for file, content in ((private_key, "no key"), (token_file, TOKEN)):
        file.write_text(content, encoding="utf-8")
        file.chmod(0o600)
    arn = "arn:aws:iam::123456789012:instance-profile/"
    return Provisioned(
        cluster_id="0123abcd",
        name="trial",
        region=REGION,
        vpc_id="vpc-1",
        subnet_ids={"us-east-1a": "subnet-a", "us-east-1b": "subnet-b"},
        security_group_id="sg-1",
        key_name="falcon-ray-trial-0123abcd",
        private_key=private_key,
        token_file=token_file,
        head_profile_arn=arn + "head",
        worker_profile_arn=arn + "worker",
        bucket="falcon-ray-trial-0123abcd",
        expires_at=EXPIRES_AT,
    )


def package(directory: Path) -> Package:
    """What nodes get, of which only the names are real."""
    names = ("falcon_ray-0.1.0-py3-none-any.whl", "constraints.txt", UV_WHEEL)
    for each in names:
        (directory / each).write_text(each, encoding="utf-8")
    wheel, constraints, installer = (directory / each for each in names)
    return Package(wheel=wheel, constraints=constraints, installer=installer)


def in_account(made: Provisioned, clients: Clients) -> Provisioned:
    """The same cluster with a network, a key, roles and a bucket in an account of moto's."""
    ec2, iam = clients.ec2, clients.iam
    vpc_id = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet_ids: dict[str, str] = {}
    for number, zone in enumerate(ZONES):
        subnet = ec2.create_subnet(
            VpcId=vpc_id, CidrBlock=f"10.0.{number}.0/24", AvailabilityZone=zone
        )["Subnet"]
        subnet_ids[zone] = subnet["SubnetId"]
        ec2.modify_subnet_attribute(
            SubnetId=subnet["SubnetId"], MapPublicIpOnLaunch={"Value": True}
        )
    group = ec2.create_security_group(GroupName="nodes", Description="nodes", VpcId=vpc_id)
    ec2.create_key_pair(KeyName=made.key_name)
    arns: list[str] = []
    for role in ("head", "worker"):
        iam.create_role(RoleName=role, AssumeRolePolicyDocument=TRUST)
        profile = iam.create_instance_profile(InstanceProfileName=role)["InstanceProfile"]
        iam.add_role_to_instance_profile(InstanceProfileName=role, RoleName=role)
        arns.append(profile["Arn"])
    clients.s3.create_bucket(Bucket=made.bucket)
    return dataclasses.replace(
        made,
        vpc_id=vpc_id,
        subnet_ids=subnet_ids,
        security_group_id=group["GroupId"],
        head_profile_arn=arns[0],
        worker_profile_arn=arns[1],
    )


def image_of(clients: Clients) -> MachineImage:
    """A machine image that moto has."""
    image = clients.ec2.describe_images(Owners=["amazon"])["Images"][0]
    return MachineImage(
        ami_id=image["ImageId"],
        root_device=image["RootDeviceName"],
        ssh_user="ubuntu",
        min_disk_gib=8,
    )
