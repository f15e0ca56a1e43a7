"""`python -m cluster` from `up` to `down`, on an AWS of moto's, with Ray's own launcher."""

import dataclasses
import datetime as dt
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster.clients import Clients
from cluster.package import UV
from cluster.tags import as_mapping
from tests.ray.aws_server import aws_server, calling
from tests.ray.stand_ins import Machines, offer_packages
from tests.unit.cluster.account import emulated
from tests.unit.cluster.plan_fakes import PLAN_AMI, PLAN_AMI_PARAMETER, PlanPricing, PlanQuotas
from tests.unit.cluster.plan_terminal import PlanTerminal

pytestmark = [pytest.mark.ray, pytest.mark.aws, pytest.mark.timeout(300)]


@dataclass(frozen=True)
class Place:
    """A terminal in front of an account, with machines that can be reached.

    Attributes:
        terminal: Where verbs are typed.
        clients: Of the account.
        machines: All that there will be.
        state: What is kept of clusters on this machine.
    """

    terminal: PlanTerminal
    clients: Clients
    machines: Machines
    state: Path

    def runs(self, *arguments: str) -> str:
        """What a verb that succeeds prints, about the cluster of the terminal's file."""
        self._run(*arguments)
        assert self.terminal.exit_code == 0, self.terminal.err
        return self.terminal.out

    def fails(self, *arguments: str, code: int) -> str:
        """The last line of a verb that does not succeed."""
        self._run(*arguments)
        assert self.terminal.exit_code == code, self.terminal.err
        return self.terminal.err.splitlines()[-1]

    def instances(self) -> list[dict[str, Any]]:
        """All that there ever were."""
        answer = self.clients.ec2.describe_instances()
        return [each for group in answer["Reservations"] for each in group["Instances"]]

    def _run(self, verb: str, *options: str) -> None:
        self.terminal.run(
            *(verb, "--config", self.terminal.file, *options), now=lambda: dt.datetime.now(dt.UTC)
        )


@pytest.fixture
def place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Place]:
    machines = Machines(tmp_path, monkeypatch)
    offer_packages(tmp_path, monkeypatch)
    state = tmp_path / "clusters"
    monkeypatch.setenv("FALCON_RAY_CLUSTERS", str(state))
    for name in ("AWS_PROFILE", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with aws_server() as environment, calling(environment):
        clients = dataclasses.replace(
            emulated.connect(), quotas=PlanQuotas(), pricing=PlanPricing()
        )
        clients.ssm.put_parameter(Name=PLAN_AMI_PARAMETER, Value=PLAN_AMI, Type="String")
        yield Place(PlanTerminal(clients, tmp_path, capsys), clients, machines, state)


def test_a_cluster_comes_up_is_gone_on_with_shown_and_goes(place: Place) -> None:
    made = json.loads(place.runs("up", "--yes", "--json"))
    assert json.loads(place.runs("up", "--yes", "--json")) == made, "nothing is made twice"
    (head,) = place.instances()
    assert head["State"]["Name"] == "running"
    assert head["InstanceType"] == "m6i.xlarge"
    assert head["ImageId"] == PLAN_AMI
    assert head["IamInstanceProfile"]["Arn"] == made["head_profile_arn"]
    assert head["MetadataOptions"]["HttpTokens"] == "required"
    assert as_mapping(head["Tags"])["falcon-ray:id"] == made["cluster_id"]
    assert made["head"] == f"ubuntu@{head['PublicIpAddress']}"

    # It lets nobody read without TLS, which to moto is nobody at all.
    place.clients.s3.delete_bucket_policy(Bucket=made["bucket"])
    shown = json.loads(place.runs("status", "--json"))
    assert [(each["node_type"], each["setup"]) for each in shown["nodes"]] == [
        ("head", "up-to-date")
    ]
    assert shown["nodes"][0]["instance_id"] == head["InstanceId"]
    assert 7.9 < shown["hours_left"] <= 8.0

    calls = place.machines.calls
    assert "budget_watcher.py" in calls
    assert "ray start --head" in calls
    assert UV.replace("==", "-") in calls
    assert Path(made["token_file"]).read_text() not in calls

    went = place.runs("down", "--yes")
    assert f"kept {made['bucket']}" in went
    assert [each["State"]["Name"] for each in place.instances()] == ["terminated"]
    assert place.runs("down", "--dry-run") == "there is nothing of falcon\n"
    assert "there is no cluster 'falcon'" in place.fails("status", code=4)
    assert not list(place.state.rglob("*.pem"))


@pytest.mark.slow
def test_a_head_on_which_nothing_can_be_installed_is_one_line_and_gone_on_with(
    place: Place,
) -> None:
    place.machines.fail(" pip install ")
    line = place.fails("up", "--yes", code=4)
    assert "no head is up" in line
    assert "ray.log" in line
    (head,) = place.instances()
    assert as_mapping(head["Tags"])["ray-node-status"] == "update-failed"
    place.machines.fail("nothing fails")
    assert "falcon is up" in place.runs("up", "--yes")
    (same,) = place.instances()
    assert same["InstanceId"] == head["InstanceId"]
    assert as_mapping(same["Tags"])["ray-node-status"] == "up-to-date"
