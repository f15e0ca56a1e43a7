"""What `up` makes in an account before Ray is started."""

import datetime as dt
import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_private_key,
)

from cluster.clients import Clients
from cluster.provision import provision, steps
from cluster.state.directory import StateDirectory
from falcon_ray.errors import ClusterError, InputError
from tests.unit.cluster.account.emulated import (
    CLUSTER_ID,
    IMAGE,
    NAME,
    NOW,
    OURS,
    FakeTime,
    account,
    connect,
    launch,
    plan,
    recording,
    up,
)
from tests.unit.cluster.account.standing import snapshot

pytestmark = pytest.mark.aws


def ingress(clients: Clients, group_id: str) -> list[tuple[str, str]]:
    rules = clients.ec2.describe_security_group_rules(
        Filters=[{"Name": "group-id", "Values": [group_id]}]
    )["SecurityGroupRules"]
    return sorted(
        (
            f"{each['IpProtocol']} {each['FromPort']}-{each['ToPort']}",
            each.get("CidrIpv4") or each["ReferencedGroupInfo"]["GroupId"],
        )
        for each in rules
        if not each["IsEgress"]
    )


def test_a_second_up_gives_the_same_ids_and_changes_nothing(
    clients: Clients, state: StateDirectory
) -> None:
    first = up(clients, state)
    before = snapshot(clients)
    watched, calls = recording(clients)
    assert up(watched, state) == first
    assert calls == []
    assert snapshot(clients) == before


def test_an_up_without_the_local_journal_finds_the_cluster_by_its_tags(
    clients: Clients, state: StateDirectory
) -> None:
    first = up(clients, state)
    (state.path / "journal.jsonl").unlink()
    watched, calls = recording(clients)
    fresh = StateDirectory(state.path.parent, NAME)
    again = provision(
        plan(), watched, fresh, now=NOW, patience=FakeTime().patience, new_id=lambda: "deadbeef"
    )
    assert again == first
    assert calls == []


def test_clusters_get_ids_of_their_own(tmp_path: Path) -> None:
    ids = set[str]()
    for number in range(3):
        with account():
            state = StateDirectory(tmp_path / str(number), NAME)
            made = provision(plan(), connect(), state, now=NOW, patience=FakeTime().patience)
            assert len(made.cluster_id) == 8
            assert int(made.cluster_id, 16) >= 0
            ids.add(made.cluster_id)
    assert len(ids) == 3


def test_everything_is_tagged_in_the_very_call_that_makes_it(
    clients: Clients, state: StateDirectory
) -> None:
    watched, calls = recording(clients)
    up(watched, state)
    making = [each for each in calls if each[0].startswith(("create_", "import_", "authorize_"))]
    untagged = {"create_route"}  # a line of its table, no thing of its own
    assert len(making) > 10
    for name, arguments in making:
        if name in untagged:
            continue
        inside = arguments.get("CreateBucketConfiguration", arguments)
        specifications = inside.get("TagSpecifications", [{"Tags": inside.get("Tags")}])
        tags = {each["Key"]: each["Value"] for each in specifications[0]["Tags"]}
        assert tags == {
            "falcon-ray:managed": "true",
            "falcon-ray:cluster": NAME,
            "falcon-ray:id": CLUSTER_ID,
            "falcon-ray:expires-at": "2026-03-01T20:00:00+00:00",  # 12 h + 8 h to live
            "Name": f"falcon-ray-{NAME}-{CLUSTER_ID}",
        }, name


def test_only_ssh_from_one_network_and_the_nodes_themselves_come_in(
    clients: Clients, state: StateDirectory
) -> None:
    made = up(clients, state)
    assert ingress(clients, made.security_group_id) == [
        ("-1 -1--1", made.security_group_id),
        ("tcp 22-22", "203.0.113.7/32"),
    ]


def test_nothing_in_the_account_is_open_to_the_world(
    clients: Clients, state: StateDirectory
) -> None:
    watched, calls = recording(clients)
    up(watched, state)
    rules = clients.ec2.describe_security_group_rules()["SecurityGroupRules"]
    incoming = [each for each in rules if not each["IsEgress"]]
    assert incoming
    networks = {each.get("CidrIpv4", "") for each in incoming if "ReferencedGroupInfo" not in each}
    assert networks == {"203.0.113.7/32"}
    asked = [json.dumps(each, default=str) for each in calls if "ingress" in each[0]]
    assert asked
    assert "0.0.0.0/0" not in "".join(asked)
    assert "::/0" not in "".join(asked)


def test_ssh_follows_the_caller_to_another_address(clients: Clients, state: StateDirectory) -> None:
    first = up(clients, state)
    again = up(clients, state, plan(ssh_from="198.51.100.0/24"))
    assert again == first
    assert ingress(clients, first.security_group_id) == [
        ("-1 -1--1", first.security_group_id),
        ("tcp 22-22", "198.51.100.0/24"),
    ]


