"""AWS shows late what was done: that is waited for, within bounds, by the clock that is given."""

from dataclasses import replace

import pytest

from cluster.account.ownership import USABLE_WITHIN_S
from cluster.account.patience import EVERY_S
from cluster.clients import Clients
from cluster.state.directory import StateDirectory
from falcon_ray.errors import ClusterError
from tests.unit.cluster.account.emulated import (
    CLUSTER_ID,
    NAME,
    Boto,
    Crash,
    FakeTime,
    crashing,
    failing,
    up,
)

pytestmark = pytest.mark.aws

UNKNOWN_PROFILE = "InvalidParameterValue: Value (arn) for parameter iamInstanceProfile.arn is invalid. Invalid IAM Instance Profile ARN"  # noqa: E501 - as EC2 says it


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("create_subnet", "InvalidVpcID.NotFound"),
        ("modify_subnet_attribute", "InvalidSubnetID.NotFound"),
        ("attach_internet_gateway", "InvalidInternetGatewayID.NotFound"),
        ("create_route", "InvalidRouteTableID.NotFound"),
        ("authorize_security_group_ingress", "InvalidGroup.NotFound"),
        ("put_role_policy", "NoSuchEntity"),
        ("add_role_to_instance_profile", "NoSuchEntity"),
        ("put_bucket_policy", "NoSuchBucket"),
        ("put_public_access_block", "OperationAborted"),
    ],
)
def test_a_step_waits_until_the_one_before_it_is_known(
    clients: Clients, state: StateDirectory, time: FakeTime, call: str, code: str
) -> None:
    up(failing(clients, {call: [code] * 3}), state, time=time)
    assert time.pauses == [EVERY_S] * 3


def test_a_step_that_never_becomes_known_ends_the_command(
    clients: Clients, state: StateDirectory, time: FakeTime
) -> None:
    never = ["InvalidVpcID.NotFound"] * 1000
    with pytest.raises(ClusterError, match=r"making cluster 'lab': .*InvalidVpcID\.NotFound"):
        up(failing(clients, {"create_subnet": never}), state, time=time)
    assert USABLE_WITHIN_S <= time.now_s <= USABLE_WITHIN_S + EVERY_S


def test_the_head_is_not_launched_before_ec2_knows_its_profile(
    clients: Clients, state: StateDirectory, time: FakeTime
) -> None:
    # The first is asked before anything is made, by the preflight.
    up(
        failing(clients, {"run_instances": ["DryRunOperation", *[UNKNOWN_PROFILE] * 4]}),
        state,
        time=time,
    )
    assert time.pauses == [EVERY_S] * 4


def test_a_profile_that_ec2_never_knows_ends_the_command_with_what_to_do(
    clients: Clients, state: StateDirectory, time: FakeTime
) -> None:
    with pytest.raises(ClusterError, match=r"does not know instance profile .*cluster up again"):
        up(failing(clients, {"run_instances": [UNKNOWN_PROFILE] * 1000}), state, time=time)
    assert USABLE_WITHIN_S <= time.now_s <= USABLE_WITHIN_S + EVERY_S


def test_a_vpc_that_is_out_of_sight_is_not_made_twice(
    clients: Clients, state: StateDirectory, time: FakeTime
) -> None:
    with pytest.raises(Crash):
        up(crashing(clients, at=1, when="after"), state, time=time)
    late = Late(clients.ec2, looks=3)
    up(replace(clients, ec2=late), StateDirectory(state.path.parent, NAME), time=time)
    assert late.looks_left == 0
    ours = [{"Name": "tag:falcon-ray:id", "Values": [CLUSTER_ID]}]
    assert len(clients.ec2.describe_vpcs(Filters=ours)["Vpcs"]) == 1


def test_a_role_whose_name_is_taken_by_our_own_unseen_one_is_ours(
    clients: Clients, state: StateDirectory, time: FakeTime
) -> None:
    # 18 calls up to the bucket's settings, then the workers' role.
    with pytest.raises(Crash):
        up(crashing(clients, at=20, when="after"), state, time=time)
    (state.path / "journal.jsonl").unlink()
    hidden = {"get_role": ["", "NoSuchEntity"]}  # shown once to the search by tags, then not
    made = up(failing(clients, hidden), StateDirectory(state.path.parent, NAME), time=time)
    assert made.worker_profile_arn.endswith("-worker")


class Late:
    """A client of EC2 that shows no VPC to the first looks."""

    def __init__(self, inner: Boto, *, looks: int) -> None:
        self._inner = inner
        self.looks_left = looks

    def __getattr__(self, name: str) -> Boto:
        return getattr(self._inner, name)

    def get_paginator(self, name: str) -> Boto:
        if name == "describe_vpcs" and self.looks_left:
            self.looks_left -= 1
            return NoVpcs()
        return self._inner.get_paginator(name)


class NoVpcs:
    """A paginator that sees none."""

    def paginate(self, **_: Boto) -> list[Boto]:
        return [{"Vpcs": []}]
