"""What `down` ends, what it keeps, and what it says when something is in its way."""

from collections.abc import Callable

import pytest

from cluster.account.removal import FREE_WITHIN_S, NODES_END_WITHIN_S
from cluster.clients import Clients
from cluster.state.directory import StateDirectory
from cluster.teardown import TornDown, leftovers, tear_down
from falcon_ray.errors import ClusterError
from tests.unit.cluster.account.emulated import (
    ACCOUNT,
    NAME,
    OURS,
    Boto,
    FakeTime,
    account,
    connect,
    failing,
    keep,
    launch,
    plan,
    recording,
    refusal,
    up,
    wrapped,
)
from tests.unit.cluster.account.standing import bystanders, snapshot

pytestmark = pytest.mark.aws

THEIRS = {"falcon-ray_managed": "true", "falcon-ray_cluster": "lab-2", "falcon-ray_id": "ffffffff"}


def down(
    clients: Clients,
    state: StateDirectory,
    time: FakeTime | None = None,
    *,
    delete_bucket: bool = False,
) -> TornDown:
    patience = (time or FakeTime()).patience
    return tear_down(NAME, clients, state, delete_bucket=delete_bucket, patience=patience)


def test_nothing_but_the_results_is_left(clients: Clients, state: StateDirectory) -> None:
    bystanders(clients)
    before = snapshot(clients)
    made = up(clients, state)
    keep(clients, made.bucket, "results")
    ended = down(clients, state)
    assert ended.kept == (made.bucket,)
    assert snapshot(clients) == before | {made.bucket: ["results"]}
    assert leftovers(NAME, clients) == ()
    assert not state.path.exists()


def test_what_was_removed_is_said(clients: Clients, state: StateDirectory) -> None:
    made = up(clients, state)
    assert leftovers(NAME, clients)[-1] == f"VPC {made.vpc_id}"
    removed = down(clients, state).removed
    for each in (
        f"VPC {made.vpc_id}",
        f"security group {made.security_group_id}",
        f"key pair {made.key_name}",
        f"role {made.key_name}-head",
        f"instance profile {made.key_name}-worker",
    ):
        assert each in removed


def test_only_nodes_with_the_clusters_tags_end(clients: Clients, state: StateDirectory) -> None:
    made = up(clients, state)
    subnet = made.subnet_ids["us-east-1a"]
    ours = {launch(clients, subnet, **OURS) for _ in range(3)}
    others = {launch(clients), launch(clients, **THEIRS)}
    named_like_ours = launch(clients, Name=f"falcon-ray-{NAME}")
    ended = down(clients, state)
    states = {
        each["InstanceId"]: each["State"]["Name"]
        for page in clients.ec2.describe_instances()["Reservations"]
        for each in page["Instances"]
    }
    assert {states[each] for each in ours} == {"terminated"}
    assert {states[each] for each in others | {named_like_ours}} == {"running"}
    assert {f"instance {each}" for each in ours} <= set(ended.removed)


def test_a_node_that_the_head_starts_meanwhile_ends_as_well(
    clients: Clients, state: StateDirectory
) -> None:
    subnet = up(clients, state).subnet_ids["us-east-1a"]
    launch(clients, subnet, **OURS)
    late = Launching(clients, lambda: launch(clients, subnet, **OURS))
    down(late.clients, state)
    assert late.launched == 1
    assert leftovers(NAME, clients) == ()


def test_nothing_else_is_touched_while_nodes_do_not_end(
    clients: Clients, state: StateDirectory, time: FakeTime
) -> None:
    made = up(clients, state)
    node = launch(clients, made.subnet_ids["us-east-1a"], **OURS)
    before = snapshot(clients)
    watched, calls = recording(failing(clients, {"terminate_instances": ["UnauthorizedOperation"]}))
    with pytest.raises(ClusterError, match=rf"instance {node}.*ec2:TerminateInstances"):
        down(watched, state, time)
    assert [name for name, _ in calls] == ["terminate_instances"]
    assert snapshot(clients) == before
    assert state.private_key.exists()
    down(clients, state)
    assert leftovers(NAME, clients) == ()


def test_nodes_are_waited_for_within_bounds(
    clients: Clients, state: StateDirectory, time: FakeTime
) -> None:
    made = up(clients, state)
    launch(clients, made.subnet_ids["us-east-1a"], **OURS)
    deaf = Deaf(clients)
    with pytest.raises(ClusterError, match="has not ended yet"):
        down(deaf.clients, state, time)
    assert NODES_END_WITHIN_S <= time.now_s <= NODES_END_WITHIN_S + 5
    assert deaf.told == 1  # once is enough


