"""The count of what a cluster costs, and its end before that is too much."""

import datetime as dt
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from cluster import budget_watcher
from cluster.budget_watcher import (
    Rates,
    Report,
    Run,
    Watcher,
    read_report,
    report_key,
    runs_of,
    spent_usd,
)
from cluster.clients import Clients
from cluster.ray_config import render
from tests.ray.aws_server import aws_server, calling
from tests.unit.cluster.made_clusters import (
    image_of,
    in_account,
    package,
    plan,
    provisioned,
)

HOUR_S = 3600.0
RATES = Rates(
    usd_per_hour={"m6i.xlarge/on-demand": 0.2, "g6.xlarge/spot": 0.4}, also_usd_per_hour=0.1
)
BUCKET, ID = "results", "0123abcd"


def instance(
    name: str, *, kind: str = "m6i.xlarge", state: str = "running", start_s: float = 0.0
) -> Mapping[str, Any]:
    return {
        "InstanceId": name,
        "InstanceType": kind,
        "State": {"Name": state},
        "LaunchTime": dt.datetime.fromtimestamp(start_s, dt.UTC),
        **({"InstanceLifecycle": "spot"} if kind == "g6.xlarge" else {}),
    }


@dataclass
class FakeAws:
    """EC2 and S3 in one, as far as the watcher asks them."""

    instances: list[Mapping[str, Any]] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)
    terminated: list[str] = field(default_factory=list)
    refuses: set[str] = field(default_factory=set)
    forgotten: set[str] = field(default_factory=set)
    n_shut_down: int = 0

    def get_paginator(self, _: str) -> "FakeAws":
        return self

    def paginate(self, **_: object) -> list[dict[str, Any]]:
        self._check("describe")
        return [{"Reservations": [{"Instances": list(self.instances)}]}]

    def terminate_instances(self, *, InstanceIds: list[str]) -> None:  # noqa: N803 - boto3's
        self._check("terminate")
        if self.forgotten & set(InstanceIds):
            raise refusal("InvalidInstanceID.NotFound")
        self.terminated += InstanceIds

    def put_object(self, *, Key: str, Body: bytes, **_: object) -> None:  # noqa: N803
        self._check("put")
        self.objects[Key] = Body

    def get_object(self, *, Key: str, **_: object) -> dict[str, Any]:  # noqa: N803
        self._check("get")
        if Key not in self.objects:
            raise refusal("NoSuchKey")
        self._body = self.objects[Key]
        return {"Body": self}

    def read(self) -> bytes:
        return self._body

    def shut_down(self) -> None:
        self.n_shut_down += 1

    def _check(self, what: str) -> None:
        if what in self.refuses:
            raise refusal("UnauthorizedOperation")


def refusal(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "Something")


def watcher(aws: FakeAws, now: "float | Clock", *, max_cost_usd: float | None = 1.0) -> Watcher:
    return Watcher(
        aws,
        aws,
        cluster_id=ID,
        bucket=BUCKET,
        rates=RATES,
        max_cost_usd=max_cost_usd,
        shut_down=aws.shut_down,
        clock=now if isinstance(now, Clock) else lambda: now,
    )


def test_what_has_ended_costs_no_more_and_is_not_forgotten() -> None:
    runs = runs_of([instance("a"), instance("b", kind="g6.xlarge")], (), HOUR_S)
    runs = runs_of(
        [instance("a"), instance("b", kind="g6.xlarge", state="terminated")], runs, HOUR_S
    )
    runs = runs_of([instance("a")], runs, 2 * HOUR_S)  # EC2 has forgotten it
    # a: 2 h * (0.2 + 0.1) USD/h; b: 1 h * (0.4 + 0.1) USD/h
    assert spent_usd(runs, RATES, 2 * HOUR_S) == pytest.approx(0.6 + 0.5)


def test_what_nobody_knows_costs_as_much_as_the_dearest() -> None:
    runs = runs_of([instance("a", kind="x.large")], (), HOUR_S)
    assert spent_usd(runs, RATES, HOUR_S) == pytest.approx(0.4 + 0.1)


def test_a_cluster_ends_before_it_has_cost_more_than_allowed() -> None:
    aws = FakeAws([instance("head"), instance("worker", kind="g6.xlarge")])
    # 0.3 + 0.5 = 0.8 USD/h; with the margin of 300 s, 1 USD is reached at 1.25 h - 300 s = 4200 s
    assert watcher(aws, 4100.0).look()
    assert aws.terminated == []
    assert not watcher(aws, 4200.0).look()
    assert sorted(aws.terminated) == ["head", "worker"]
    assert aws.n_shut_down == 1


def test_without_a_limit_it_only_counts() -> None:
    aws = FakeAws([instance("head")])
    assert watcher(aws, 1e9, max_cost_usd=None).look()
    report = read_report(aws, BUCKET, ID)
    assert report is not None
    assert (report.max_cost_usd, len(report.runs)) == (None, 1)


def test_a_new_head_goes_on_counting_where_the_old_one_was() -> None:
    aws = FakeAws([instance("old")])
    assert watcher(aws, HOUR_S).look()
    aws.instances = [instance("new", start_s=HOUR_S)]
    assert watcher(aws, 2 * HOUR_S).look()
    report = read_report(aws, BUCKET, ID)
    assert report is not None
    # Seen to run at 1 h, and to be gone at 2 h; what lies between is charged.
    assert spent_usd(report.runs, RATES, 2 * HOUR_S) == pytest.approx(2 * 0.3 + 1 * 0.3)
    assert Report.from_json(report.to_json()) == report