def test_a_door_that_somebody_opened_is_closed(clients: Clients, state: StateDirectory) -> None:
    made = up(clients, state)
    clients.ec2.authorize_security_group_ingress(
        GroupId=made.security_group_id,
        IpPermissions=[
            {
                "IpProtocol": "tcp",
                "FromPort": 8265,
                "ToPort": 8265,
                "IpRanges": [{"CidrIp": "0.0.0.0/0"}],
            }
        ],
    )
    up(clients, state)
    assert [source for _, source in ingress(clients, made.security_group_id)] == [
        made.security_group_id,
        "203.0.113.7/32",
    ]


@pytest.mark.parametrize("network", ["0.0.0.0/0", "10.0.0.0/15", "::/0", "here", None])
def test_ssh_from_a_wide_or_unknown_network_is_refused_before_anything_is_made(
    clients: Clients, state: StateDirectory, network: str | None
) -> None:
    before = snapshot(clients)
    with pytest.raises(InputError, match="ssh_from"):
        up(clients, state, plan(ssh_from=network))
    assert snapshot(clients) == before


def test_ssh_from_a_16_is_the_widest(clients: Clients, state: StateDirectory) -> None:
    made = up(clients, state, plan(ssh_from="203.0.0.0/16"))
    assert ("tcp 22-22", "203.0.0.0/16") in ingress(clients, made.security_group_id)


def test_each_planned_zone_has_a_public_subnet_of_its_own_network(
    clients: Clients, state: StateDirectory
) -> None:
    made = up(clients, state)
    assert list(made.subnet_ids) == ["us-east-1a", "us-east-1b"]
    subnets = clients.ec2.describe_subnets(SubnetIds=list(made.subnet_ids.values()))["Subnets"]
    assert {each["VpcId"] for each in subnets} == {made.vpc_id}
    assert all(each["MapPublicIpOnLaunch"] for each in subnets)
    tables = clients.ec2.describe_route_tables(
        Filters=[{"Name": "association.subnet-id", "Values": list(made.subnet_ids.values())}]
    )["RouteTables"]
    (table,) = tables
    (way_out,) = [r for r in table["Routes"] if r["DestinationCidrBlock"] == "0.0.0.0/0"]
    gateways = clients.ec2.describe_internet_gateways(InternetGatewayIds=[way_out["GatewayId"]])[
        "InternetGateways"
    ]
    assert gateways[0]["Attachments"][0]["VpcId"] == made.vpc_id
    assert clients.ec2.describe_nat_gateways()["NatGateways"] == []  # they cost by the hour


def test_no_default_network_is_needed(clients: Clients, state: StateDirectory) -> None:
    for each in clients.ec2.describe_subnets()["Subnets"]:
        clients.ec2.delete_subnet(SubnetId=each["SubnetId"])
    for each in clients.ec2.describe_vpcs()["Vpcs"]:
        clients.ec2.delete_vpc(VpcId=each["VpcId"])
    made = up(clients, state)
    assert [each["VpcId"] for each in clients.ec2.describe_vpcs()["Vpcs"]] == [made.vpc_id]


def test_another_zone_in_a_later_plan_gets_a_subnet_beside_the_others(
    clients: Clients, state: StateDirectory
) -> None:
    first = up(clients, state)
    wider = up(clients, state, plan(worker_zones=("us-east-1c", "us-east-1b", "us-east-1a")))
    assert wider.subnet_ids.items() > first.subnet_ids.items()
    subnets = clients.ec2.describe_subnets(SubnetIds=list(wider.subnet_ids.values()))["Subnets"]
    assert len({each["CidrBlock"] for each in subnets}) == 3


