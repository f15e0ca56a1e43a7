"""`cluster_nodes` uses what Ray keeps private: these fail when an upgrade of Ray moves it."""

from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from ray._private.state import state
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID
from ray.core.generated import autoscaler_pb2
from ray.util.placement_group import placement_group, remove_placement_group

from falcon_ray.runtime.cluster_nodes import (
    CONFIG_FLAG,
    GIB,
    HEAD_RESOURCE,
    ledger_nodes,
    node_types,
    types_of_groups,
)
from falcon_ray.runtime.ray_session import live_nodes, ray_session
from tests.ray.heads import started_head
from tests.ray.processes import N_CPUS, Command, wait_until

pytestmark = pytest.mark.ray

ASK = """
import logging, ray
from falcon_ray.runtime.ray_session import ray_session
with ray_session({address!r}) as cluster:
    for each in cluster.types:
        print("type", each.name, each.shape.gpu_type, each.shape.cpus, each.max_nodes)
    print("possible", len(cluster.possible_nodes))
"""

# Commands that would install Ray on a new node; the launcher requires that all are named.
COMMANDS = (
    *("setup_commands", "head_setup_commands", "worker_setup_commands"),
    *("initialization_commands", "head_start_ray_commands", "worker_start_ray_commands"),
)
CLUSTER_FILE = {
    "cluster_name": "fake",
    "max_workers": 8,
    "upscaling_speed": 1.0,
    "idle_timeout_minutes": 5,
    "auth": {},
    "docker": {},
    "file_mounts": {},
    "cluster_synced_files": [],
    **{key: [] for key in COMMANDS},
    "provider": {
        "type": "external",
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "head_node_id": FAKE_HEAD_NODE_ID,
        "launch_multiple": True,
    },
    "head_node_type": "head",
    "available_node_types": {
        "head": {"resources": {"CPU": N_CPUS}, "node_config": {}, "max_workers": 0},
        "l4": {
            "resources": {"CPU": 4, "GPU": 1, "accelerator_type:L4": 1},
            "node_config": {},
            "min_workers": 0,
            "max_workers": 3,
        },
    },
}
VERSION_2 = {
    "RAY_FAKE_CLUSTER": "1",
    "RAY_enable_autoscaler_v2": "1",
    "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
}


def test_the_nodes_that_are_there_say_what_is_in_use(ray_address: str) -> None:  # noqa: ARG001
    (node,) = ledger_nodes()
    assert node.node_id == ray.get_runtime_context().get_node_id()
    assert node.shape.cpus == N_CPUS
    assert (node.shape,) == live_nodes()

    before = node.used_cpus
    group = placement_group([{"CPU": 1}])
    assert group.wait(30)
    try:
        wait_until(
            lambda: ledger_nodes()[0].used_cpus == before + 1, "the core is in use", timeout_s=10
        )
    finally:
        remove_placement_group(group)


def test_without_an_autoscaler_nothing_can_be_added(ray_address: str) -> None:  # noqa: ARG001
    assert any(HEAD_RESOURCE in node["Resources"] for node in ray.nodes())
    assert state.get_cluster_config() is None
    assert node_types() == ()
    with ray_session(None) as cluster:
        assert cluster.possible_nodes == cluster.nodes == live_nodes()


def test_what_a_platform_tells_ray_has_the_fields_that_are_read() -> None:
    protocol: Any = autoscaler_pb2
    group = protocol.NodeGroupConfig(name="t4", max_count=-1)
    group.resources.update({"CPU": 4, "GPU": 1, "accelerator_type:T4": 1, "memory": int(GIB)})
    config = protocol.ClusterConfig(node_group_configs=[group])
    (found,) = types_of_groups(config.node_group_configs)
    assert (found.name, found.shape.gpu_type, found.shape.ram_gib) == ("t4", "T4", 1.0)


@pytest.mark.timeout(240)
def test_the_autoscalers_file_is_found_from_a_driver(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(yaml.safe_dump(CLUSTER_FILE), encoding="utf-8")
    with started_head(tmp_path, f"{CONFIG_FLAG}{file}", **VERSION_2) as head:
        command = Command(
            *("python", "-W", "ignore", "-c", ASK.format(address=head.address)),
            environment={**head.environment, "PYTHONPATH": str(Path(__file__).parents[2])},
            directory=tmp_path,
        )
        with command:
            assert command.wait(timeout_s=60) == 0, command.output
    assert "type l4 L4 4 3" in command.output
    assert "possible 4" in command.output
