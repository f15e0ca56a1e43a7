"""What nodes the cluster has now, and which more its autoscaler can add.

Everything that Ray keeps private about nodes is asked for here and nowhere else. The module
knows what nodes offer. It does not know what anybody wants of them.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import ray
import yaml
from ray.exceptions import GetTimeoutError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from falcon_ray.errors import ClusterError
from falcon_ray.runtime.ledger.contract import LedgerNode, NodeType
from falcon_ray.space.catalogue import Catalogue, did_you_mean
from falcon_ray.space.defaults import NodeShape
from falcon_ray.space.dimension import Value

GIB = 2.0**30
ACCELERATOR_PREFIX = "accelerator_type:"
ACCELERATOR_LABEL = "ray.io/accelerator-type"
NODE_TYPE_LABEL = "ray.io/node-group"
HEAD_RESOURCE = "node:__internal_head__"
CONFIG_FLAG = "--autoscaling-config="
UNLIMITED_NODES = 16
"""How many nodes of a type are reckoned with where the autoscaler knows no limit."""
HEAD_TIMEOUT_S = 30.0

_log = logging.getLogger(__name__)


def ledger_nodes() -> tuple[LedgerNode, ...]:
    """Every live node that takes work, with what is in use there now."""
    from ray._private.state import available_resources_per_node  # noqa: PLC0415 - private

    free: Mapping[str, Mapping[str, float]] = available_resources_per_node()
    return ledger_nodes_of(ray.nodes(), free)


def ledger_nodes_of(
    nodes: Iterable[Mapping[str, Any]], free: Mapping[str, Mapping[str, float]]
) -> tuple[LedgerNode, ...]:
    """As `ledger_nodes`, of what Ray says.

    Args:
        nodes: As `ray.nodes` gives them.
        free: What is not in use, by resource, by node id. A node that is not in it has only just
            come or gone and counts as free; a resource that is not in it is used up.
    """
    found: list[LedgerNode] = []
    for node in nodes:
        if not node["Alive"]:
            continue
        total: Mapping[str, float] = node["Resources"]
        labels: Mapping[str, str] = node.get("Labels") or {}
        shape = node_shape(total, labels)
        if not takes_work(shape):
            continue
        here = free.get(node["NodeID"], total)
        found.append(
            LedgerNode(
                node_id=node["NodeID"],
                shape=shape,
                used_cpus=max(0.0, total.get("CPU", 0.0) - here.get("CPU", 0.0)),
                used_gpus=max(0.0, total.get("GPU", 0.0) - here.get("GPU", 0.0)),
                node_type=labels.get(NODE_TYPE_LABEL),
            )
        )
    return tuple(found)


def node_types() -> tuple[NodeType, ...]:
    """The types of nodes that the cluster's autoscaler can add; none without an autoscaler.

    Where the platform has told Ray, Ray is asked. Ray's own autoscaler tells nobody, and is asked
    for the file that it was started with, on the head. KubeRay's is out of reach.
    """
    from ray._private.state import state  # noqa: PLC0415 - private

    told = state.get_cluster_config()
    if told is not None and told.node_group_configs:
        return types_of_groups(told.node_group_configs)
    return types_of_config(_autoscaling_config())


def types_of_groups(groups: Iterable[Any]) -> tuple[NodeType, ...]:
    """The node types in what a platform has told Ray (`NodeGroupConfig` of its autoscaler)."""
    return _types(
        (group.name, dict(group.resources), {}, None if group.max_count < 0 else group.max_count)
        for group in groups
    )


def types_of_config(config: Mapping[str, Any]) -> tuple[NodeType, ...]:
    """The node types in a cluster's YAML file, as Ray's cluster launcher reads it.

    The head's own type can be added as often as the file allows workers of it, and once: that is
    the head.
    """
    head, limit = config.get("head_node_type"), config.get("max_workers")
    types: Mapping[str, Mapping[str, Any]] = config.get("available_node_types") or {}
    return _types(
        (
            name,
            each.get("resources") or {},
            each.get("labels") or {},
            _most(each.get("max_workers"), limit) + (name == head or len(types) == 1),
        )
        for name, each in types.items()
    )


def _most(of_type: int | None, of_all: int | None) -> int:
    limits = [each for each in (of_type, of_all) if each is not None]
    return min(limits, default=UNLIMITED_NODES)


def _types(
    described: Iterable[tuple[str, Mapping[str, float], Mapping[str, str], int | None]],
) -> tuple[NodeType, ...]:
    return tuple(
        NodeType(
            name=name,
            shape=shape,
            max_nodes=UNLIMITED_NODES if most is None else most,
        )
        for name, resources, labels, most in described
        if takes_work(shape := node_shape(resources, labels)) and most != 0
    )


def node_shape(resources: Mapping[str, float], labels: Mapping[str, str]) -> NodeShape:
    """What a node offers, by its resources and labels as Ray names them.

    Where resources name several types, as Ray adds one by its own table to those of a cluster's
    file, the label says which. GPUs of which neither says the type are not counted: no trial could
    ask for them.
    """
    types = [
        name.removeprefix(ACCELERATOR_PREFIX)
        for name in resources
        if name.startswith(ACCELERATOR_PREFIX)
    ]
    label = labels.get(ACCELERATOR_LABEL)
    gpu_type = label if not types or label in types else types[0]
    n_gpus = int(resources.get("GPU", 0)) if gpu_type else 0
    return NodeShape(
        cpus=int(resources.get("CPU", 0)),
        ram_gib=resources.get("memory", 0.0) / GIB,
        gpu_type=gpu_type if n_gpus else None,
        n_gpus=n_gpus,
    )


def takes_work(shape: NodeShape) -> bool:
    """Whether a replica could ever be there."""
    return shape.cpus > 0 or shape.n_gpus > 0


def possible_nodes(nodes: Sequence[NodeShape], types: Sequence[NodeType]) -> tuple[NodeShape, ...]:
    """The nodes that are there, and behind them all that could be added to them.

    A node that is there counts against the first type of its kind that has room for it.
    """
    left = [_kind(node) for node in nodes]
    found = list(nodes)
    for each in types:
        kind = _kind(each.shape)
        n_there = min(left.count(kind), each.max_nodes)
        for _ in range(n_there):
            left.remove(kind)
        found += [each.shape] * (each.max_nodes - n_there)
    return tuple(found)


def _kind(shape: NodeShape) -> tuple[int, str | None, int]:
    return shape.cpus, shape.gpu_type, shape.n_gpus


def check_gpu_types(nodes: Iterable[NodeShape], requested: Iterable[Value] = ()) -> None:
    """Refuse GPUs that nothing is known of, and those that are asked for and nowhere to be had.

    Args:
        nodes: All that are there, or could be.
        requested: Types that the user asks for; none for whatever there is.

    Raises:
        ClusterError: A type is not in the catalogue, or on no node.
    """
    offered = list(dict.fromkeys(node.gpu_type for node in nodes if node.gpu_type is not None))
    catalogue = Catalogue.packaged()
    known = [name for gpu in catalogue.gpus for name in (gpu.gpu_type, gpu.accelerator_type)]
    for name in offered:
        if name not in known:
            raise ClusterError(f"the cluster has GPUs of type {name!r}, {_unknown(name, known)}")
    wanted = [str(each) for each in requested]
    check_known_gpu_types(wanted)
    missing = [each for each in wanted if each not in offered]
    if missing:
        there = (
            f"the types there or to be added are {', '.join(offered)}"
            if offered
            else ("the cluster has no GPU, and none to be added")
        )
        raise ClusterError(
            f"no node with gpu_type {', '.join(missing)}{did_you_mean(missing[0], offered)}: "
            f"{there}; leave it out of search_space, or add such nodes to the cluster"
        )


def check_known_gpu_types(names: Iterable[str]) -> None:
    """Refuse types of GPUs that nothing is known of.

    Raises:
        ClusterError: The catalogue does not have one; the nearest is offered.
    """
    known = [
        name for gpu in Catalogue.packaged().gpus for name in (gpu.gpu_type, gpu.accelerator_type)
    ]
    for name in names:
        if name not in known:
            raise ClusterError(f"there is no GPU type {name!r}, {_unknown(name, known)}")


def _unknown(name: str, known: Sequence[str]) -> str:
    return (
        f"which is not in the catalogue{did_you_mean(name, known)}; add a row for it to "
        "falcon_ray/data/gpus.csv and one for each instance that has it to "
        "falcon_ray/data/instances.csv"
    )


def _autoscaling_config() -> Mapping[str, Any]:
    """The file that the autoscaler of this cluster was started with; empty without one."""
    session = ray.get_runtime_context().get_session_name()
    heads = [n["NodeID"] for n in ray.nodes() if n["Alive"] and HEAD_RESOURCE in n["Resources"]]
    if not heads or ray.get_runtime_context().get_node_id() in heads:
        return config_here(session)
    on_head = NodeAffinitySchedulingStrategy(heads[0], soft=False)
    asked = ray.remote(config_here).options(num_cpus=0, scheduling_strategy=on_head)
    try:
        return ray.get(asked.remote(session), timeout=HEAD_TIMEOUT_S)
    except GetTimeoutError as error:
        raise ClusterError(
            f"the head of the cluster did not say within {HEAD_TIMEOUT_S:g} s which nodes it can "
            "add; look at what its workers wait for (ray status)"
        ) from error


def config_here(session: str) -> Mapping[str, Any]:
    """The configuration of the autoscaler that runs on this machine for a session of Ray.

    Args:
        session: Its name, which stands in the command line of everything that belongs to it.
    """
    for process in psutil.process_iter(["cmdline"]):
        command: list[str] = process.info["cmdline"] or []
        if path := config_path(command, session=session):
            try:
                content = yaml.safe_load(path.read_text(encoding="utf-8"))
            except (OSError, yaml.YAMLError) as error:
                _log.warning("the autoscaler's %s cannot be read: %s", path, error)
                return {}
            return content if isinstance(content, dict) else {}
    return {}


def config_path(command: Sequence[str], *, session: str) -> Path | None:
    """The configuration file in the command line of a session's autoscaler, or None."""
    if not any(f"/{session}/" in f"{word}/" for word in command):
        return None
    paths = [word.removeprefix(CONFIG_FLAG) for word in command if word.startswith(CONFIG_FLAG)]
    return Path(paths[0]).expanduser() if paths else None
