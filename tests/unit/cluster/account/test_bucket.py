"""The bucket that results are kept in: its settings, its mark, and whose it must be."""

import json
from collections.abc import Callable

import pytest

from cluster.clients import Clients
from cluster.state.directory import StateDirectory
from falcon_ray.errors import ClusterError
from tests.unit.cluster.account.emulated import (
    CLUSTER_ID,
    NAME,
    Boto,
    Crash,
    account,
    connect,
    failing,
    plan,
    recording,
    up,
    wrapped,
)

pytestmark = pytest.mark.aws

DENIED = "AccessDenied: Access Denied"  # as S3 says it of a bucket of another account


def without_tags_on_create(clients: Clients, *, crash: bool) -> Clients:
    """Clients of an S3 that takes no tags with a bucket, and is killed behind that call."""

    def around(name: str, call: Callable[..., Boto], arguments: dict[str, Boto]) -> Boto:
        answer = call(**arguments)
        if name == "create_bucket":
            clients.s3.delete_bucket_tagging(Bucket=arguments["Bucket"])
            if crash:
                raise Crash(name)
        return answer

    return wrapped(clients, around)


def tags_of(clients: Clients, bucket: str) -> dict[str, str]:
    tags = clients.s3.get_bucket_tagging(Bucket=bucket)["TagSet"]
    return {each["Key"]: each["Value"] for each in tags}


def test_the_bucket_is_private_encrypted_unversioned_and_spoken_to_by_tls(
    clients: Clients, state: StateDirectory
) -> None:
    bucket = up(clients, state).bucket
    s3 = clients.s3
    assert bucket == f"falcon-ray-{NAME}-123456789012-{CLUSTER_ID}"
    blocked = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    assert set(blocked.values()) == {True}
    assert len(blocked) == 4
    rules = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rules[0]["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)
    (statement,) = json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"]
    assert statement["Effect"] == "Deny"
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    owned = s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]["Rules"]
    assert owned == [{"ObjectOwnership": "BucketOwnerEnforced"}]


def test_a_bucket_elsewhere_is_made_in_its_region(state: StateDirectory) -> None:
    with account():
        clients = connect("eu-west-1")
        zones = ("eu-west-1a", "eu-west-1b")
        made = up(clients, state, plan(region="eu-west-1", head_zones=zones, worker_zones=zones))
        place = clients.s3.get_bucket_location(Bucket=made.bucket)["LocationConstraint"]
        assert place == "eu-west-1"
        assert "/falcon-ray/eu-west-1/" in made.head_profile_arn


@pytest.mark.parametrize("crash", [False, True])
def test_a_bucket_that_was_made_without_tags_is_marked(
    clients: Clients, state: StateDirectory, *, crash: bool
) -> None:
    untagging = without_tags_on_create(clients, crash=crash)
    if crash:
        with pytest.raises(Crash):
            up(untagging, state)
        untagging = clients
    made = up(untagging, StateDirectory(state.path.parent, NAME))
    assert tags_of(clients, made.bucket)["falcon-ray:id"] == CLUSTER_ID
    watched, calls = recording(clients)
    up(watched, state)
    assert calls == []


def test_a_bucket_of_another_account_is_refused(clients: Clients, state: StateDirectory) -> None:
    theirs = failing(clients, {"get_bucket_tagging": [DENIED]})
    with pytest.raises(ClusterError, match=r"^bucket '.*' is there already and is not of"):
        up(theirs, state)
    assert clients.s3.list_buckets()["Buckets"] == []


@pytest.mark.parametrize("code", ["BucketAlreadyExists", "BucketAlreadyOwnedByYou"])
def test_a_bucket_that_appears_meanwhile_is_refused(
    clients: Clients, state: StateDirectory, code: str
) -> None:
    with pytest.raises(ClusterError, match=r"^bucket '.*' is there already and is not of"):
        up(failing(clients, {"create_bucket": [code]}), state)


def test_what_s3_does_not_answer_is_said(clients: Clients, state: StateDirectory) -> None:
    with pytest.raises(ClusterError, match=r"making cluster 'lab': .*SlowDown.*in a minute"):
        up(failing(clients, {"get_bucket_encryption": ["SlowDown"]}), state)


@pytest.mark.parametrize("setting", ["public_access_block", "bucket_encryption", "bucket_policy"])
def test_a_setting_that_somebody_removed_is_put_right(
    clients: Clients, state: StateDirectory, setting: str
) -> None:
    made = up(clients, state)
    getattr(clients.s3, f"delete_{setting}")(Bucket=made.bucket)
    watched, calls = recording(clients)
    up(watched, state)
    assert [name for name, _ in calls] == [f"put_{setting}"]
