"""The space that a cluster suggests, and the configuration that nobody tuned.

Both follow from what the nodes have: every replica of a candidate fits a node, and all of them
fit the cluster. The module does not know the model that is to be served, nor any price.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from falcon_ray.errors import InputError
from falcon_ray.space.catalogue import Catalogue, Gpu
from falcon_ray.space.configuration import Configuration, ConfigurationSpace
from falcon_ray.space.dimension import Dimension, Value

Shapes: TypeAlias = Counter[tuple[int, int]]
"""How many nodes there are of each (cpus, n_gpus)."""

_GPU_SHARES = (0.25, 0.5, 1.0)
_BATCH_WAITS_MS = (0, 5, 20)
_LARGEST_BATCH_CPU = 32
_LARGEST_BATCH_GPU = 128
# Memory limits nearer to each other than this are one choice, not two.
_MEMORY_STEP = 1.25
_WAITING_NEEDS_A_BATCH = "batch_size > 1 or batch_wait_ms == 0"


@dataclass(frozen=True, slots=True)
class NodeShape:
    """What one node of a cluster offers, as Ray counts it.

    Attributes:
        cpus: Logical CPUs; 0 for a node that takes no work.
        ram_gib: Main memory.
        gpu_type: Ray's accelerator type, or the catalogue's name; None without GPUs.
        n_gpus: How many GPUs of that type.

    Raises:
        InputError: A number is negative, or GPUs come without their type or the reverse.
    """

    cpus: int
    ram_gib: float
    gpu_type: str | None
    n_gpus: int

    def __post_init__(self) -> None:
        if self.cpus < 0 or self.n_gpus < 0 or not self.ram_gib >= 0:
            raise InputError(f"a node offers no negative amounts, got {self}")
        if (self.gpu_type is None) != (self.n_gpus == 0):
            raise InputError(
                f"a node has GPUs exactly when it has a gpu_type, got {self}; start Ray there "
                "with --num-gpus and an accelerator_type resource, or without GPUs"
            )


def default_space(nodes: Sequence[NodeShape]) -> ConfigurationSpace:
    """What may be searched on a cluster of these nodes.

    With any GPU in the cluster every replica runs on one, and nodes without are left aside.
    The shares of a GPU come with proportional memory limits, so that replicas which Ray packs
    onto one GPU by their share also fit its memory.

    Raises:
        InputError: No node takes work, or a GPU type is not in the catalogue.
    """
    working = [node for node in nodes if node.cpus > 0]
    if not working:
        raise InputError(f"no node of the cluster offers CPUs: {list(nodes)}; add a worker node")
    on_gpu = [node for node in working if node.n_gpus > 0]
    return _gpu_space(on_gpu) if on_gpu else _cpu_space(working)


def default_baseline(space: ConfigurationSpace) -> Configuration:
    """What plain Ray Serve gives without tuning, to compare a recommendation with.

    One replica with one core and a whole GPU, float32, no batching and no waiting; of a
    dimension that this does not settle, the first value. Where the space has no such member,
    the one nearest to it by `ConfigurationSpace.encode`.
    """
    untuned = Configuration({each.name: _untuned_value(each) for each in space.dimensions})
    distances = space.encode(space.candidates) - space.encode([untuned])
    return space.candidates[int(np.argmin((distances**2).sum(axis=1)))]


def _untuned_value(dimension: Dimension) -> Value:
    if dimension.name in {"gpu_share", "gpu_memory_gib"}:
        return dimension.values[-1]
    if dimension.name == "dtype" and "float32" in dimension.values:
        return "float32"
    return dimension.values[0]


def _cpu_space(nodes: Sequence[NodeShape]) -> ConfigurationSpace:
    largest = max(node.cpus for node in nodes)
    counts = Counter(node.cpus for node in nodes)
    if len(nodes) == 1:
        placement = f"cpu_cores * replicas <= {largest}"
    else:
        terms = [_times(n, f"{cpus} // cpu_cores") for cpus, n in sorted(counts.items())]
        placement = f"replicas <= {' + '.join(terms)}"
    return ConfigurationSpace.of(
        {
            "cpu_cores": sorted({*_powers_of_two(largest), largest}),
            "batch_size": _powers_of_two(_LARGEST_BATCH_CPU),
            "batch_wait_ms": _BATCH_WAITS_MS,
            "dtype": ("float32", "bfloat16"),
            "replicas": _powers_of_two(sum(node.cpus for node in nodes)),
        },
        (placement, _WAITING_NEEDS_A_BATCH),
    )


def _gpu_space(nodes: Sequence[NodeShape]) -> ConfigurationSpace:
    catalogue = Catalogue.packaged()
    shapes: dict[str, Shapes] = {}
    for node in nodes:
        assert node.gpu_type is not None  # a NodeShape with GPUs names them
        shapes.setdefault(node.gpu_type, Counter())[node.cpus, node.n_gpus] += 1
    gpus = {name: catalogue.gpu(name) for name in shapes}
    dtypes = _dtypes(tuple(gpus.values()))
    # More cores than a GPU's part of its node would leave the node's other GPUs without any.
    most_cores = max(max(1, node.cpus // node.n_gpus) for node in nodes)
    constraints: list[str] = []
    for name, gpu in gpus.items():
        conditions = [
            f"gpu_memory_gib <= {gpu.memory_gib:g} * gpu_share",
            *_placement(shapes[name]),
            *(f"dtype != '{each}'" for each in dtypes if not _gains_from(gpu, each)),
        ]
        only = "" if len(gpus) == 1 else f"gpu_type != '{name}' or "
        constraints += [only + condition for condition in conditions]
    return ConfigurationSpace.of(
        {
            "gpu_type": tuple(gpus),
            "gpu_share": _GPU_SHARES,
            "gpu_memory_gib": _memory_limits_gib(tuple(gpus.values())),
            "cpu_cores": sorted({*_powers_of_two(most_cores), most_cores}),
            "batch_size": _powers_of_two(_LARGEST_BATCH_GPU),
            "batch_wait_ms": _BATCH_WAITS_MS,
            "dtype": dtypes,
            "replicas": _powers_of_two(max(_most_replicas(each) for each in shapes.values())),
        },
        (*constraints, _WAITING_NEEDS_A_BATCH),
    )


def _placement(shapes: Shapes) -> list[str]:
    """Conditions under which all replicas find a place on nodes with one type of GPU.

    A node holds as many as its GPUs and its cores allow, whichever are fewer. Where all nodes
    are alike that is two conditions, which read better than one.
    """
    if len(shapes) == 1:
        ((cpus, n_gpus), n_nodes) = next(iter(shapes.items()))
        by_cores = (
            f"cpu_cores * replicas <= {cpus}"
            if n_nodes == 1
            else f"replicas <= {_times(n_nodes, f'{cpus} // cpu_cores')}"
        )
        return [f"gpu_share * replicas <= {n_nodes * n_gpus}", by_cores]
    terms: list[str] = []
    for (cpus, n_gpus), n_nodes in sorted(shapes.items()):
        by_gpus, by_cores = f"{n_gpus} // gpu_share", f"{cpus} // cpu_cores"
        fewer = f"{by_gpus} if {by_gpus} < {by_cores} else {by_cores}"
        terms.append(_times(n_nodes, fewer))
    return [f"replicas <= {' + '.join(terms)}"]


def _most_replicas(shapes: Shapes) -> int:
    """How many of the smallest replicas the nodes hold: one core, the smallest GPU share."""
    return sum(
        n_nodes * min(cpus, int(n_gpus / _GPU_SHARES[0]))
        for (cpus, n_gpus), n_nodes in shapes.items()
    )


def _memory_limits_gib(gpus: Sequence[Gpu]) -> list[float]:
    """What each share of each GPU offers, in half GiB, without what nearly repeats a smaller."""
    offered = {math.floor(2 * gpu.memory_gib * share) / 2 for gpu in gpus for share in _GPU_SHARES}
    limits: list[float] = []
    for limit in sorted(offered):
        if not limits or limit > _MEMORY_STEP * limits[-1]:
            limits.append(limit)
    return limits


def _dtypes(gpus: Sequence[Gpu]) -> list[str]:
    """float32, bfloat16 where any GPU has it, and float16 for those that have only that."""
    dtypes = ["float32"]
    if any(_gains_from(gpu, "bfloat16") for gpu in gpus):
        dtypes.append("bfloat16")
    if any(_gains_from(gpu, "float16") and not _gains_from(gpu, "bfloat16") for gpu in gpus):
        dtypes.append("float16")
    return dtypes


def _gains_from(gpu: Gpu, dtype: str) -> bool:
    rates = {"float32": gpu.fp32_tflops, "bfloat16": gpu.bf16_tflops, "float16": gpu.fp16_tflops}
    return rates[dtype] is not None


def _times(n: int, term: str) -> str:
    return f"({term})" if n == 1 else f"{n} * ({term})"


def _powers_of_two(limit: int) -> list[int]:
    """1, 2, 4, ... up to a limit of at least 1."""
    return [2**i for i in range(limit.bit_length())]
