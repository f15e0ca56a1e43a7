"""Killed at any call that changes the account, a command can be gone on with or undone.

Each crash happens in an account in which other things stand that look like the cluster's; nothing
else must be left there afterwards, and nothing of them may have changed.
"""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.clients import Clients
from cluster.provision import provision, provisioned
from cluster.provisioned import Provisioned
from cluster.state.directory import StateDirectory
from cluster.teardown import tear_down
from tests.unit.cluster.account.emulated import (
    CLUSTER_ID,
    NAME,
    NOW,
    Crash,
    FakeTime,
    account,
    connect,
    crashing,
    launch,
    plan,
    recording,
)
from tests.unit.cluster.account.standing import bystanders, snapshot

pytestmark = pytest.mark.aws

WHENS = ("before", "after")


class Machine:
    """A machine of the user's, which may be killed and started again, and its account."""

    def __init__(self, directory: Path, clients: Clients) -> None:
        self.clients = clients
        self.before = snapshot(self.clients)
        self.time = FakeTime(speed=5)  # moto shows all at once: a second look sees no more
        self._directory = directory

    @property
    def state(self) -> StateDirectory:
        """What a process that has just started finds of the cluster."""
        return StateDirectory(self._directory, NAME)

    def up(self, clients: Clients | None = None) -> Provisioned:
        return provision(
            plan(),
            clients or self.clients,
            self.state,
            now=NOW,
            patience=self.time.patience,
            new_id=lambda: CLUSTER_ID,
        )

    def down(self, clients: Clients | None = None) -> None:
        tear_down(
            NAME,
            clients or self.clients,
            self.state,
            delete_bucket=True,
            patience=self.time.patience,
        )

    def lose_journal(self) -> None:
        (self.state.path / "journal.jsonl").unlink(missing_ok=True)

    def assert_nothing_is_left(self) -> None:
        assert snapshot(self.clients) == self.before
        assert not self.state.path.exists()

    def assert_one_of_each_is_there(self) -> None:
        """As many things as an `up` makes that was not killed, which is asked for no more."""
        made = snapshot(self.clients).keys() - self.before.keys()
        # VPC with its own route table and group, 2 subnets, gateway, route table, group, key pair,
        # bucket, 2 roles, 2 profiles.
        assert len(made) == 3 + 2 + 1 + 1 + 1 + 1 + 1 + 2 + 2
        clients, calls = recording(self.clients)
        complete = self.up(clients)
        assert calls == []
        assert provisioned(NAME, self.clients, self.state) == complete


def crashes(
    tmp_path: Path, when: str, act: Callable[[Machine, Clients], object], *, begun: bool
) -> Iterator[Machine]:
    """A machine on which `act` is killed at its first call that changes the account, its second...

    Whoever asks for the next crash leaves nothing of the cluster behind, or it is ended here.

    Args:
        tmp_path: For the machine's files.
        when: "before" or "after" the call.
        act: Is killed.
        begun: Whether the cluster stands before that, with a node.
    """
    with account():
        clients = connect()
        bystanders(clients)
        machine = Machine(tmp_path, clients)
        for at in itertools.count(1):
            if begun:
                made = machine.up()
                launch(
                    clients,
                    made.subnet_ids["us-east-1a"],
                    **{"falcon-ray_managed": "true", "falcon-ray_cluster": NAME},
                    **{"falcon-ray_id": CLUSTER_ID},
                )
            try:
                act(machine, crashing(clients, at=at, when=when))
            except Crash:
                yield machine
                if machine.state.path.exists():
                    machine.down()
                machine.assert_nothing_is_left()
            else:
                # It made fewer calls than that. An `up` makes 27, a `down` 20: none is trivial.
                assert at > 20
                return


def killed_ups(tmp_path: Path, when: str) -> Iterator[Machine]:
    return crashes(tmp_path, when, Machine.up, begun=False)


def killed_downs(tmp_path: Path) -> Iterator[Machine]:
    # A `down` decides by what it sees alone, which before a call is what it was after the last.
    return crashes(tmp_path, "after", Machine.down, begun=True)


@pytest.mark.parametrize("when", WHENS)
def test_a_killed_up_goes_on_where_it_was(tmp_path: Path, when: str) -> None:
    for machine in killed_ups(tmp_path, when):
        machine.up()
        machine.assert_one_of_each_is_there()


def test_a_killed_up_goes_on_without_its_journal(tmp_path: Path) -> None:
    for machine in killed_ups(tmp_path, "after"):
        machine.lose_journal()
        machine.up()
        machine.assert_one_of_each_is_there()


@pytest.mark.parametrize("when", WHENS)
def test_a_killed_up_is_undone(tmp_path: Path, when: str) -> None:
    for machine in killed_ups(tmp_path, when):
        machine.down()
        machine.assert_nothing_is_left()


@pytest.mark.parametrize("when", WHENS)
def test_a_killed_up_is_undone_without_its_journal(tmp_path: Path, when: str) -> None:
    for machine in killed_ups(tmp_path, when):
        machine.lose_journal()
        machine.down()
        machine.assert_nothing_is_left()


def test_a_killed_down_goes_on_where_it_was(tmp_path: Path) -> None:
    for machine in killed_downs(tmp_path):
        machine.down()
        machine.assert_nothing_is_left()


def test_a_killed_down_goes_on_without_its_journal(tmp_path: Path) -> None:
    for machine in killed_downs(tmp_path):
        machine.lose_journal()
        machine.down()
        machine.assert_nothing_is_left()


def test_a_killed_down_can_be_followed_by_an_up(tmp_path: Path) -> None:
    for machine in killed_downs(tmp_path):
        machine.up()
        machine.assert_one_of_each_is_there()
