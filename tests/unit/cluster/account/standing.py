"""All that stands in an emulated account, and others' things that look like the test's cluster."""

from typing import Any

from cluster.clients import Clients
from tests.unit.cluster.account.emulated import ACCOUNT, NAME, PUBLIC_KEY, REGION, Boto


def snapshot(clients: Clients) -> dict[str, Any]:
    """All that stands in the account, by its id."""
    ec2, iam, s3 = clients.ec2, clients.iam, clients.s3
    seen: dict[str, Any] = {}
    for call, answer, key in (
        ("describe_vpcs", "Vpcs", "VpcId"),
        ("describe_subnets", "Subnets", "SubnetId"),
        ("describe_internet_gateways", "InternetGateways", "InternetGatewayId"),
        ("describe_route_tables", "RouteTables", "RouteTableId"),
        ("describe_security_groups", "SecurityGroups", "GroupId"),
        ("describe_key_pairs", "KeyPairs", "KeyPairId"),
        ("describe_volumes", "Volumes", "VolumeId"),
    ):
        seen |= {each[key]: each for each in getattr(ec2, call)()[answer]}
    for reservation in ec2.describe_instances()["Reservations"]:
        for each in reservation["Instances"]:
            if each["State"]["Name"] != "terminated":
                seen[each["InstanceId"]] = each
    for each in iam.list_roles()["Roles"]:
        name = each["RoleName"]
        policies = iam.list_role_policies(RoleName=name)["PolicyNames"]
        seen[each["Arn"]] = (iam.get_role(RoleName=name)["Role"], policies)
    for each in iam.list_instance_profiles()["InstanceProfiles"]:
        seen[each["Arn"]] = each
    for each in s3.list_buckets()["Buckets"]:
        seen[each["Name"]] = [key["Key"] for key in _objects(s3, each["Name"])]
    return seen


def _objects(s3: Boto, bucket: str) -> list[dict[str, Any]]:
    return s3.list_objects_v2(Bucket=bucket).get("Contents", [])


def bystanders(clients: Clients) -> None:
    """Things that look like the test's cluster, and are not of it."""
    ec2, iam, s3 = clients.ec2, clients.iam, clients.s3
    other = [
        {"Key": "falcon-ray:managed", "Value": "true"},
        {"Key": "falcon-ray:cluster", "Value": "lab-2"},
        {"Key": "falcon-ray:id", "Value": "ffffffff"},
        {"Key": "falcon-ray:expires-at", "Value": "2030-01-01T00:00:00+00:00"},
    ]
    half = [{"Key": "falcon-ray:cluster", "Value": NAME}, {"Key": "Name", "Value": NAME}]
    for tags in (other, half):

        def tagged(kind: str, tags: list[dict[str, str]] = tags) -> list[dict[str, Any]]:
            return [{"ResourceType": kind, "Tags": tags}]

        mark = tags[-1]["Value"][:4]
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16", TagSpecifications=tagged("vpc"))
        vpc_id = vpc["Vpc"]["VpcId"]
        ec2.create_subnet(VpcId=vpc_id, CidrBlock="10.0.0.0/20", TagSpecifications=tagged("subnet"))
        ec2.create_security_group(
            GroupName="nodes",
            Description="nodes",
            VpcId=vpc_id,
            TagSpecifications=tagged("security-group"),
        )
        ec2.import_key_pair(
            KeyName=f"falcon-ray-{mark}",
            PublicKeyMaterial=PUBLIC_KEY.encode(),
            TagSpecifications=tagged("key-pair"),
        )
        role = f"falcon-ray-{NAME}-{mark}-head"
        iam.create_role(
            Path=f"/falcon-ray/{REGION}/", RoleName=role, AssumeRolePolicyDocument="{}", Tags=tags
        )
        iam.create_instance_profile(
            Path=f"/falcon-ray/{REGION}/", InstanceProfileName=role, Tags=tags
        )
        iam.add_role_to_instance_profile(InstanceProfileName=role, RoleName=role)
        bucket = f"falcon-ray-{NAME}-{ACCOUNT}-{mark}"
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"Tags": tags})
        s3.put_object(Bucket=bucket, Key="results", Body=b"theirs")
