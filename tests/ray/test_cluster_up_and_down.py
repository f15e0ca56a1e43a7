"""What `up` makes, Ray's own launcher starts a head on, and `down` leaves nothing of it.

All of it is on an AWS of moto's, and programs that do nothing stand in for ssh and rsync.
"""

import datetime as dt
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.lifecycle import Known, bring_down, bring_up
from cluster.state.directory import StateDirectory
from cluster.tags import as_mapping
from tests.ray.aws_server import aws_server, calling
from tests.unit.cluster.account.emulated import (
    DryRunEc2,
    TaggingS3,
)
from tests.unit.cluster.account.standing import snapshot
from tests.unit.cluster.made_clusters import image_of, package, plan

pytestmark = [pytest.mark.ray, pytest.mark.aws, pytest.mark.slow, pytest.mark.timeout(400)]


def test_a_cluster_is_made_started_gone_on_with_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in ("ssh", "rsync"):
        program = tmp_path / "bin" / each
        program.parent.mkdir(exist_ok=True)
        program.write_text("#!/bin/sh\nexit 0\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    (tmp_path / "package").mkdir()
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    with aws_server() as environment, calling(environment) as plain:
        clients = replace(plain, ec2=DryRunEc2(plain.ec2), s3=TaggingS3(plain.s3))
        before = snapshot(plain)
        the_plan = plan(image=image_of(plain))
        state = StateDirectory(tmp_path / "clusters", the_plan.spec.name)
        cluster = Known(the_plan.spec.name, clients, state, None)
        first, again = (
            bring_up(
                the_plan,
                cluster,
                now=now,
                say=lambda _: None,
                pack=lambda *_: package(tmp_path / "package"),
            )
            for _ in range(2)
        )
        assert first == again
        made, address = first
        heads = [
            each
            for page in plain.ec2.describe_instances()["Reservations"]
            for each in page["Instances"]
        ]
        (head,) = heads  # the second up left it alone
        tags = as_mapping(head["Tags"])
        assert tags["falcon-ray:id"] == made.cluster_id
        assert tags["ray-node-type"] == "head"
        assert head["IamInstanceProfile"]["Arn"] == made.head_profile_arn
        assert head["KeyName"] == made.key_name
        assert head["SubnetId"] in made.subnet_ids.values()
        assert address == f"ubuntu@{head['PublicIpAddress']}"

        bring_down(cluster, delete_bucket=True)
        assert snapshot(plain) == before
    assert not state.path.exists()
