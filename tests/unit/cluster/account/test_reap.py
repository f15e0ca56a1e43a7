"""Clusters whose time is over end, whoever made them; others are left alone."""

import datetime as dt
import logging

import pytest

from cluster.clients import Clients
from cluster.reap import reap
from cluster.state.directory import StateDirectory
from cluster.teardown import leftovers
from tests.unit.cluster.account.emulated import (
    CLUSTER_ID,
    NAME,
    NOW,
    OURS,
    FakeTime,
    account,
    connect,
    failing,
    launch,
    plan,
    recording,
    up,
)
from tests.unit.cluster.account.standing import bystanders, snapshot

pytestmark = pytest.mark.aws

END = NOW + dt.timedelta(hours=8)  # as long as the plan's clusters live


def test_what_is_over_goes_and_what_is_not_stays(clients: Clients, state: StateDirectory) -> None:
    bystanders(clients)  # among them a cluster whose time is over in 2030, and tags without a date
    before = snapshot(clients)
    made = up(clients, state)
    node = launch(
        clients,
        made.subnet_ids["us-east-1a"],
        **OURS,
        **{"falcon-ray_expires-at": END.isoformat()},
    )
    (reaped,) = reap(clients, now=END, dry_run=False, patience=FakeTime().patience)
    assert (reaped.name, reaped.cluster_id, reaped.expired_at) == (NAME, CLUSTER_ID, END)
    assert f"instance {node}" in reaped.removed
    assert f"VPC {made.vpc_id}" in reaped.removed
    assert reaped.left == ()
    assert snapshot(clients) == before | {made.bucket: []}  # results are kept


def test_nothing_ends_before_its_time(clients: Clients, state: StateDirectory) -> None:
    up(clients, state)
    watched, calls = recording(clients)
    assert reap(watched, now=END - dt.timedelta(seconds=1), dry_run=False) == ()
    assert calls == []


def test_a_time_that_was_put_off_counts(clients: Clients, state: StateDirectory) -> None:
    up(clients, state)
    up(clients, state, now=NOW + dt.timedelta(hours=5))
    assert reap(clients, now=END, dry_run=True) == ()
    assert len(reap(clients, now=END + dt.timedelta(hours=5), dry_run=True)) == 1


def test_a_dry_run_only_says(clients: Clients, state: StateDirectory) -> None:
    made = up(clients, state)
    before = snapshot(clients)
    watched, calls = recording(clients)
    (reaped,) = reap(watched, now=END, dry_run=True)
    assert f"VPC {made.vpc_id}" in reaped.removed
    assert calls == []
    assert snapshot(clients) == before


def test_a_cluster_without_a_readable_time_is_left_alone_and_reported(
    clients: Clients, state: StateDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    made = up(clients, state)
    clients.ec2.create_tags(
        Resources=[made.vpc_id], Tags=[{"Key": "falcon-ray:expires-at", "Value": "tomorrow"}]
    )
    with caplog.at_level(logging.WARNING):
        assert reap(clients, now=END, dry_run=False) == ()
    assert f"VPC {made.vpc_id} says no time at which it expires ('tomorrow')" in caplog.text
    assert leftovers(NAME, clients)


def test_what_cannot_be_removed_is_said(clients: Clients, state: StateDirectory) -> None:
    made = up(clients, state)
    denied = failing(clients, {"delete_vpc": ["UnauthorizedOperation"]})
    (reaped,) = reap(denied, now=END, dry_run=False, patience=FakeTime().patience)
    assert f"VPC {made.vpc_id}" not in reaped.removed
    assert "ec2:DeleteVpc" in reaped.left[0]


def test_another_region_is_left_alone(state: StateDirectory) -> None:
    with account():
        there, zones = connect("eu-west-1"), ("eu-west-1a",)
        up(there, state, plan(region="eu-west-1", head_zones=zones, worker_zones=zones))
        before = snapshot(there)
        assert reap(connect(), now=END, dry_run=False) == ()
        assert snapshot(there) == before
