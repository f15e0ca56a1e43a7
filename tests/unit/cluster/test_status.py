"""How a cluster stands, of an account of moto's."""

import datetime as dt
from pathlib import Path

import pytest

from cluster.budget_watcher import Rates, Watcher
from cluster.clients import Clients
from cluster.provisioned import Provisioned
from cluster.ray_config import render
from cluster.status import status
from falcon_ray.errors import ClusterError
from tests.unit.cluster.made_clusters import (
    EXPIRES_AT,
    image_of,
    in_account,
    package,
    plan,
    provisioned,
)

pytestmark = pytest.mark.aws


@pytest.fixture
def made(account: Clients, tmp_path: Path) -> Provisioned:
    """A cluster with a head and a worker that run."""
    made = in_account(provisioned(tmp_path), account)
    config = render(plan(image=image_of(account)), made, package(tmp_path))
    for name in ("g4dn-xlarge", "head"):
        arguments = dict(config["available_node_types"][name]["node_config"])
        subnet = arguments.pop("SubnetIds")[0]
        launched = account.ec2.run_instances(**arguments, SubnetId=subnet, MinCount=1, MaxCount=1)
        account.ec2.create_tags(
            Resources=[launched["Instances"][0]["InstanceId"]],
            Tags=[
                {"Key": "ray-user-node-type", "Value": name},
                {"Key": "ray-node-type", "Value": "head" if name == "head" else "worker"},
                {"Key": "ray-node-status", "Value": "up-to-date"},
            ],
        )
    return made


def launched_at(account: Clients) -> dt.datetime:
    return max(
        each["LaunchTime"]
        for reservation in account.ec2.describe_instances()["Reservations"]
        for each in reservation["Instances"]
    )


def test_nodes_are_shown_with_the_head_first_and_what_is_left_of_the_time(
    account: Clients, made: Provisioned
) -> None:
    found = status(made, account, now=EXPIRES_AT - dt.timedelta(hours=2))
    assert [each.node_type for each in found.nodes] == ["head", "g4dn-xlarge"]
    assert [each.setup for each in found.nodes] == ["up-to-date", "up-to-date"]
    assert found.hours_left == pytest.approx(2.0)
    assert status(made, account, now=EXPIRES_AT + dt.timedelta(hours=2)).hours_left == 0.0


def test_before_the_head_has_counted_prices_are_those_of_the_catalogue(
    account: Clients, made: Provisioned
) -> None:
    now = launched_at(account) + dt.timedelta(hours=1)
    found = status(made, account, now=now)
    assert found.usd_per_hour == pytest.approx(0.192 + 0.526)  # m6i.xlarge and g4dn.xlarge
    assert found.spent_usd == pytest.approx(0.192 + 0.526, rel=0.01)  # for one hour
    assert "has not counted yet" in str(found)


def test_what_the_head_counts_is_what_is_shown(account: Clients, made: Provisioned) -> None:
    at = launched_at(account) + dt.timedelta(hours=1)
    rates = Rates(
        usd_per_hour={"m6i.xlarge/on-demand": 1.0, "g4dn.xlarge/on-demand": 2.0},
        also_usd_per_hour=0.5,
    )
    Watcher(
        account.ec2,
        account.s3,
        cluster_id=made.cluster_id,
        bucket=made.bucket,
        rates=rates,
        max_cost_usd=30.0,
        shut_down=lambda: None,
        clock=at.timestamp,
    ).look()
    found = status(made, account, now=at + dt.timedelta(hours=1))
    # 2 h * ((1 + 0.5) + (2 + 0.5)) USD/h
    assert found.spent_usd == pytest.approx(8.0, rel=0.01)
    assert found.max_cost_usd == 30.0
    assert "8.00 of 30.00 USD (at most; counted by its head" in str(found)


def test_a_watcher_that_counts_no_more_is_told(account: Clients, made: Provisioned) -> None:
    at = launched_at(account)
    Watcher(
        account.ec2,
        account.s3,
        cluster_id=made.cluster_id,
        bucket=made.bucket,
        rates=Rates(usd_per_hour={}, also_usd_per_hour=0.5),
        max_cost_usd=30.0,
        shut_down=lambda: None,
        clock=at.timestamp,
    ).look()
    late = "nobody ends it at its limit"
    assert late not in str(status(made, account, now=at + dt.timedelta(minutes=14)))
    assert late in str(status(made, account, now=at + dt.timedelta(minutes=16)))


def test_without_an_answer_of_aws_there_is_one_line(account: Clients, made: Provisioned) -> None:
    account.s3.delete_bucket(Bucket=made.bucket)
    with pytest.raises(ClusterError, match=r"does not say how trial stands: .*NoSuchBucket"):
        status(made, account, now=EXPIRES_AT)
