"""The cluster file: what every node is launched as, and that Ray itself takes it."""

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.clients import Clients
from cluster.planned import ClusterPlan
from cluster.provisioned import Provisioned
from cluster.ray_config import render
from cluster.spec import Market
from cluster.tags import CLUSTER, EXPIRES_AT, ID, MANAGED, as_mapping
from falcon_ray.errors import ClusterError
from falcon_ray.runtime.cluster_nodes import types_of_config
from falcon_ray.space.catalogue import Catalogue, InstanceStatus
from tests.unit.cluster.made_clusters import (
    EXPIRES_AT as EXPIRES,
)
from tests.unit.cluster.made_clusters import (
    TOKEN,
    image_of,
    in_account,
    node,
    package,
    plan,
    provisioned,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what Ray imports is deprecated here and there
    from ray.autoscaler._private.commands import _bootstrap_config
    from ray.autoscaler._private.util import prepare_config, validate_config

GIB = 2**30
ACTIVE = [
    node(each.instance_type, market)
    for each in Catalogue.packaged().instances
    if each.status is InstanceStatus.ACTIVE and each.n_gpus
    for market in Market
]
PLANS = {"default": plan(), "no limit": plan(max_cost_usd=None), "whole catalogue": plan(ACTIVE)}


@pytest.fixture(params=list(PLANS))
def a_plan(request: pytest.FixtureRequest) -> ClusterPlan:
    return PLANS[request.param]


def rendered(a_plan: ClusterPlan, tmp_path: Path) -> dict[str, Any]:
    return render(a_plan, provisioned(tmp_path), package(tmp_path))


def node_configs(config: dict[str, Any]) -> list[dict[str, Any]]:
    return [each["node_config"] for each in config["available_node_types"].values()]


def test_what_is_rendered_is_valid_and_has_no_default_filled_in(
    a_plan: ClusterPlan, tmp_path: Path
) -> None:
    config = yaml.safe_load(yaml.safe_dump(rendered(a_plan, tmp_path)))
    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared == config


@pytest.mark.aws
@pytest.mark.parametrize("name", list(PLANS))
def test_rays_bootstrap_takes_every_file_and_makes_nothing(
    name: str, tmp_path: Path, account: Clients
) -> None:
    made = in_account(provisioned(tmp_path), account)
    config = render(PLANS[name], made, package(tmp_path))
    before = things(account)
    resolved = _bootstrap_config(config, no_config_cache=True)
    assert things(account) == before
    assert node_configs(resolved) == node_configs(config)
    others = {
        kind
        for kind, each in resolved["available_node_types"].items()
        if each["resources"] != config["available_node_types"][kind]["resources"]
    }
    # Ray adds what EC2 calls the GPU, and for this one alone that is another name.
    assert {kind.partition(".")[0].partition("-")[0] for kind in others} <= {"g7e"}


def things(account: Clients) -> list[Any]:
    ec2, iam = account.ec2, account.iam
    return [
        ec2.describe_security_groups()["SecurityGroups"],
        ec2.describe_key_pairs()["KeyPairs"],
        ec2.describe_subnets()["Subnets"],
        iam.list_roles()["Roles"],
        iam.list_instance_profiles()["InstanceProfiles"],
    ]


@pytest.mark.aws
def test_ec2_takes_every_node_as_it_is_launched(tmp_path: Path, account: Clients) -> None:
    made: Provisioned = in_account(provisioned(tmp_path), account)
    a_plan = plan(image=image_of(account))
    config = render(a_plan, made, package(tmp_path))
    for name, each in config["available_node_types"].items():
        arguments = dict(each["node_config"])
        subnets = arguments.pop("SubnetIds")
        assert subnets == list(made.subnet_ids.values())
        launched = account.ec2.run_instances(
            **arguments, SubnetId=subnets[0], MinCount=1, MaxCount=1
        )["Instances"][0]
        assert launched["InstanceType"] == each["node_config"]["InstanceType"], name
        volumes = account.ec2.describe_volumes(
            Filters=[{"Name": "attachment.instance-id", "Values": [launched["InstanceId"]]}]
        )["Volumes"]
        assert [volume["Encrypted"] for volume in volumes] == [True]
        assert as_mapping(volumes[0]["Tags"])[ID] == made.cluster_id


def test_every_node_has_imds_v2_an_encrypted_disk_and_an_end(
    a_plan: ClusterPlan, tmp_path: Path
) -> None:
    for config in node_configs(rendered(a_plan, tmp_path)):
        assert config["MetadataOptions"]["HttpTokens"] == "required"
        assert config["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
        (disk,) = config["BlockDeviceMappings"]
        assert disk["Ebs"]["Encrypted"] is True
        assert disk["Ebs"]["DeleteOnTermination"] is True
        assert config["InstanceInitiatedShutdownBehavior"] == "terminate"
        assert str(int(EXPIRES.timestamp())) in config["UserData"]


def test_every_thing_that_a_launch_makes_is_tagged_as_ours(
    a_plan: ClusterPlan, tmp_path: Path
) -> None:
    for config in node_configs(rendered(a_plan, tmp_path)):
        tags = {
            each["ResourceType"]: as_mapping(each["Tags"]) for each in config["TagSpecifications"]
        }
        expected = {"instance", "volume", "network-interface"}
        is_spot = "InstanceMarketOptions" in config
        assert set(tags) == expected | ({"spot-instances-request"} if is_spot else set())
        for each in tags.values():
            assert each == {
                MANAGED: "true",
                CLUSTER: "trial",
                ID: "0123abcd",
                EXPIRES_AT: "2026-12-01T20:00:00+00:00",
            }


def test_the_head_alone_has_the_heads_role(tmp_path: Path) -> None:
    config = rendered(plan(), tmp_path)
    roles = {
        name: each["node_config"]["IamInstanceProfile"]["Arn"].rpartition("/")[2]
        for name, each in config["available_node_types"].items()
    }
    assert roles.pop("head") == "head"
    assert set(roles.values()) == {"worker"}


def test_nodes_offer_what_the_catalogue_says(tmp_path: Path) -> None:
    types = rendered(plan(), tmp_path)["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0}
    t4 = types["g4dn-xlarge"]
    assert t4["resources"] == {
        "CPU": 4,
        "memory": int(16 * GIB * 0.7),
        "GPU": 1,
        "accelerator_type:T4": 1,
    }
    assert t4["labels"] == {
        "ray.io/accelerator-type": "T4",
        "ray.io/market-type": "on-demand",
        "falcon-ray/instance-type": "g4dn.xlarge",
        "falcon-ray/gpu-type": "T4",
        "falcon-ray/gpu-memory-mib": "16384",
    }
    assert types["g6-xlarge-spot"]["labels"]["ray.io/market-type"] == "spot"


def test_a_search_on_the_head_finds_the_types_that_can_be_added(tmp_path: Path) -> None:
    found = {
        each.name: (each.shape.gpu_type, each.shape.n_gpus, each.shape.cpus, each.max_nodes)
        for each in types_of_config(rendered(plan(), tmp_path))
    }
    assert found == {
        "g4dn-xlarge": ("T4", 1, 4, 2),
        "g6-xlarge-spot": ("L4", 1, 4, 2),
        "g5-xlarge": ("A10G", 1, 4, 2),
    }


def test_of_types_that_fit_alike_the_cheapest_has_the_highest_priority(tmp_path: Path) -> None:
    spot, on_demand = node("g6.xlarge", Market.SPOT, usd_per_hour=0.4), node("g6.xlarge")
    types = rendered(plan((spot, on_demand)), tmp_path)["available_node_types"]
    assert types["g6-xlarge-spot"]["priority"] > types["g6-xlarge"]["priority"]


def test_spot_nodes_are_spot_and_others_are_not(tmp_path: Path) -> None:
    types = rendered(plan(), tmp_path)["available_node_types"]
    assert types["g6-xlarge-spot"]["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert "InstanceMarketOptions" not in types["g4dn-xlarge"]["node_config"]
    assert "InstanceMarketOptions" not in types["head"]["node_config"]


def test_no_secret_is_in_the_file(tmp_path: Path) -> None:
    text = json.dumps(rendered(plan(), tmp_path))
    assert TOKEN not in text
    assert "no key" not in text


def test_the_same_cluster_gives_the_same_file(tmp_path: Path) -> None:
    assert rendered(plan(), tmp_path) == rendered(plan(), tmp_path)


def test_all_that_is_shipped_is_there_to_be_shipped(tmp_path: Path) -> None:
    mounts = rendered(plan(), tmp_path)["file_mounts"]
    assert all(Path(each).is_file() for each in mounts.values())
    assert mounts["~/.ray/auth_token"].endswith("token")
    assert {Path(each).name for each in mounts} >= {"budget_watcher.py", "keep_results.py"}


def test_a_disk_is_never_smaller_than_its_image(tmp_path: Path) -> None:
    a_plan = plan()
    assert a_plan.spec.disk_gib == 100
    sizes = {
        config["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"]
        for config in node_configs(rendered(a_plan, tmp_path))
    }
    assert sizes == {100}


def test_a_type_without_a_subnet_is_refused(tmp_path: Path) -> None:
    made = dataclasses.replace(provisioned(tmp_path), subnet_ids={"us-east-1f": "subnet-f"})
    with pytest.raises(ClusterError, match=r"us-east-1a, us-east-1b.*us-east-1f.*down"):
        render(plan(), made, package(tmp_path))