@pytest.mark.parametrize(
    "call", ["delete_security_group", "delete_subnet", "detach_internet_gateway", "delete_vpc"]
)
def test_what_still_hangs_on_something_is_tried_again(
    clients: Clients, state: StateDirectory, time: FakeTime, call: str
) -> None:
    up(clients, state)
    down(failing(clients, {call: ["DependencyViolation"] * 5}), state, time)
    assert len(time.pauses) == 5
    assert leftovers(NAME, clients) == ()


def test_what_stays_is_said_and_the_local_state_is_kept_until_it_is_gone(
    clients: Clients, state: StateDirectory, time: FakeTime
) -> None:
    made = up(clients, state)
    never = ["DependencyViolation: network has dependencies"] * 1000
    with pytest.raises(ClusterError, match=rf"VPC {made.vpc_id} \(.*has dependencies.*down again"):
        down(failing(clients, {"delete_vpc": never}), state, time)
    assert FREE_WITHIN_S <= time.now_s <= FREE_WITHIN_S + 2
    assert leftovers(NAME, clients) == (f"VPC {made.vpc_id}",)
    assert state.path.exists()
    down(clients, state)
    assert leftovers(NAME, clients) == ()
    assert not state.path.exists()


def test_what_somebody_removed_by_hand_is_no_hindrance(
    clients: Clients, state: StateDirectory
) -> None:
    made = up(clients, state)
    gone = {"delete_security_group": ["InvalidGroup.NotFound"], "delete_role": ["NoSuchEntity"]}
    clients.ec2.delete_security_group(GroupId=made.security_group_id)
    clients.ec2.delete_key_pair(KeyName=made.key_name)
    with pytest.raises(ClusterError, match="role"):  # the answer lied: it is still there
        down(failing(clients, gone), state)
    down(clients, state)
    assert leftovers(NAME, clients) == ()


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("remove_role_from_instance_profile", "NoSuchEntity"),
        ("delete_role_policy", "NoSuchEntity"),
        ("disassociate_route_table", "InvalidAssociationID.NotFound"),
        ("detach_internet_gateway", "Gateway.NotAttached"),
    ],
)
def test_what_is_shown_to_hang_on_a_thing_but_is_gone_does_not_save_the_thing(
    clients: Clients, state: StateDirectory, call: str, code: str
) -> None:
    up(clients, state)
    stale = Stale(clients, call, code)
    down(stale.clients, state)
    assert stale.told > 0
    assert leftovers(NAME, clients) == ()


def test_roles_go_with_whatever_somebody_attached_to_them(
    clients: Clients, state: StateDirectory
) -> None:
    made = up(clients, state)
    policy = clients.iam.create_policy(
        PolicyName="theirs",
        PolicyDocument='{"Version":"2012-10-17","Statement":[{"Effect":"Allow",'
        '"Action":["ec2:DescribeImages"],"Resource":["*"]}]}',
    )["Policy"]["Arn"]
    role = made.head_profile_arn.rsplit("/", 1)[1]
    clients.iam.attach_role_policy(RoleName=role, PolicyArn=policy)
    down(clients, state)
    assert clients.iam.get_policy(PolicyArn=policy)["Policy"]["AttachmentCount"] == 0
    assert leftovers(NAME, clients) == ()


def test_a_bucket_is_deleted_on_demand_with_all_that_is_in_it(
    clients: Clients, state: StateDirectory
) -> None:
    made = up(clients, state)
    s3 = clients.s3
    s3.put_bucket_versioning(Bucket=made.bucket, VersioningConfiguration={"Status": "Enabled"})
    keep(clients, made.bucket, "a", "a", "b/c")
    s3.delete_object(Bucket=made.bucket, Key="a")
    s3.create_multipart_upload(Bucket=made.bucket, Key="half")
    ended = down(clients, state, delete_bucket=True)
    assert f"bucket {made.bucket}" in ended.removed
    assert ended.kept == ()
    assert s3.list_buckets()["Buckets"] == []


