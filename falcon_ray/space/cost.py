"""What a configuration costs: its replicas' shares of the instances that they run on.

A replica's price is the instance's price divided by how many such replicas fit one instance;
the scarcest of GPUs, GPU memory, CPUs and RAM decides. Prices come with the instances; this
module knows no price list and no performance.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Self

import numpy as np

from falcon_ray.errors import InputError
from falcon_ray.space.catalogue import Instance, did_you_mean
from falcon_ray.space.configuration import Configuration, FloatArray
from falcon_ray.space.dimension import Value

# Every dimension that the price of one replica hangs on.
_PRICED = (
    "gpu_type",
    "gpu_share",
    "gpu_memory_gib",
    "n_gpus",
    "tensor_parallel",
    "pipeline_parallel",
    "cpu_cores",
    "ram_gib",
)
_GPU_DIMENSIONS = frozenset(_PRICED[:6])


class Resource(Enum):
    """What an instance can run out of first."""

    GPU = "GPUs"
    GPU_MEMORY = "GPU memory"
    CPU = "CPU cores"
    RAM = "RAM"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The cheapest way to run a configuration.

    Attributes:
        usd_per_hour: All replicas together.
        instance_type: What they run on.
        replicas_per_instance: How many of them fit one.
        limited_by: What would have to grow for one more to fit; the first in the order of
            `Resource` where several are used up together.
    """

    usd_per_hour: float
    instance_type: str
    replicas_per_instance: int
    limited_by: Resource


