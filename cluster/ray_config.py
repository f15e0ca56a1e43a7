"""The file that Ray's cluster launcher and its autoscaler read, with nothing left to defaults.

Ray's own defaults are a role with full access, SSH and the dashboard open to everybody, an old
machine image and a nightly build. The module knows that file. It calls neither AWS nor Ray.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster import budget_watcher, keep_results
from cluster.costs import also_usd_per_hour
from cluster.node_setup import (
    FILES,
    TOKEN,
    head_start_commands,
    setup_commands,
    user_data,
    worker_start_commands,
)
from cluster.package import Package
from cluster.planned import ClusterPlan, PlannedNode
from cluster.provisioned import Provisioned
from cluster.spec import Market
from cluster.tags import as_list, tags_of
from falcon_ray.errors import ClusterError

MEMORY_SHARE = 0.7
"""Of a node's memory, for processes; Ray keeps the rest for its object store."""
UPSCALING_SPEED = 4.0
"""At most about so many nodes of a type are launched at once, times those that run."""
GIB = 2**30
ACCELERATOR_LABEL = "ray.io/accelerator-type"
MARKET_LABEL = "ray.io/market-type"
INSTANCE_LABEL = "falcon-ray/instance-type"
GPU_TYPE_LABEL = "falcon-ray/gpu-type"
GPU_MEMORY_LABEL = "falcon-ray/gpu-memory-mib"

_TAGGED = ("instance", "volume", "network-interface")


def render(plan: ClusterPlan, provisioned: Provisioned, package: Package) -> dict[str, Any]:
    """The whole file, as plain values of YAML; it holds paths of secrets and no secret.

    The same arguments give the same file: what differs would relaunch the head.

    Raises:
        ClusterError: A type of nodes has no subnet in any of its zones.
    """
    spec = plan.spec
    dearest_first = sorted(plan.workers, key=lambda each: -each.price.usd_per_hour)
    setup = {
        each.name: setup_commands(
            package,
            expires_at=provisioned.expires_at,
            ttl_hours=spec.ttl_hours,
            has_gpu=each.instance.n_gpus > 0,
        )
        for each in (plan.head, *plan.workers)
    }
    types: dict[str, Any] = {
        plan.head.name: {
            # Trials have no place where the autoscaler and the drivers run.
            "resources": {"CPU": 0},
            "labels": _labels(plan.head),
            "node_config": _node_config(
                plan.head, plan, provisioned, profile_arn=provisioned.head_profile_arn
            ),
            "min_workers": 0,
            "max_workers": 0,
        }
    }
    for each in plan.workers:
        types[each.name] = {
            "resources": _resources(each),
            "labels": _labels(each),
            "node_config": _node_config(
                each, plan, provisioned, profile_arn=provisioned.worker_profile_arn
            ),
            "min_workers": 0,
            "max_workers": each.max_workers,
            "idle_timeout_s": spec.idle_timeout_minutes * 60,
            # Of types that fit a demand equally well, the cheapest comes.
            "priority": dearest_first.index(each),
            "worker_setup_commands": setup[each.name],
        }
    return {
        "cluster_name": provisioned.ray_name,
        "max_workers": spec.max_workers,
        "upscaling_speed": UPSCALING_SPEED,
        "idle_timeout_minutes": spec.idle_timeout_minutes,
        "provider": {
            "type": "aws",
            "region": provisioned.region,
            # Else nodes are stopped, and their disks are paid for ever after.
            "cache_stopped_nodes": False,
            "use_internal_ips": False,
        },
        "auth": {
            "ssh_user": plan.image.ssh_user,
            "ssh_private_key": str(provisioned.private_key),
        },
        "docker": {},
        "head_node_type": plan.head.name,
        "available_node_types": types,
        "file_mounts": file_mounts(provisioned, package),
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        "initialization_commands": [],
        # Empty, for Ray puts these before those of the workers once on each of two machines.
        "setup_commands": [],
        "head_setup_commands": setup[plan.head.name],
        # Every type has its own.
        "worker_setup_commands": [],
        "head_start_ray_commands": head_start_commands(_watcher_arguments(plan, provisioned)),
        "worker_start_ray_commands": worker_start_commands(),
    }


def file_mounts(provisioned: Provisioned, package: Package) -> dict[str, str]:
    """What every node gets, by its path there."""
    ours = (package.wheel, package.constraints, package.installer, *_SCRIPTS)
    return {TOKEN: str(provisioned.token_file)} | {
        f"{FILES}/{each.name}": str(each) for each in ours
    }


