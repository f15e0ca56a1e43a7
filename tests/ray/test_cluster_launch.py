"""`ray up`, `ray get-head-ip` and `ray down` of a rendered file, on an AWS of moto's.

moto invents public addresses that belong to somebody: programs that do nothing stand in for ssh
and rsync, first on PATH.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster import launcher
from cluster.clients import Clients
from cluster.provisioned import Provisioned
from cluster.ray_config import render
from cluster.tags import as_mapping
from tests.ray.aws_server import aws_server, calling
from tests.unit.cluster.made_clusters import (
    TOKEN,
    image_of,
    in_account,
    package,
    plan,
    provisioned,
)

pytestmark = [pytest.mark.ray, pytest.mark.aws, pytest.mark.slow, pytest.mark.timeout(400)]

SHIM = """#!/bin/sh
echo "$(basename "$0") $*" >> {calls}
case "$*" in *{failing}*) exit 1;; esac
"""


@dataclass(frozen=True)
class Place:
    """A cluster's directory."""

    path: Path


@dataclass(frozen=True)
class Account:
    """An account in which a cluster stands, but for its nodes.

    Attributes:
        clients: Of it.
        made: The cluster.
        config: Its file.
        place: Its directory.
    """

    clients: Clients
    made: Provisioned
    config: dict[str, Any]
    place: Place

    @property
    def calls(self) -> str:
        """What was asked of ssh and rsync."""
        return (self.place.path / "calls").read_text()

    def heads(self) -> list[dict[str, Any]]:
        """All instances of the cluster that there ever were."""
        return [
            each
            for reservation in self.clients.ec2.describe_instances(
                Filters=[{"Name": "tag:falcon-ray:id", "Values": [self.made.cluster_id]}]
            )["Reservations"]
            for each in reservation["Instances"]
        ]


@pytest.fixture
def aws() -> Iterator[Clients]:
    with aws_server() as environment, calling(environment) as clients:
        yield clients


@pytest.fixture
def account(aws: Clients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Account:
    shims(tmp_path, failing="nothing-fails")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    made = in_account(provisioned(tmp_path), aws)
    config = render(plan(image=image_of(aws)), made, package(tmp_path))
    return Account(aws, made, config, Place(tmp_path))


def shims(directory: Path, *, failing: str) -> None:
    (directory / "bin").mkdir(exist_ok=True)
    for each in ("ssh", "rsync"):
        file = directory / "bin" / each
        file.write_text(SHIM.format(calls=directory / "calls", failing=failing))
        file.chmod(0o755)


def test_a_head_comes_up_is_found_stays_and_goes(account: Account) -> None:
    launcher.launch(account.config, account.place)
    (head,) = account.heads()
    assert head["State"]["Name"] == "running"
    assert head["InstanceType"] == "m6i.xlarge"
    assert head["IamInstanceProfile"]["Arn"] == account.made.head_profile_arn
    assert head["MetadataOptions"]["HttpTokens"] == "required"
    assert as_mapping(head["Tags"])["ray-node-status"] == "up-to-date"
    address = launcher.head_address(account.place)
    assert address == f"ubuntu@{head['PublicIpAddress']}"

    launcher.launch(account.config, account.place)
    assert [each["InstanceId"] for each in account.heads()] == [head["InstanceId"]]

    assert launcher.stop(account.place)
    (ended,) = account.heads()
    assert ended["State"]["Name"] == "terminated"

    calls = account.calls
    assert "--dashboard-host=127.0.0.1" in calls
    assert "budget_watcher.py" in calls
    assert "~/.ray/auth_token" in calls
    assert TOKEN not in calls


def test_a_head_on_which_nothing_can_be_installed_is_one_line(account: Account) -> None:
    shims(account.place.path, failing="'pip install'")
    with pytest.raises(launcher.ClusterError, match=r"no head is up: .*ray\.log"):
        launcher.launch(account.config, account.place)
    (head,) = account.heads()
    assert as_mapping(head["Tags"])["ray-node-status"] == "update-failed"
    assert launcher.stop(account.place)
