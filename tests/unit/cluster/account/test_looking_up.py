"""What stands of a cluster, as `status`, `submit` and their like find it."""

from collections.abc import Callable

import pytest

from cluster.clients import Clients
from cluster.provision import provisioned
from cluster.provisioned import Provisioned
from cluster.state.directory import StateDirectory
from falcon_ray.errors import ClusterError
from tests.unit.cluster.account.emulated import (
    NAME,
    connect,
    plan,
    up,
)
from tests.unit.cluster.account.standing import bystanders

pytestmark = pytest.mark.aws


def test_what_stands_can_be_looked_up(clients: Clients, state: StateDirectory) -> None:
    made = up(clients, state)
    assert provisioned(NAME, clients, state) == made
    (state.path / "journal.jsonl").unlink()
    fresh = StateDirectory(state.path.parent, NAME)
    assert provisioned(NAME, clients, fresh) == made
    assert not (state.path / "journal.jsonl").exists()


def test_a_journal_of_another_region_does_not_hide_a_cluster_here(
    clients: Clients, state: StateDirectory
) -> None:
    made = up(clients, state)
    elsewhere = StateDirectory(state.path.parent / "elsewhere", NAME)
    there, zones = connect("eu-west-1"), ("eu-west-1a",)
    the_plan = plan(region="eu-west-1", head_zones=zones, worker_zones=zones)
    up(there, elsewhere, the_plan, cluster_id="feedbeef")
    assert provisioned(NAME, clients, elsewhere).vpc_id == made.vpc_id


def test_a_cluster_that_is_not_there_is_no_cluster(clients: Clients, state: StateDirectory) -> None:
    bystanders(clients)
    with pytest.raises(ClusterError, match="no cluster 'lab' in us-east-1"):
        provisioned(NAME, clients, state)
    assert not state.path.exists()


def without_key(clients: Clients, made: Provisioned) -> None:
    clients.ec2.delete_key_pair(KeyName=made.key_name)


def without_profile(clients: Clients, made: Provisioned) -> None:
    name = made.worker_profile_arn.rsplit("/", 1)[1]
    clients.iam.remove_role_from_instance_profile(InstanceProfileName=name, RoleName=name)
    clients.iam.delete_instance_profile(InstanceProfileName=name)


def without_bucket(clients: Clients, made: Provisioned) -> None:
    clients.s3.delete_bucket_policy(Bucket=made.bucket)  # moto lets it deny everything
    clients.s3.delete_bucket(Bucket=made.bucket)


@pytest.mark.parametrize("take", [without_key, without_profile, without_bucket])
def test_half_a_cluster_is_not_complete(
    clients: Clients, state: StateDirectory, take: Callable[[Clients, Provisioned], None]
) -> None:
    take(clients, up(clients, state))
    with pytest.raises(ClusterError, match="not complete"):
        provisioned(NAME, clients, state)
