from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from falcon_ray.errors import ClusterError
from falcon_ray.runtime.cluster_nodes import (
    GIB,
    UNLIMITED_NODES,
    check_gpu_types,
    config_path,
    ledger_nodes_of,
    node_shape,
    possible_nodes,
    types_of_config,
    types_of_groups,
)
from falcon_ray.runtime.ledger.contract import LedgerNode, NodeType
from falcon_ray.space.defaults import NodeShape

CPU = NodeShape(cpus=2, ram_gib=8.0, gpu_type=None, n_gpus=0)
T4 = NodeShape(cpus=4, ram_gib=16.0, gpu_type="T4", n_gpus=1)
L4 = NodeShape(cpus=8, ram_gib=32.0, gpu_type="L4", n_gpus=1)
T4_RESOURCES = {"CPU": 4.0, "GPU": 1.0, "memory": 16 * GIB, "accelerator_type:T4": 1.0}


def node(node_id: str, resources: dict[str, float], **values: bool) -> dict[str, Any]:
    return {"NodeID": node_id, "Alive": True, "Resources": resources, "Labels": {}} | values


def node_type(name: str, shape: NodeShape, max_nodes: int) -> NodeType:
    return NodeType(name=name, shape=shape, max_nodes=max_nodes)


def test_a_node_offers_what_its_resources_say() -> None:
    assert node_shape(T4_RESOURCES, {}) == T4


def test_a_gpus_type_is_known_by_the_nodes_label_where_no_resource_says_it() -> None:
    resources = {"CPU": 4.0, "GPU": 2.0}
    shape = node_shape(resources, {"ray.io/accelerator-type": "L4"})
    assert (shape.gpu_type, shape.n_gpus) == ("L4", 2)
    assert node_shape(resources, {}) == NodeShape(cpus=4, ram_gib=0, gpu_type=None, n_gpus=0)


def test_a_label_decides_between_types_that_resources_name() -> None:
    resources = {"GPU": 1.0, "accelerator_type:Misnamed": 1.0, "accelerator_type:L4": 1.0}
    assert node_shape(resources, {"ray.io/accelerator-type": "L4"}).gpu_type == "L4"
    assert node_shape(resources, {"ray.io/accelerator-type": "T4"}).gpu_type == "Misnamed"


def test_what_is_in_use_on_a_node_is_what_is_not_free() -> None:
    free = {"a": {"CPU": 1.5, "GPU": 0.25}, "b": {}}
    nodes = [node("a", T4_RESOURCES), node("b", {"CPU": 2.0}), node("c", {"CPU": 2.0})]
    a, b, c = ledger_nodes_of(nodes, free)
    assert a == LedgerNode(node_id="a", shape=T4, used_cpus=2.5, used_gpus=0.75)
    assert b.used_cpus == 2.0, "a resource that is used up is not in what Ray says is free"
    assert c.used_cpus == 0.0, "of a node that has just come Ray says nothing yet"


def test_dead_nodes_and_nodes_that_take_no_work_are_left_out() -> None:
    nodes = [
        node("dead", {"CPU": 2.0}, Alive=False),
        node("head", {"CPU": 0.0, "memory": 4 * GIB}),
        node("gpus-only", {"GPU": 1.0, "accelerator_type:T4": 1.0}),
    ]
    assert [each.node_id for each in ledger_nodes_of(nodes, {})] == ["gpus-only"]


def test_a_cluster_file_says_which_nodes_can_be_added() -> None:
    config = {
        "max_workers": 6,
        "head_node_type": "head",
        "available_node_types": {
            "head": {"resources": {"CPU": 0}, "max_workers": 0},
            "t4": {"resources": T4_RESOURCES, "max_workers": 4},
            "l4": {
                "resources": {"CPU": 8, "GPU": 1, "memory": 32 * GIB},
                "labels": {"ray.io/accelerator-type": "L4"},
                "max_workers": 10,
            },
            "off": {"resources": {"CPU": 2}, "max_workers": 0},
            "as many as in all": {"resources": {"CPU": 2, "memory": 8 * GIB}},
        },
    }
    assert types_of_config(config) == (
        node_type("t4", T4, 4),
        node_type("l4", L4, 6),
        node_type("as many as in all", CPU, 6),
    )


def test_the_heads_own_type_counts_the_head_as_well() -> None:
    config = {
        "head_node_type": "all",
        "available_node_types": {
            "all": {"resources": {"CPU": 2, "memory": 8 * GIB}, "max_workers": 3}
        },
    }
    assert types_of_config(config) == (node_type("all", CPU, 4),)
    assert possible_nodes([CPU], types_of_config(config)) == (CPU,) * 4


def test_without_a_cluster_file_nothing_can_be_added() -> None:
    assert types_of_config({}) == ()


def test_a_platform_tells_its_node_groups_and_minus_one_for_no_limit() -> None:
    groups = [
        SimpleNamespace(name="t4", resources=T4_RESOURCES, max_count=2),
        SimpleNamespace(name="cpu", resources={"CPU": 2, "memory": 8 * GIB}, max_count=-1),
        SimpleNamespace(name="off", resources={"CPU": 2}, max_count=0),
    ]
    assert types_of_groups(groups) == (
        node_type("t4", T4, 2),
        node_type("cpu", CPU, UNLIMITED_NODES),
    )


def test_nodes_that_are_there_count_against_what_can_be_added() -> None:
    types = [node_type("t4", T4, 3), node_type("l4", L4, 1)]
    assert possible_nodes([CPU, T4], types) == (CPU, T4, T4, T4, L4)


def test_a_node_counts_against_one_type_of_its_kind_only() -> None:
    types = [node_type("spot", T4, 1), node_type("on-demand", T4, 2)]
    assert possible_nodes([T4], types) == (T4,) * 3
    assert possible_nodes([T4] * 2, types) == (T4,) * 3
    assert possible_nodes([T4] * 5, types) == (T4,) * 5


def test_the_autoscalers_file_stands_in_the_command_line_of_its_own_session() -> None:
    command = ["python", "monitor.py", "--logs-dir=/ray/session_1/logs"]
    started = [*command, "--autoscaling-config=/home/me/cluster.yaml"]
    assert config_path(started, session="session_1") == Path("/home/me/cluster.yaml")
    assert config_path(started, session="session_2") is None
    assert config_path(command, session="session_1") is None


def test_an_unknown_gpu_names_the_nearest_known_one_and_where_to_add_a_row() -> None:
    a10h = NodeShape(cpus=4, ram_gib=16.0, gpu_type="A10H", n_gpus=1)
    with pytest.raises(ClusterError) as caught:
        check_gpu_types([T4, a10h])
    message = str(caught.value)
    assert "'A10H'" in message
    assert "did you mean A10G?" in message
    assert "falcon_ray/data/gpus.csv" in message
    assert "falcon_ray/data/instances.csv" in message
    assert "\n" not in message


def test_gpus_that_are_asked_for_and_nowhere_to_be_had_are_refused() -> None:
    with pytest.raises(ClusterError, match=r"no node with gpu_type H100: .* are T4, L4; leave it"):
        check_gpu_types([CPU, T4, L4], ["T4", "H100"])
    with pytest.raises(ClusterError, match="no node with gpu_type T4: the cluster has no GPU"):
        check_gpu_types([CPU], ["T4"])
    check_gpu_types([CPU, T4, L4], ["L4"])
