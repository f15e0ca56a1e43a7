"""A cluster brought up and taken down in one go, with a program that plays Ray's launcher."""

import datetime as dt
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from cluster.clients import Clients
from cluster.lifecycle import Known, bring_down, bring_up
from cluster.planned import ClusterPlan
from cluster.provisioned import Provisioned
from cluster.state.directory import StateDirectory
from cluster.teardown import leftovers, prospect
from falcon_ray.errors import ClusterError
from tests.unit.cluster.account.emulated import (
    NAME,
    NOW,
    connect,
    launch,
    plan,
    recording,
    with_images,
)
from tests.unit.cluster.account.standing import snapshot
from tests.unit.cluster.made_clusters import package

pytestmark = pytest.mark.aws

END = NOW + dt.timedelta(hours=8)  # as long as the plan's clusters live
OLD, NEW = "ami-0000000000000001", "ami-00000000000000002"
PROGRAM = """
import pathlib, sys
with open({seen!r}, "a") as seen:
    print(*sys.argv[1:], file=seen)
verb = sys.argv[1]
print({said!r}.get(verb, verb))
sys.exit({codes!r}.get(verb, 0))
"""


class Ray:
    """Plays Ray's launcher: says where the head is, and fails at what it is told to."""

    def __init__(self, directory: Path) -> None:
        self._seen = directory / "seen"

    def command(self, **codes: int) -> list[str]:
        given = {key.replace("_", "-"): code for key, code in codes.items()}
        said = {} if "get-head-ip" in given else {"get-head-ip": "203.0.113.99"}
        return [
            sys.executable,
            "-c",
            PROGRAM.format(seen=str(self._seen), said=said, codes=given),
        ]

    @property
    def verbs(self) -> list[str]:
        lines = self._seen.read_text().splitlines() if self._seen.exists() else []
        return [line.split()[0] for line in lines]


@pytest.fixture
def ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ray:
    programs = tmp_path / "bin"
    programs.mkdir()
    for each in ("ssh", "rsync"):
        (programs / each).write_text("#!/bin/sh\nexit 1\n")
        (programs / each).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    return Ray(tmp_path)


def known(clients: Clients, state: StateDirectory) -> Known:
    return Known(NAME, clients, state, None)


def up(
    cluster: Known,
    ray: list[str],
    the_plan: ClusterPlan | None = None,
    *,
    now: dt.datetime = NOW,
    say: Callable[[str], object] = lambda _: None,
) -> tuple[Provisioned, str]:
    return bring_up(
        the_plan or plan(),
        cluster,
        now=now,
        say=say,
        pack=lambda _, into: package(into),
        ray=ray,
    )


def head_of(cluster: Known, made: Provisioned, image_id: str) -> str:
    """A head as Ray launches it."""
    return launch(
        cluster.clients,
        made.subnet_ids["us-east-1a"],
        image_id=image_id,
        **{"falcon-ray_managed": "true", "falcon-ray_cluster": NAME},
        **{"falcon-ray_id": made.cluster_id, "ray-node-type": "head"},
    )


def image_in_file(state: StateDirectory) -> str:
    config = yaml.safe_load((state.path / "ray.yaml").read_text())
    (image_id,) = {
        each["node_config"]["ImageId"] for each in config["available_node_types"].values()
    }
    return image_id


def test_an_up_starts_ray_on_what_it_made_and_says_where_the_head_is(
    clients: Clients, state: StateDirectory, ray: Ray
) -> None:
    cluster = known(clients, state)
    made, head = up(cluster, ray.command())
    assert head == "ubuntu@203.0.113.99"
    assert ray.verbs == ["up", "get-head-ip"]
    config = yaml.safe_load((state.path / "ray.yaml").read_text())
    assert config["cluster_name"] == f"{NAME}-{made.cluster_id}"
    assert config["auth"]["ssh_private_key"] == str(state.private_key)
    assert made.token_file.read_text() not in (state.path / "ray.yaml").read_text()


def test_a_second_up_gives_ray_the_same_file(
    clients: Clients, state: StateDirectory, ray: Ray
) -> None:
    up(known(clients, state), ray.command())
    first = (state.path / "ray.yaml").read_text()
    again = known(clients, StateDirectory(state.path.parent, NAME))
    up(again, ray.command())
    assert (state.path / "ray.yaml").read_text() == first


def test_an_up_that_ray_fails_can_be_taken_down(
    clients: Clients, state: StateDirectory, ray: Ray
) -> None:
    before = snapshot(clients)
    cluster = known(clients, state)
    with pytest.raises(ClusterError, match=r"no head is up: .*run up again .*or down"):
        up(cluster, ray.command(up=1))
    with pytest.raises(ClusterError, match="no head runs"):
        up(cluster, ray.command(get_head_ip=1))
    bring_down(cluster, delete_bucket=True, ray=ray.command())
    assert snapshot(clients) == before
    assert not state.path.exists()


