"""The distinct devices of a cluster, and the Ray task that measures one of them.

A task takes all CPUs of its node, so that nothing else of Ray runs beside it. It does not know
where its rows are stored.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from falcon_ray.errors import ClusterError
from falcon_ray.knowledge.device import Device, DeviceKind
from falcon_ray.knowledge.operators.operator import Decomposition, Family, Operator
from falcon_ray.profiling import device_facts
from falcon_ray.profiling.device_profile import (
    Arguments,
    Block,
    Key,
    ModelToRun,
    Workload,
    measure,
    model_row_key,
    operator_row_key,
)
from falcon_ray.profiling.shape_design import DesignSize, design
from falcon_ray.profiling.timers import CpuTimer, GpuTimer, Setting, Timer
from falcon_ray.runtime.model_reference import ModelReference
from falcon_ray.runtime.profile_request import ProfileRequest
from falcon_ray.runtime.ray_session import ACCELERATOR_PREFIX
from falcon_ray.runtime.references import Reference
from falcon_ray.runtime.torch_model import build_model, example_inputs

CPU_BATCH_SIZES = (1, 2, 4, 8, 16, 32)
GPU_BATCH_SIZES = (*CPU_BATCH_SIZES, 64, 128)
BLURRED_RELATIVE_SD = 0.1
"""Of a median: above it, a measurement is worth repeating."""

_LARGEST_BATCH = {DeviceKind.CPU: 64, DeviceKind.GPU: 128}


@dataclass(frozen=True, slots=True)
class Site:
    """One node that stands for all that have an equal device.

    Attributes:
        node_id: Ray's.
        cpus: That a task takes there.
        cpu: Of the node.
        gpu_type: Ray's name of the GPU to measure; None for the CPU.
    """

    node_id: str
    cpus: float
    cpu: device_facts.CpuIdentity
    gpu_type: str | None = None

    @property
    def name(self) -> str:
        """The device's name, for people."""
        return self.gpu_type or self.cpu.device


@dataclass(frozen=True, slots=True)
class Start:
    """What a task says before its first block: which device it is.

    Attributes:
        device: With its facts.
        environment: That it is measured with.
        busy_cores: CPU cores of the node that others keep busy.
    """

    device: Device
    environment: device_facts.Environment
    busy_cores: float


@dataclass(frozen=True, slots=True)
class SitePlan:
    """What every site is to measure.

    Attributes:
        request: Of the user.
        models: To run as a whole, by name.
        families: Whose operators.
        decompositions: Of the models that shapes should be near to.
        operators: Rows that are known, of any device.
        model_rows: Likewise.
        devices: Facts that are known.
    """

    request: ProfileRequest
    models: tuple[tuple[str, Reference], ...]
    families: tuple[Family, ...]
    decompositions: Sequence[Decomposition]
    operators: Sequence[Mapping[str, Any]]
    model_rows: Sequence[Mapping[str, Any]]
    devices: Sequence[Device]

    def settings(self, site: Site) -> list[Setting]:
        """How a device is used in turn; none where too many threads are all that was asked for."""
        if site.gpu_type:
            return [Setting(share=share) for share in self.request.shares]
        return [Setting(threads=n) for n in self.request.threads_on(site.cpu.cores)]

    def known_device(self, name: str) -> Device | None:
        """Facts of a device; kept once measured, so that equal shapes are chosen again."""
        return next((each for each in self.devices if each.name == name), None)

    def done(self, start: Start) -> dict[Key, float]:
        """Latency in microseconds of what was measured on this device with this software.

        What a busy machine blurred is not among it: it is measured again, and merged.
        """
        here = (start.device.name, start.environment.key)
        found: dict[Key, float] = {}
        for rows, key in ((self.operators, operator_row_key), (self.model_rows, model_row_key)):
            for row in rows:
                is_sharp = row["mode"] == "eager" and row["relative_sd"] <= BLURRED_RELATIVE_SD
                if is_sharp and (row["device"], row["environment"]) == here:
                    found[key(row)] = row["latency_us"]
        return found

    def shapes(self, device: Device) -> tuple[Operator, ...]:
        """Of the operators to measure on a device."""
        n = self.request.shapes_per_family
        size = DesignSize(linear=2 * n, other=n, largest_batch=_LARGEST_BATCH[device.kind])
        return design(
            self.decompositions,
            device=device,
            seed=self.request.seed,
            size=size,
            families=self.families,
        )


def sites_of_cluster() -> list[Site]:
    """One site for every distinct CPU and GPU of the cluster.

    Raises:
        ClusterError: No node takes work.
    """
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    if not nodes:
        raise ClusterError("no live node of the cluster offers CPUs; start one, then try again")
    asked = [
        _identity.options(scheduling_strategy=on_node(node["NodeID"])).remote() for node in nodes
    ]
    distinct: dict[str, Site] = {}
    for node, cpu in zip(nodes, ray.get(asked), strict=True):
        resources: Mapping[str, float] = node["Resources"]
        found = [Site(node["NodeID"], resources["CPU"], cpu)]
        if resources.get("GPU", 0) >= 1:
            found += [
                Site(node["NodeID"], 1, cpu, name.removeprefix(ACCELERATOR_PREFIX))
                for name in resources
                if name.startswith(ACCELERATOR_PREFIX)
            ]
        for site in found:
            distinct.setdefault(site.name, site)
    return list(distinct.values())


def on_node(node_id: str) -> NodeAffinitySchedulingStrategy:
    """Have a task run on that node and no other."""
    return NodeAffinitySchedulingStrategy(node_id, soft=False)


@ray.remote(num_cpus=0, max_retries=0)
def _identity() -> device_facts.CpuIdentity:
    return device_facts.cpu_identity()


@ray.remote(max_retries=0)
def site_profile(site: Site, plan: SitePlan) -> Iterator[Start | Block]:
    """Measure one device; the first thing yielded says which it is."""
    request = plan.request
    busy_cores = device_facts.busy_cores()
    if site.gpu_type:
        start = Start(device_facts.gpu_device(), device_facts.gpu_environment(), busy_cores)
        timer: Timer = GpuTimer()
        sizes = GPU_BATCH_SIZES
    else:
        known = plan.known_device(site.cpu.device)
        environment = device_facts.cpu_environment(site.cpu)
        start = Start(known or device_facts.cpu_device(site.cpu), environment, busy_cores)
        timer = CpuTimer()
        sizes = CPU_BATCH_SIZES
    yield start
    workload = Workload(
        operators=plan.shapes(start.device),
        models=[_model_to_run(name, reference) for name, reference in plan.models],
        batch_sizes=sorted(request.batch_sizes or sizes),
        dtypes=request.dtypes,
        settings=plan.settings(site),
        done=plan.done(start),
        time_budget_s=request.time_budget_s,
    )
    yield from measure(
        workload, device=start.device, environment=start.environment.key, timer=timer
    )


def _model_to_run(name: str, reference: Reference) -> ModelToRun:
    model = ModelReference(reference)

    def inputs(batch_size: int) -> Arguments:
        made = example_inputs(model, batch_size)
        if made.names:
            return (), dict(zip(made.names, made.tensors, strict=True))
        return made.tensors, {}

    return ModelToRun(name, lambda: build_model(model), inputs)
