"""What the caller may not do is named before anything is made."""

import pytest

from cluster.clients import Clients
from cluster.state.directory import StateDirectory
from falcon_ray.errors import ClusterError
from tests.unit.cluster.account.emulated import (
    failing,
    up,
)
from tests.unit.cluster.account.standing import snapshot

pytestmark = pytest.mark.aws

DENIED = "UnauthorizedOperation: You are not authorized to perform this operation."


def test_all_missing_permissions_of_ec2_are_named_at_once(
    clients: Clients, state: StateDirectory
) -> None:
    before = snapshot(clients)
    poor = failing(clients, {"create_vpc": [DENIED], "run_instances": [DENIED]})
    with pytest.raises(ClusterError, match=r"may not ec2:CreateVpc, ec2:RunInstances") as caught:
        up(poor, state)
    assert caught.value.exit_code == 4
    assert snapshot(clients) == before


NOT_AUTHORIZED = "AccessDenied: User: me is not authorized to perform: {} on resource: x"


@pytest.mark.parametrize(
    ("call", "code", "permission"),
    [
        ("create_role", NOT_AUTHORIZED.format("iam:CreateRole"), "iam:CreateRole"),
        ("create_bucket", NOT_AUTHORIZED.format("s3:CreateBucket"), "s3:CreateBucket"),
        ("get_bucket_tagging", NOT_AUTHORIZED.format("s3:GetBucketTagging"), "s3:GetBucketTagging"),
        ("create_subnet", DENIED, "ec2:CreateSubnet"),
    ],
)
def test_a_permission_that_is_missing_on_the_way_is_named(
    clients: Clients, state: StateDirectory, call: str, code: str, permission: str
) -> None:
    with pytest.raises(ClusterError, match=permission):
        up(failing(clients, {call: [code]}), state)


def test_a_head_that_may_not_be_launched_as_it_stands_is_refused(
    clients: Clients, state: StateDirectory
) -> None:
    code = "UnauthorizedOperation: User: me is not authorized to perform: iam:PassRole on resource"
    with pytest.raises(ClusterError, match="iam:PassRole"):
        up(failing(clients, {"run_instances": ["DryRunOperation", code]}), state)