def test_a_down_ends_nodes_that_ray_leaves_running(
    clients: Clients, state: StateDirectory, ray: Ray
) -> None:
    before = snapshot(clients)
    cluster = known(clients, state)
    made, _ = up(cluster, ray.command())
    head = head_of(cluster, made, plan().image.ami_id)
    ended = bring_down(cluster, delete_bucket=True, ray=ray.command(down=1))
    assert ray.verbs[-1] == "down"
    assert f"instance {head}" in ended.removed
    assert snapshot(clients) == before


def test_a_down_from_a_machine_that_knows_nothing_needs_no_ray(
    clients: Clients, state: StateDirectory, ray: Ray, tmp_path: Path
) -> None:
    before = snapshot(clients)
    made, _ = up(known(clients, state), ray.command())
    head_of(known(clients, state), made, plan().image.ami_id)
    elsewhere = known(clients, StateDirectory(tmp_path / "elsewhere", NAME))
    bring_down(elsewhere, delete_bucket=True, ray=ray.command())
    assert "down" not in ray.verbs
    assert snapshot(clients) == before


def test_a_down_with_the_credentials_of_elsewhere_ends_no_node(
    clients: Clients, state: StateDirectory, ray: Ray
) -> None:
    up(known(clients, state), ray.command())
    with pytest.raises(ClusterError, match="give the others"):
        bring_down(known(connect("eu-west-1"), state), delete_bucket=False, ray=ray.command())
    assert "down" not in ray.verbs


def test_nobody_else_works_on_a_cluster_while_ray_is_started_or_ended(
    clients: Clients, state: StateDirectory, ray: Ray
) -> None:
    cluster = known(clients, state)
    other = StateDirectory(state.path.parent, NAME)
    refusals: list[str] = []

    def try_as_another(_: str) -> None:
        with pytest.raises(ClusterError, match="another command works") as caught, other.locked():
            pass
        refusals.append(str(caught.value))

    up(cluster, ray.command(), say=try_as_another)
    assert refusals
    with other.locked(), pytest.raises(ClusterError, match="another command works"):
        bring_down(cluster, delete_bucket=False, ray=ray.command())
    assert "down" not in ray.verbs


def test_a_head_that_runs_keeps_its_image_when_a_newer_one_is_planned(
    clients: Clients, state: StateDirectory, ray: Ray
) -> None:
    cluster = known(with_images(clients), state)
    made, _ = up(cluster, ray.command(), plan(image_id=OLD))
    head_of(cluster, made, OLD)
    said: list[str] = []
    (state.path / "journal.jsonl").unlink()  # the head itself says what it runs from
    again = known(cluster.clients, StateDirectory(state.path.parent, NAME))
    assert up(again, ray.command(), plan(image_id=NEW), say=said.append)[0] == made
    assert image_in_file(state) == OLD
    assert f"the head runs from {OLD}, which is kept until down" in said
    role = made.head_profile_arn.rsplit("/", 1)[1]
    policy = clients.iam.get_role_policy(RoleName=role, PolicyName="falcon-ray")
    assert OLD in str(policy["PolicyDocument"])
    assert NEW not in str(policy["PolicyDocument"])


def test_without_a_head_the_newer_image_is_taken(
    clients: Clients, state: StateDirectory, ray: Ray
) -> None:
    cluster = known(with_images(clients), state)
    made, _ = up(cluster, ray.command(), plan(image_id=OLD))
    clients.ec2.terminate_instances(InstanceIds=[head_of(cluster, made, OLD)])
    up(cluster, ray.command(), plan(image_id=NEW))
    assert image_in_file(state) == NEW


def test_an_up_of_a_cluster_whose_time_is_over_is_refused_while_nodes_run(
    clients: Clients, state: StateDirectory, ray: Ray
) -> None:
    cluster = known(clients, state)
    made, _ = up(cluster, ray.command())
    head = head_of(cluster, made, plan().image.ami_id)
    watched, calls = recording(clients)
    with pytest.raises(
        ClusterError,
        match=rf"was over at 2026-03-01 20:00 UTC, but instance {head} still .*cluster down",
    ):
        up(known(watched, state), ray.command(), now=END)
    assert calls == []
    assert ray.verbs == ["up", "get-head-ip"]
    clients.ec2.terminate_instances(InstanceIds=[head])
    again, _ = up(cluster, ray.command(), now=END)
    assert again.expires_at == END + dt.timedelta(hours=8)


def test_what_a_down_would_remove_is_said_with_the_bucket_only_where_that_goes(
    clients: Clients, state: StateDirectory, ray: Ray
) -> None:
    cluster = known(clients, state)
    made, _ = up(cluster, ray.command())
    watched, calls = recording(clients)
    said = prospect(NAME, watched, state, delete_bucket=False)
    assert said == leftovers(NAME, clients)
    assert prospect(NAME, watched, state, delete_bucket=True) == (*said, f"bucket {made.bucket}")
    assert calls == []