_SCRIPTS = tuple(Path(str(each.__file__)) for each in (budget_watcher, keep_results))


def _watcher_arguments(plan: ClusterPlan, provisioned: Provisioned) -> Sequence[str]:
    # Of spot the price on demand, which is the most that anybody pays for it.
    rates = {
        f"{each.instance.instance_type}/{each.market.value}": (
            each.most_usd_per_hour or each.price.usd_per_hour
        )
        for each in (plan.head, *plan.workers)
    }
    arguments = [
        *("--cluster-id", provisioned.cluster_id),
        *("--region", provisioned.region),
        *("--bucket", provisioned.bucket),
        *("--also-usd-per-hour", f"{also_usd_per_hour(_disk_gib(plan)):.6g}"),
    ]
    for kind, usd in sorted(rates.items()):
        arguments += ["--usd-per-hour", f"{kind}={usd:.6g}"]
    if plan.spec.max_cost_usd is not None:
        arguments += ["--max-cost-usd", f"{plan.spec.max_cost_usd:.6g}"]
    return arguments


def _resources(node: PlannedNode) -> Mapping[str, int]:
    """What the autoscaler reckons with, and what the node then says that it has."""
    instance = node.instance
    resources = {"CPU": instance.vcpus, "memory": int(instance.ram_gib * GIB * MEMORY_SHARE)}
    if instance.n_gpus:
        resources |= {"GPU": instance.n_gpus, f"accelerator_type:{instance.accelerator_type}": 1}
    return resources


def _labels(node: PlannedNode) -> Mapping[str, str]:
    instance = node.instance
    labels = {INSTANCE_LABEL: instance.instance_type, MARKET_LABEL: node.market.value}
    if instance.n_gpus:
        labels |= {
            ACCELERATOR_LABEL: str(instance.accelerator_type),
            GPU_TYPE_LABEL: str(instance.gpu_type),
            GPU_MEMORY_LABEL: str(instance.gpu_memory_mib),
        }
    return labels


def _disk_gib(plan: ClusterPlan) -> int:
    return max(plan.spec.disk_gib, plan.image.min_disk_gib)


def _node_config(
    node: PlannedNode, plan: ClusterPlan, provisioned: Provisioned, *, profile_arn: str
) -> Mapping[str, Any]:
    """The arguments of EC2's RunInstances."""
    tags = as_list(
        tags_of(
            name=provisioned.name,
            cluster_id=provisioned.cluster_id,
            expires_at=provisioned.expires_at,
        )
    )
    is_spot = node.market is Market.SPOT
    config: dict[str, Any] = {
        "InstanceType": node.instance.instance_type,
        "ImageId": plan.image.ami_id,
        "KeyName": provisioned.key_name,
        "SubnetIds": _subnets(node, provisioned),
        "SecurityGroupIds": [provisioned.security_group_id],
        "IamInstanceProfile": {"Arn": profile_arn},
        "BlockDeviceMappings": [
            {
                "DeviceName": plan.image.root_device,
                "Ebs": {
                    "VolumeSize": _disk_gib(plan),
                    "VolumeType": "gp3",
                    "Encrypted": True,
                    "DeleteOnTermination": True,
                },
            }
        ],
        "MetadataOptions": {
            "HttpEndpoint": "enabled",
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": 1,
            "InstanceMetadataTags": "disabled",
        },
        "InstanceInitiatedShutdownBehavior": "terminate",
        "UserData": user_data(expires_at=provisioned.expires_at, ttl_hours=plan.spec.ttl_hours),
        "TagSpecifications": [
            {"ResourceType": each, "Tags": tags}
            for each in (*_TAGGED, *(("spot-instances-request",) if is_spot else ()))
        ],
    }
    if is_spot:
        config["InstanceMarketOptions"] = {
            "MarketType": "spot",
            "SpotOptions": {
                "SpotInstanceType": "one-time",
                "InstanceInterruptionBehavior": "terminate",
            },
        }
    return config


def _subnets(node: PlannedNode, provisioned: Provisioned) -> list[str]:
    """In the order of the zones, which is that in which they are tried."""
    found = [provisioned.subnet_ids[zone] for zone in node.zones if zone in provisioned.subnet_ids]
    if not found:
        raise ClusterError(
            f"no subnet for {node.name}: it is offered in {', '.join(node.zones)}, and the network "
            f"has {', '.join(provisioned.subnet_ids) or 'none'}; run `python -m cluster down` and "
            "`up` again"
        )
    return found
