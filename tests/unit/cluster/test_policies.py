"""What the cluster's machines may do, compared with files that were read and approved."""

import datetime as dt
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from cluster import policies
from cluster.identity import Identity

GOLDEN = Path(__file__).parent / "golden"
IDENTITY = Identity(
    name="lab",
    cluster_id="0123abcd",
    region="us-east-1",
    account_id="123456789012",
    partition="aws",
    expires_at=dt.datetime(2026, 3, 1, 20, tzinfo=dt.UTC),
)
ID = "falcon-ray:id"


def launchable(*, has_spot: bool = True) -> policies.Launchable:
    return policies.Launchable(
        instance_types=("g6.2xlarge", "g4dn.2xlarge", "g6.2xlarge"),
        image_id="ami-0123456789abcdef0",
        vpc_id="vpc-0123456789abcdef0",
        has_spot=has_spot,
    )


DOCUMENTS = {
    "trust": policies.trust(),
    "worker": policies.of_worker(IDENTITY),
    "head": policies.of_head(IDENTITY, launchable()),
    "head_on_demand": policies.of_head(IDENTITY, launchable(has_spot=False)),
    "bucket": policies.of_bucket(IDENTITY),
}


def statements(*names: str) -> Iterator[tuple[str, policies.Document]]:
    for name in names or DOCUMENTS:
        for each in DOCUMENTS[name]["Statement"]:
            yield name, each


def listed(value: str | Sequence[str]) -> Sequence[str]:
    return [value] if isinstance(value, str) else value


def that(sid: str) -> policies.Document:
    (found,) = [each for _, each in statements("head") if each["Sid"] == sid]
    return found


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_policy_is_the_one_that_was_approved(name: str) -> None:
    approved = json.loads((GOLDEN / f"policy_{name}.json").read_text(encoding="utf-8"))
    assert DOCUMENTS[name] == approved


def test_nothing_is_allowed_by_a_wildcard_of_actions() -> None:
    for name, each in statements():
        if each["Effect"] == "Allow":
            assert "NotAction" not in each, name
            assert not [action for action in listed(each["Action"]) if "*" in action], name


def test_only_what_ec2_cannot_restrict_is_allowed_on_all_resources() -> None:
    everywhere = [
        action
        for _, each in statements("head", "worker")
        if "*" in listed(each["Resource"])
        for action in listed(each["Action"])
    ]
    assert everywhere == ["ec2:DescribeInstances"]


def test_only_tls_is_left_by_the_one_denial() -> None:
    ((name, denial),) = [each for each in statements() if each[1]["Effect"] == "Deny"]
    assert name == "bucket"
    assert denial["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_a_worker_needs_imdsv2_our_tags_a_planned_type_and_its_own_profile() -> None:
    condition = that("LaunchWorkers")["Condition"]
    assert condition["StringEquals"] == {
        "aws:RequestTag/falcon-ray:managed": "true",
        "aws:RequestTag/falcon-ray:cluster": "lab",
        "aws:RequestTag/falcon-ray:id": "0123abcd",
        "ec2:InstanceType": ["g4dn.2xlarge", "g6.2xlarge"],
        "ec2:MetadataHttpTokens": "required",
    }
    assert condition["ArnEquals"]["ec2:InstanceProfile"].endswith("lab-0123abcd-worker")


def test_every_launch_but_of_the_image_and_of_spot_requests_has_a_condition() -> None:
    launching = [each for _, each in statements("head") if each["Action"] == ["ec2:RunInstances"]]
    free = {each["Sid"] for each in launching if "Condition" not in each}
    assert free == {"LaunchFromImage", "LaunchSpot"}
    resources = {
        resource.split(":")[5].split("/")[0] for each in launching for resource in each["Resource"]
    }
    assert resources == {
        "image",
        "instance",
        "key-pair",
        "network-interface",
        "security-group",
        "spot-instances-request",
        "subnet",
        "volume",
    }


def test_disks_that_are_not_encrypted_cannot_be_launched() -> None:
    assert that("LaunchWithEncryptedDisk")["Condition"] == {"Bool": {"ec2:Encrypted": "true"}}


def test_only_nodes_of_the_cluster_can_be_ended_or_marked() -> None:
    own = {f"aws:ResourceTag/{ID}": "0123abcd"}
    assert that("EndOwnNodes")["Condition"] == {"StringEquals": own}
    assert that("NoteStateOfOwnNodes")["Condition"]["StringEquals"] == own
    marks = that("NoteStateOfOwnNodes")["Condition"]["ForAllValues:StringLike"]["aws:TagKeys"]
    assert not [each for each in marks if each.startswith(("falcon-ray", "*"))]


def test_the_head_hands_on_the_workers_role_alone_and_to_ec2_alone() -> None:
    passing = that("GiveWorkersTheirRole")
    assert passing["Action"] == ["iam:PassRole"]
    assert passing["Resource"] == [
        "arn:aws:iam::123456789012:role/falcon-ray/us-east-1/falcon-ray-lab-0123abcd-worker"
    ]
    assert passing["Condition"] == {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}


def test_workers_may_touch_nothing_but_the_bucket() -> None:
    for _, each in statements("worker"):
        assert all(action.startswith("s3:") for action in each["Action"])
        for resource in each["Resource"]:
            assert resource.removesuffix("/*") == f"arn:aws:s3:::{IDENTITY.bucket}"


def test_inline_policies_fit_into_a_role() -> None:
    # IAM takes 10,240 characters of inline policies for each role, white space not counted.
    for name in ("head", "worker"):
        assert len(policies.as_text(DOCUMENTS[name])) < 10_240 // 2


def test_the_longest_names_fit() -> None:
    identity = Identity(
        name="a" * 24,
        cluster_id="0123abcd",
        region="ap-northeast-1",
        account_id="123456789012",
        partition="aws",
        expires_at=IDENTITY.expires_at,
    )
    assert len(identity.bucket) <= 63
    assert len(identity.worker_role) <= 64
    assert len(identity.full_name) <= 255
