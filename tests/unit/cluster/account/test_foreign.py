"""Something of our name that does not carry our tags is refused, and never touched."""

from collections.abc import Callable

import pytest

from cluster.clients import Clients
from cluster.state.directory import StateDirectory
from cluster.teardown import tear_down
from falcon_ray.errors import ClusterError
from tests.unit.cluster.account.emulated import (
    ACCOUNT,
    CLUSTER_ID,
    NAME,
    PUBLIC_KEY,
    Crash,
    FakeTime,
    crashing,
    up,
)
from tests.unit.cluster.account.standing import bystanders, snapshot

pytestmark = pytest.mark.aws

FULL_NAME = f"falcon-ray-{NAME}-{CLUSTER_ID}"
BUCKET = f"falcon-ray-{NAME}-{ACCOUNT}-{CLUSTER_ID}"
OF_ANOTHER = [
    {"Key": "falcon-ray:managed", "Value": "true"},
    {"Key": "falcon-ray:cluster", "Value": "another"},
    {"Key": "falcon-ray:id", "Value": "ffffffff"},
]


def key_pair(clients: Clients) -> None:
    clients.ec2.import_key_pair(KeyName=FULL_NAME, PublicKeyMaterial=PUBLIC_KEY.encode())


def role(clients: Clients) -> None:
    clients.iam.create_role(RoleName=f"{FULL_NAME}-head", AssumeRolePolicyDocument="{}")


def role_of_another_cluster(clients: Clients) -> None:
    clients.iam.create_role(
        Path="/falcon-ray/us-east-1/",
        RoleName=f"{FULL_NAME}-worker",
        AssumeRolePolicyDocument="{}",
        Tags=OF_ANOTHER,
    )


def profile(clients: Clients) -> None:
    clients.iam.create_instance_profile(InstanceProfileName=f"{FULL_NAME}-head")


def bucket(clients: Clients) -> None:
    clients.s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"Tags": OF_ANOTHER})
    clients.s3.put_object(Bucket=BUCKET, Key="theirs", Body=b"theirs")


def bucket_without_tags(clients: Clients) -> None:
    clients.s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"Tags": []})
    clients.s3.delete_bucket_tagging(Bucket=BUCKET)


FOREIGN = [
    (key_pair, "key pair", FULL_NAME),
    (role, "role", f"{FULL_NAME}-head"),
    (role_of_another_cluster, "role", f"{FULL_NAME}-worker"),
    (profile, "instance profile", f"{FULL_NAME}-head"),
    (bucket, "bucket", BUCKET),
    (bucket_without_tags, "bucket", BUCKET),
]


@pytest.mark.parametrize(
    ("make", "what", "name"), FOREIGN, ids=[each[0].__name__ for each in FOREIGN]
)
def test_a_foreign_thing_of_our_name_is_refused_and_outlives_our_end(
    clients: Clients,
    state: StateDirectory,
    make: Callable[[Clients], None],
    what: str,
    name: str,
) -> None:
    bystanders(clients)
    make(clients)
    before = snapshot(clients)
    for _ in range(2):  # what is refused once is not adopted when asked again
        with pytest.raises(ClusterError, match=f"^{what} '{name}' is there already"):
            up(clients, state)
        assert before.items() <= snapshot(clients).items()
    tear_down(NAME, clients, state, delete_bucket=True, patience=FakeTime().patience)
    assert snapshot(clients) == before


def test_a_foreign_security_group_in_our_network_is_refused(
    clients: Clients, state: StateDirectory
) -> None:
    with pytest.raises(Crash):
        up(crashing(clients, at=1, when="after"), state)
    vpcs = clients.ec2.describe_vpcs(
        Filters=[{"Name": "tag:falcon-ray:id", "Values": [CLUSTER_ID]}]
    )["Vpcs"]
    clients.ec2.create_security_group(
        GroupName=FULL_NAME, Description="theirs", VpcId=vpcs[0]["VpcId"]
    )
    with pytest.raises(ClusterError, match=r"^security group .* is there already"):
        up(clients, StateDirectory(state.path.parent, NAME))