def test_the_key_is_made_here_and_readable_by_its_user_alone(
    clients: Clients, state: StateDirectory
) -> None:
    made = up(clients, state)
    assert stat.S_IMODE(made.private_key.stat().st_mode) == 0o600
    assert stat.S_IMODE(made.token_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(state.path.stat().st_mode) == 0o700
    private = load_ssh_private_key(made.private_key.read_bytes(), password=None)
    (there,) = clients.ec2.describe_key_pairs(KeyNames=[made.key_name], IncludePublicKey=True)[
        "KeyPairs"
    ]
    assert there["KeyType"] == "ed25519"
    public = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    assert there["PublicKey"].split()[:2] == public.decode().split()
    token = made.token_file.read_text()
    assert len(token) == 64
    assert token not in (state.path / "journal.jsonl").read_text()


def test_a_lost_key_is_replaced_while_no_node_runs(clients: Clients, state: StateDirectory) -> None:
    made = up(clients, state)
    lost = made.private_key.read_bytes()
    made.private_key.unlink()
    assert up(clients, state) == made
    assert made.private_key.read_bytes() != lost
    assert len(clients.ec2.describe_key_pairs(KeyNames=[made.key_name])["KeyPairs"]) == 1
    watched, calls = recording(clients)
    up(watched, state)
    assert calls == []


def test_a_file_that_is_no_key_is_not_given_to_ec2(clients: Clients, state: StateDirectory) -> None:
    made = up(clients, state)
    made.private_key.write_text("scribbles")
    with pytest.raises(InputError, match=r"key\.pem is no private key .*remove the file"):
        up(clients, state)
    assert clients.ec2.describe_key_pairs(KeyNames=[made.key_name])["KeyPairs"]


@pytest.mark.parametrize("lost", ["key.pem", "token"])
def test_nodes_that_run_with_a_lost_secret_are_not_locked_out_for_good(
    clients: Clients, state: StateDirectory, lost: str
) -> None:
    made = up(clients, state)
    launch(clients, made.subnet_ids["us-east-1a"], **OURS)
    (state.path / lost).unlink()
    before = snapshot(clients)
    with pytest.raises(ClusterError, match="python -m cluster down"):
        up(clients, state)
    assert snapshot(clients) == before


def test_a_later_up_puts_the_end_off_while_no_node_runs(
    clients: Clients, state: StateDirectory
) -> None:
    first = up(clients, state)
    later = up(clients, state, now=NOW + dt.timedelta(hours=3))
    assert first.expires_at == NOW + dt.timedelta(hours=8)
    assert later.expires_at == NOW + dt.timedelta(hours=3 + 8)
    assert replace(later, expires_at=first.expires_at) == first
    (vpc,) = clients.ec2.describe_vpcs(VpcIds=[first.vpc_id])["Vpcs"]
    tags = {each["Key"]: each["Value"] for each in vpc["Tags"]}
    assert tags["falcon-ray:expires-at"] == "2026-03-01T23:00:00+00:00"


def test_an_up_while_nodes_run_keeps_their_end_and_their_image(
    clients: Clients, state: StateDirectory
) -> None:
    first = up(clients, state)
    launch(clients, first.subnet_ids["us-east-1a"], **OURS)
    newer = plan()
    newer = replace(newer, image=replace(newer.image, ami_id="ami-0fedcba9876543210"))
    again = up(clients, state, newer, now=NOW + dt.timedelta(hours=3))
    assert again == first
    assert state.journal.image_id == IMAGE


def test_the_policies_in_the_account_are_put_right(clients: Clients, state: StateDirectory) -> None:
    made = up(clients, state)
    role = made.head_profile_arn.rsplit("/", 1)[1]
    right = clients.iam.get_role_policy(RoleName=role, PolicyName="falcon-ray")["PolicyDocument"]
    everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    clients.iam.put_role_policy(
        RoleName=role,
        PolicyName="falcon-ray",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [everything]}),
    )
    up(clients, state)
    now = clients.iam.get_role_policy(RoleName=role, PolicyName="falcon-ray")["PolicyDocument"]
    assert now == right


def test_a_cluster_is_not_gone_on_with_whose_end_nobody_knows(
    clients: Clients, state: StateDirectory
) -> None:
    made = up(clients, state)
    (state.path / "journal.jsonl").unlink()
    for role in ("head", "worker"):
        name = f"{made.key_name}-{role}"
        clients.iam.untag_role(RoleName=name, TagKeys=["falcon-ray:expires-at"])
        clients.iam.untag_instance_profile(
            InstanceProfileName=name, TagKeys=["falcon-ray:expires-at"]
        )
    of_ec2 = clients.ec2.describe_tags(
        Filters=[{"Name": "key", "Values": ["falcon-ray:expires-at"]}]
    )["Tags"]
    ids = [each["ResourceId"] for each in of_ec2]
    soon = {"Key": "falcon-ray:expires-at", "Value": "soon"}
    clients.ec2.create_tags(Resources=ids, Tags=[soon])
    fresh = StateDirectory(state.path.parent, NAME)
    with pytest.raises(ClusterError, match="nothing of cluster 'lab' says when its time is over"):
        up(clients, fresh)
    # Where one thing still says it, that holds.
    end = {"Key": "falcon-ray:expires-at", "Value": made.expires_at.isoformat()}
    clients.ec2.create_tags(Resources=[made.vpc_id], Tags=[end])
    assert up(clients, fresh) == made


def test_a_cluster_of_another_account_is_not_mixed_up(
    clients: Clients, state: StateDirectory
) -> None:
    up(clients, state)
    elsewhere = replace(plan(), account_id="999999999999")
    with pytest.raises(ClusterError, match="account 123456789012"):
        up(clients, state, elsewhere)


def test_two_ups_exclude_one_another(clients: Clients, state: StateDirectory) -> None:
    before = snapshot(clients)
    with (
        StateDirectory(state.path.parent, NAME).locked(),
        pytest.raises(ClusterError, match=r"another command works on cluster 'lab' \(process \d+"),
    ):
        up(clients, state)
    assert snapshot(clients) == before
    up(clients, state)


def test_an_up_may_hold_the_lock_already(clients: Clients, state: StateDirectory) -> None:
    with state.locked():
        assert up(clients, state).name == NAME


def test_the_steps_say_what_would_be_made_and_for_whom() -> None:
    said = "\n".join(steps(plan()))
    for word in ("us-east-1a, us-east-1b", "203.0.113.7/32", "g4dn.2xlarge, g6.2xlarge"):
        assert word in said