@dataclass
class Clock:
    """Says what it is told to."""

    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_while_ec2_does_not_answer_all_is_taken_to_run_on() -> None:
    aws, clock = FakeAws([instance("head")]), Clock(100.0)
    a_watcher = watcher(aws, clock)
    assert a_watcher.look()
    aws.refuses = {"describe", "put"}
    clock.now_s = 3 * HOUR_S
    assert a_watcher.look()  # 3 h * 0.3 USD/h = 0.9 USD, and 0.025 USD in the margin
    clock.now_s = 3.3 * HOUR_S
    assert not a_watcher.look()


def test_a_watcher_that_never_saw_anything_does_not_say_that_it_counts() -> None:
    with pytest.raises(ClientError):
        watcher(FakeAws([instance("head")], refuses={"describe"}), 0.0).look()


def test_an_earlier_count_that_comes_late_is_neither_forgotten_nor_written_over() -> None:
    aws, clock = FakeAws([instance("old")]), Clock(HOUR_S)
    assert watcher(aws, clock).look()
    kept = dict(aws.objects)
    aws.instances = [instance("new", start_s=HOUR_S)]
    a_watcher = watcher(aws, clock)
    aws.refuses = {"get"}
    assert a_watcher.look()
    assert aws.objects == kept
    aws.refuses = set()
    clock.now_s = 2 * HOUR_S
    assert a_watcher.look()
    report = read_report(aws, BUCKET, ID)
    assert report is not None
    assert {each.instance_id for each in report.runs} == {"old", "new"}
    # old: 2 h * 0.3 USD/h, for it was not seen to end before; new: 1 h * 0.3 USD/h
    assert spent_usd(report.runs, RATES, clock.now_s) == pytest.approx(0.9)


def test_an_earlier_count_that_nobody_understands_does_not_end_the_counting() -> None:
    aws = FakeAws([instance("head")], objects={report_key(ID): b"no JSON"})
    assert watcher(aws, HOUR_S).look()
    report = read_report(aws, BUCKET, ID)
    assert report is not None
    assert len(report.runs) == 1


def test_a_head_that_may_end_nobody_tries_for_a_while_and_ends_itself() -> None:
    aws = FakeAws(
        [instance("head"), instance("worker", start_s=1.0)],
        refuses={"terminate"},
    )
    a_watcher = watcher(aws, 1e6)
    assert [a_watcher.look() for _ in range(5)] == [True] * 4 + [False]
    assert aws.n_shut_down == 1


def test_one_that_ec2_has_forgotten_spares_no_other() -> None:
    aws = FakeAws(
        [
            instance("head"),
            instance("gone", kind="g6.xlarge", start_s=1.0),
            instance("worker", kind="g6.xlarge", start_s=2.0),
        ],
        forgotten={"gone"},
    )
    assert not watcher(aws, 1e6).look()
    assert aws.terminated == ["worker"]
    assert aws.n_shut_down == 1  # which ends the head


@pytest.mark.aws
def test_in_an_account_it_ends_its_own_cluster_and_no_other(account: Clients) -> None:
    account.s3.create_bucket(Bucket=BUCKET)
    ids: dict[str, str] = {}
    for each in (ID, "ffffffff"):
        tags = [{"ResourceType": "instance", "Tags": [{"Key": "falcon-ray:id", "Value": each}]}]
        launched = account.ec2.run_instances(
            ImageId=image_of(account).ami_id, MinCount=1, MaxCount=1, TagSpecifications=tags
        )
        ids[each] = launched["Instances"][0]["InstanceId"]
    ended: list[bool] = []
    over = Watcher(
        account.ec2,
        account.s3,
        cluster_id=ID,
        bucket=BUCKET,
        rates=RATES,
        max_cost_usd=0.0,
        shut_down=lambda: ended.append(True),
    ).look()
    states = {
        each["InstanceId"]: each["State"]["Name"]
        for reservation in account.ec2.describe_instances()["Reservations"]
        for each in reservation["Instances"]
    }
    assert (over, ended) == (False, [True])
    assert states == {ids[ID]: "terminated", ids["ffffffff"]: "running"}
    report = read_report(account.s3, BUCKET, ID)
    assert report is not None
    assert [each.instance_id for each in report.runs] == [ids[ID]]
    assert isinstance(report.runs[0], Run)


@pytest.mark.aws
def test_as_the_head_starts_it_it_counts_and_then_says_that_it_is_ready(
    tmp_path: Path,
) -> None:
    with (
        aws_server() as environment,
        calling(environment) as clients,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd,
    ):
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(30)
        made = in_account(provisioned(tmp_path), clients)
        # Without a limit, for it would end the machine that the tests run on.
        config = render(plan(max_cost_usd=None), made, package(tmp_path))
        command = config["head_start_ray_commands"][0]
        assert "--max-cost-usd" not in command
        arguments = re.findall(r"budget_watcher\.py (.*)", command)[0]
        tags = [{"ResourceType": "instance", "Tags": [{"Key": "falcon-ray:id", "Value": ID}]}]
        clients.ec2.run_instances(
            ImageId=image_of(clients).ami_id, MinCount=1, MaxCount=1, TagSpecifications=tags
        )
        started = subprocess.Popen(
            [sys.executable, str(budget_watcher.__file__), *shlex.split(arguments)],
            env={**os.environ, **environment, "NOTIFY_SOCKET": str(tmp_path / "notify")},
        )
        with started:
            try:
                assert systemd.recv(100) == b"READY=1\nWATCHDOG=1"
                report = read_report(clients.s3, made.bucket, ID)
            finally:
                started.terminate()
    assert report is not None
    assert len(report.runs) == 1
    assert report.rates.usd_per_hour["g6.xlarge/spot"] == 0.4