@dataclass(frozen=True, slots=True)
class Pricing:
    """The instances that a search may pay for.

    Attributes:
        instances: At least one, each type once; of equally cheap ones the first is taken.

    Raises:
        InputError: There is no instance, or a type stands twice.
    """

    instances: tuple[Instance, ...]

    def __post_init__(self) -> None:
        names = [each.instance_type for each in self.instances]
        if not names:
            raise InputError("prices need at least one instance")
        if len(set(names)) != len(names):
            raise InputError(f"an instance type stands twice in the prices: {', '.join(names)}")

    def cost(self, configuration: Configuration) -> Cost | None:
        """The cheapest instance that holds a replica, and the price of all replicas on it.

        A configuration with `gpu_type` runs on instances with that GPU, in the catalogue's
        name or in Ray's; without it, but with another GPU dimension, on any GPU. `n_gpus`
        defaults to the product of `tensor_parallel` and `pipeline_parallel`, `cpu_cores` to
        1 (Ray's default for a replica). A configuration without any GPU dimension runs on
        instances without a GPU; where none of them holds a replica it runs on one with a GPU
        and pays for that as well, because nobody rents out the CPUs alone.

        Returns:
            None where no instance holds even one replica.
        """
        demand = _Demand.of(configuration)
        best: Cost | None = None
        for instance in self._eligible(demand):
            fitting, scarcest = _replicas_that_fit(instance, demand)
            if fitting == 0:
                continue
            usd_per_hour = configuration.count("replicas", 1) * instance.usd_per_hour / fitting
            if best is None or usd_per_hour < best.usd_per_hour:
                best = Cost(
                    usd_per_hour=usd_per_hour,
                    instance_type=instance.instance_type,
                    replicas_per_instance=fitting,
                    limited_by=scarcest,
                )
        return best

    def usd_per_hour(self, candidates: Sequence[Configuration]) -> FloatArray:
        """Price of every candidate, all replicas together, shape (n,), positive and finite.

        Raises:
            InputError: No instance holds a replica of some candidate, so it has no price.
        """
        by_demand: dict[tuple[Value | None, ...], float] = {}
        prices = np.empty(len(candidates))
        for i, candidate in enumerate(candidates):
            key = tuple(candidate.get(name) for name in _PRICED)
            replicas = candidate.count("replicas", 1)
            if key not in by_demand:
                cost = self.cost(candidate)
                if cost is None:
                    raise InputError(self._why_not(candidate))
                by_demand[key] = cost.usd_per_hour / replicas
            prices[i] = by_demand[key] * replicas
        return prices

    def scaled(self, instance_type: str, factor: float) -> "Pricing":
        """The same prices but for one instance type, which costs `factor` times as much.

        Raises:
            InputError: The type has no price here, or the factor is not positive.
        """
        names = [each.instance_type for each in self.instances]
        if instance_type not in names:
            raise InputError(
                f"{instance_type} has no price here{did_you_mean(instance_type, names)}; "
                f"priced are {', '.join(names)}"
            )
        if not (math.isfinite(factor) and factor > 0):
            raise InputError(f"a price's factor must be positive and finite, got {factor!r}")
        return Pricing(
            tuple(
                replace(
                    each,
                    usd_per_hour=each.usd_per_hour * factor,
                    price_source=f"{each.price_source}; times {factor:g}",
                )
                if each.instance_type == instance_type
                else each
                for each in self.instances
            )
        )

    def to_json(self) -> dict[str, Any]:
        """The prices as plain JSON values."""
        return {"instances": [each.to_json() for each in self.instances]}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Pricing":
        """Read what `to_json` wrote.

        Raises:
            InputError: It is no such record.
        """
        try:
            return cls(tuple(Instance.from_json(each) for each in record["instances"]))
        except (KeyError, TypeError) as error:
            raise InputError(f"this is no record of prices: {error}") from error

    def _eligible(self, demand: "_Demand") -> list[Instance]:
        if demand.gpu_type is not None:
            return [each for each in self.instances if each.has_gpu(demand.gpu_type)]
        if demand.n_gpus > 0:
            return [each for each in self.instances if each.n_gpus > 0]
        without_gpu = [each for each in self.instances if each.n_gpus == 0]
        if any(_replicas_that_fit(each, demand)[0] for each in without_gpu):
            return without_gpu
        return list(self.instances)

    def _why_not(self, configuration: Configuration) -> str:
        demand = _Demand.of(configuration)
        lacking = [
            f"{each.instance_type} has too little: {_replicas_that_fit(each, demand)[1].value}"
            for each in self._eligible(demand)
        ]
        gpu = "a GPU" if demand.gpu_type is None else f"the GPU {demand.gpu_type}"
        return (
            f"no priced instance holds one replica of {configuration} "
            f"({', '.join(lacking) or f'none has {gpu}'}); add an instance that does to the "
            "prices, or a constraint to the space"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Demand:
    """What one replica takes of an instance; 0 GPUs for one that runs on the CPU."""

    gpu_type: str | None
    n_gpus: int
    gpu_share: float
    gpu_memory_gib: float
    cpu_cores: float
    ram_gib: float

    @classmethod
    def of(cls, configuration: Configuration) -> Self:
        parallel = configuration.count("tensor_parallel", 1)
        parallel *= configuration.count("pipeline_parallel", 1)
        on_gpu = not _GPU_DIMENSIONS.isdisjoint(configuration)
        return cls(
            gpu_type=configuration.text("gpu_type", "") or None,
            n_gpus=configuration.count("n_gpus", parallel) if on_gpu else 0,
            gpu_share=configuration.number("gpu_share", 1.0),
            gpu_memory_gib=configuration.number("gpu_memory_gib", 0.0),
            cpu_cores=configuration.number("cpu_cores", 1.0),
            ram_gib=configuration.number("ram_gib", 0.0),
        )


def _replicas_that_fit(instance: Instance, demand: _Demand) -> tuple[int, Resource]:
    """How many replicas one instance holds, and what runs out first.

    A replica on several GPUs takes its share and an equal part of its memory on each; two
    replicas share a GPU only where both take a share of the same GPUs.
    """
    fitting: dict[Resource, int] = {}
    if demand.n_gpus > 0:
        groups = instance.n_gpus // demand.n_gpus
        fitting[Resource.GPU] = groups * _times(1.0, demand.gpu_share)
        group_gib = demand.n_gpus * instance.gpu_memory_mib / 1024
        if demand.gpu_memory_gib > 0:
            fitting[Resource.GPU_MEMORY] = groups * _times(group_gib, demand.gpu_memory_gib)
    fitting[Resource.CPU] = _times(instance.vcpus, demand.cpu_cores)
    if demand.ram_gib > 0:
        fitting[Resource.RAM] = _times(instance.ram_gib, demand.ram_gib)
    scarcest = min(fitting, key=lambda resource: fitting[resource])
    return fitting[scarcest], scarcest


def _times(available: float, needed: float) -> int:
    return math.floor(available / needed + 1e-9)  # 0.3 / 0.1 is 2.9999999999999996