def test_results_of_an_earlier_cluster_outlive_the_end_of_a_later_one(
    clients: Clients, state: StateDirectory
) -> None:
    earlier = up(clients, state)
    down(clients, state)
    later = up(clients, state, cluster_id="feedbeef")
    assert later.bucket != earlier.bucket
    ended = down(clients, state, delete_bucket=True)
    assert ended.kept == (earlier.bucket,)
    # Where no cluster stands, what is asked for can only be that of earlier ones.
    assert down(clients, state, delete_bucket=True).removed == (f"bucket {earlier.bucket}",)
    assert clients.s3.list_buckets()["Buckets"] == []


def test_a_bucket_that_cannot_be_emptied_is_said(clients: Clients, state: StateDirectory) -> None:
    made = up(clients, state)
    denied = failing(clients, {"delete_bucket": ["AccessDenied"]})
    with pytest.raises(ClusterError, match=f"bucket {made.bucket}"):
        down(denied, state, delete_bucket=True)
    assert state.path.exists()


def test_an_object_that_s3_does_not_delete_is_said(clients: Clients, state: StateDirectory) -> None:
    made = up(clients, state)
    keep(clients, made.bucket, "locked")

    def around(name: str, call: Callable[..., Boto], arguments: dict[str, Boto]) -> Boto:
        if name != "delete_objects":
            return call(**arguments)
        return {"Errors": [{"Key": "locked", "Code": "ObjectLocked", "Message": "until 2030"}]}

    with pytest.raises(ClusterError, match=f"bucket {made.bucket} .*ObjectLocked: until 2030"):
        down(wrapped(clients, around), state, delete_bucket=True)
    assert made.bucket in snapshot(clients)


def test_ending_what_is_not_there_does_nothing(clients: Clients, state: StateDirectory) -> None:
    bystanders(clients)
    before = snapshot(clients)
    watched, calls = recording(clients)
    assert down(watched, state, delete_bucket=True) == TornDown(removed=(), kept=())
    assert calls == []
    assert snapshot(clients) == before


def test_a_cluster_of_the_same_name_in_another_region_stands(state: StateDirectory) -> None:
    with account():
        here, there = connect(), connect("eu-west-1")
        elsewhere = StateDirectory(state.path.parent / "elsewhere", NAME)
        zones = ("eu-west-1a",)
        elsewhere_plan = plan(region="eu-west-1", head_zones=zones, worker_zones=zones)
        made = up(there, elsewhere, elsewhere_plan, cluster_id="feedbeef")
        before = snapshot(there)
        up(here, state)
        down(here, state, delete_bucket=True)
        assert snapshot(there) == before
        assert made.bucket in before


def test_a_journal_of_another_region_is_not_believed_here(
    clients: Clients, state: StateDirectory
) -> None:
    up(clients, state)
    there = connect("eu-west-1")
    with pytest.raises(ClusterError, match=f"made in account {ACCOUNT}, us-east-1"):
        down(there, StateDirectory(state.path.parent, NAME))
    assert state.path.exists()


def test_a_down_excludes_an_up(clients: Clients, state: StateDirectory) -> None:
    up(clients, state)
    with (
        StateDirectory(state.path.parent, NAME).locked(),
        pytest.raises(ClusterError, match="another command works on cluster"),
    ):
        down(clients, state)


class Launching:
    """Clients in whose account one more node is launched after the first is told to end."""

    def __init__(self, clients: Clients, launch_one: Callable[[], object]) -> None:
        self.launched = 0

        def around(name: str, call: Callable[..., Boto], arguments: dict[str, Boto]) -> Boto:
            answer = call(**arguments)
            if name == "terminate_instances" and not self.launched:
                self.launched += 1
                launch_one()
            return answer

        self.clients = wrapped(clients, around)


class Deaf:
    """Clients of an account whose nodes do not end when they are told to."""

    def __init__(self, clients: Clients) -> None:
        self.told = 0

        def around(name: str, call: Callable[..., Boto], arguments: dict[str, Boto]) -> Boto:
            if name == "terminate_instances":
                self.told += 1
                return {}
            return call(**arguments)

        self.clients = wrapped(clients, around)


class Stale:
    """Clients of an account where a call was carried out already, which its look did not show."""

    def __init__(self, clients: Clients, name_of_call: str, code: str) -> None:
        self.told = 0

        def around(name: str, call: Callable[..., Boto], arguments: dict[str, Boto]) -> Boto:
            answer = call(**arguments)
            if name == name_of_call:
                self.told += 1
                raise refusal(name, code)
            return answer

        self.clients = wrapped(clients, around)
