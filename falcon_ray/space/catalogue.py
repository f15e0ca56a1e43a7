"""What GPUs can do and what instances cost: the rows of data/gpus.csv and data/instances.csv.

The catalogue knows facts, dated and sourced, and refuses rows that cannot be true. It does not
know what a configuration needs; `cost.py` brings the two together.
"""

import datetime as dt
import difflib
import importlib.resources
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import Enum
from types import MappingProxyType
from typing import Any

from falcon_ray.errors import InputError
from falcon_ray.space.table import Columns, number_or_none, read_table, text_or_none

# EC2 states what is built in, CUDA what a process sees; they differ by up to 11 % (T4).
_MEMORY_TOLERANCE = 0.15
_CPU_PRICE_REFERENCE = "m6i.xlarge"


class InstanceStatus(Enum):
    """Whether an instance type can still be rented."""

    ACTIVE = "active"
    """New instances can be launched."""
    RETIRED = "retired"
    """Kept for replays of old measurements only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """Facts about one type of GPU; rates are peaks of dense arithmetic.

    Attributes:
        gpu_type: Unique name: Ray's, with the memory size behind it where Ray's name covers
            several cards, as Ray itself writes it ("A100-40G").
        accelerator_type: The name that Ray finds by itself on a node.
        memory_gib: What a process sees of it, which is less than the nominal size.
        bandwidth_gb_per_s: Peak rate of the GPU's memory, in 10^9 bytes per second.
        fp32_tflops: Without tensor cores.
        fp16_tflops: On tensor cores where there are any; None where it gains nothing.
        bf16_tflops: None where the hardware has no such type.
        fp8_tflops: Likewise.
        sm_count: Streaming multiprocessors.
        compute_capability: CUDA's version of the hardware, e.g. 8.6.
        tdp_w: Power limit as shipped.
        source: Where the facts come from.
        date: When the row was written.

    Raises:
        InputError: A name is empty or a number is not positive.
    """

    gpu_type: str
    accelerator_type: str
    memory_gib: float
    bandwidth_gb_per_s: float
    fp32_tflops: float
    fp16_tflops: float | None
    bf16_tflops: float | None
    fp8_tflops: float | None
    sm_count: int
    compute_capability: float
    tdp_w: float
    source: str
    date: dt.date

    def __post_init__(self) -> None:
        for name in ("gpu_type", "accelerator_type", "source"):
            _check_text(name, getattr(self, name))
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, (int, float)):
                _check_positive(each.name, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A machine that is rented as a whole, and its price.

    Attributes:
        instance_type: Unique name.
        gpu_type: As in `Gpu.gpu_type`; None where there is no GPU.
        n_gpus: How many of them.
        gpu_memory_mib: Built-in memory of each.
        vcpus: Logical CPUs, which is what Ray counts.
        ram_gib: Main memory.
        usd_per_hour: On demand, the whole machine.
        region: Where that price holds.
        status: Whether it can still be rented.
        price_date: When the price was written down; None where nobody said.
        price_source: Who says so.
        accelerator_type: Ray's name of the GPU; `gpu_type` where left out.

    Raises:
        InputError: A number is out of range, or only some of the GPU's fields are given.
    """

    instance_type: str
    gpu_type: str | None
    n_gpus: int
    gpu_memory_mib: int
    vcpus: int
    ram_gib: float
    usd_per_hour: float
    region: str
    status: InstanceStatus
    price_date: dt.date | None
    price_source: str
    accelerator_type: str | None = None

    def __post_init__(self) -> None:
        for name in ("instance_type", "region", "price_source"):
            _check_text(name, getattr(self, name))
        for name in ("vcpus", "ram_gib", "usd_per_hour"):
            _check_positive(name, getattr(self, name))
        given = (self.gpu_type is not None, self.n_gpus > 0, self.gpu_memory_mib > 0)
        if min(self.n_gpus, self.gpu_memory_mib) < 0 or len(set(given)) > 1:
            raise InputError(
                "gpu_type, n_gpus and gpu_memory_mib must all describe GPUs or all be empty or "
                f"zero, got {self.gpu_type!r}, {self.n_gpus!r} and {self.gpu_memory_mib!r}"
            )
        if self.accelerator_type is None:
            object.__setattr__(self, "accelerator_type", self.gpu_type)

    def has_gpu(self, name: str) -> bool:
        """Whether its GPU is called `name`, in the catalogue or by Ray."""
        return name in (self.gpu_type, self.accelerator_type)

    def to_json(self) -> dict[str, Any]:
        """The instance as plain JSON values."""
        record = {each.name: getattr(self, each.name) for each in fields(self)}
        record["status"] = self.status.value
        record["price_date"] = None if self.price_date is None else self.price_date.isoformat()
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Instance":
        """Read what `to_json` wrote.

        Raises:
            InputError: A key is missing or unknown, or a value does not fit.
        """
        try:
            values = dict(record)
            values["status"] = InstanceStatus(values["status"])
            if values["price_date"] is not None:
                values["price_date"] = dt.date.fromisoformat(values["price_date"])
            return cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"this is no record of an instance: {error}") from error


@dataclass(frozen=True, slots=True)
class Catalogue:
    """GPU types and instance types, each name once, every instance's GPU among the GPU types.

    Raises:
        InputError: A name stands twice, or an instance contradicts the facts of its GPU.
    """

    gpus: tuple[Gpu, ...]
    instances: tuple[Instance, ...]

    def __post_init__(self) -> None:
        _check_unique("gpu_type", [gpu.gpu_type for gpu in self.gpus])
        _check_unique("instance_type", [each.instance_type for each in self.instances])
        for each in self.instances:
            if each.gpu_type is None:
                continue
            built_in_gib, gpu = each.gpu_memory_mib / 1024, self.gpu(each.gpu_type)
            if abs(built_in_gib / gpu.memory_gib - 1) > _MEMORY_TOLERANCE:
                raise InputError(
                    f"{each.instance_type} has {built_in_gib:g} GiB on each {gpu.gpu_type}, but "
                    f"gpus.csv says {gpu.memory_gib:g} GiB; correct one of the two rows"
                )

    @classmethod
    def packaged(cls) -> "Catalogue":
        """The catalogue that comes with falcon_ray, read anew at every call (about 1 ms).

        Raises:
            InputError: Its files are missing.
        """
        data = importlib.resources.files("falcon_ray") / "data"
        try:
            texts = [(data / f"{name}.csv").read_text("utf-8") for name in ("gpus", "instances")]
        except OSError as error:
            raise InputError(
                f"{error.filename} is missing, so nothing is known of GPUs and prices; install "
                "falcon_ray again"
            ) from error
        return cls.from_csv(gpus=texts[0], instances=texts[1])

    @classmethod
    def from_csv(cls, *, gpus: str, instances: str) -> "Catalogue":
        """The catalogue that two CSV texts hold, with the columns of the packaged files.

        Raises:
            InputError: A column or a value does not fit; the message names file and line.
        """
        facts = read_table(gpus, "data/gpus.csv", _GPU_COLUMNS, Gpu)
        offers = read_table(instances, "data/instances.csv", _INSTANCE_COLUMNS, Instance)
        ray_names = {gpu.gpu_type: gpu.accelerator_type for gpu in facts}
        return cls(
            facts,
            tuple(
                replace(each, accelerator_type=ray_names.get(each.gpu_type or ""))
                for each in offers
            ),
        )

    def gpu(self, name: str, *, memory_gib: float | None = None) -> Gpu:
        """Facts of a GPU by its name here, or by Ray's.

        Args:
            name: Such as "A100-40G" or "A100".
            memory_gib: Tells cards apart that share Ray's name: the nearest is meant. Without
                it the smallest is, so that nothing is promised that may not be there.

        Raises:
            InputError: There is no such GPU.
        """
        for gpu in self.gpus:
            if gpu.gpu_type == name:
                return gpu
        found = [gpu for gpu in self.gpus if gpu.accelerator_type == name]
        if not found:
            known = [each for gpu in self.gpus for each in (gpu.gpu_type, gpu.accelerator_type)]
            raise InputError(_unknown("GPU type", name, known, "gpus.csv"))
        wanted = 0.0 if memory_gib is None else memory_gib
        return min(found, key=lambda gpu: abs(gpu.memory_gib - wanted))

    def instance(self, instance_type: str) -> Instance:
        """The row of an instance type.

        Raises:
            InputError: There is no such row.
        """
        for each in self.instances:
            if each.instance_type == instance_type:
                return each
        known = [each.instance_type for each in self.instances]
        raise InputError(_unknown("instance type", instance_type, known, "instances.csv"))

    def instances_with(self, gpu_type: str) -> tuple[Instance, ...]:
        """The instances with this GPU, by its name here or by Ray's; may be empty.

        Raises:
            InputError: There is no such GPU.
        """
        found = tuple(each for each in self.instances if each.has_gpu(gpu_type))
        if not found:
            self.gpu(gpu_type)  # raises where nobody knows the name
        return found


_GPU_COLUMNS: Columns = MappingProxyType(
    {
        "gpu_type": str,
        "accelerator_type": str,
        "memory_gib": float,
        "bandwidth_gb_per_s": float,
        "fp32_tflops": float,
        "fp16_tflops": number_or_none,
        "bf16_tflops": number_or_none,
        "fp8_tflops": number_or_none,
        "sm_count": int,
        "compute_capability": float,
        "tdp_w": float,
        "source": str,
        "date": dt.date.fromisoformat,
    }
)
_INSTANCE_COLUMNS: Columns = MappingProxyType(
    {
        "instance_type": str,
        "gpu_type": text_or_none,
        "n_gpus": int,
        "gpu_memory_mib": int,
        "vcpus": int,
        "ram_gib": float,
        "usd_per_hour": float,
        "region": str,
        "status": InstanceStatus,
        "price_date": dt.date.fromisoformat,
        "price_source": str,
    }
)


def cpu_node(vcpus: int, ram_gib: float, usd_per_hour: float | None = None) -> Instance:
    """A machine without a GPU that is no instance type of the catalogue.

    Args:
        vcpus: Logical CPUs.
        ram_gib: Main memory.
        usd_per_hour: What an hour of it costs; left out, every vCPU costs what one of
            m6i.xlarge does, and `price_source` says that this is an assumption.

    Raises:
        InputError: A number is not positive.
    """
    reference = Catalogue.packaged().instance(_CPU_PRICE_REFERENCE)
    assumed = usd_per_hour is None
    return Instance(
        instance_type=f"cpu-node-{vcpus}-{ram_gib:g}gib",
        gpu_type=None,
        n_gpus=0,
        gpu_memory_mib=0,
        vcpus=vcpus,
        ram_gib=ram_gib,
        usd_per_hour=(
            reference.usd_per_hour / reference.vcpus * vcpus
            if usd_per_hour is None
            else usd_per_hour
        ),
        region=reference.region if assumed else "local",
        status=InstanceStatus.ACTIVE,
        price_date=reference.price_date if assumed else None,
        price_source=f"assumed: {_CPU_PRICE_REFERENCE} per vCPU" if assumed else "given",
    )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint such as " (did you mean A10G?)"; empty where no known name is near."""
    by_upper = {each.upper(): each for each in known}
    near = difflib.get_close_matches(name.upper(), list(by_upper), n=1)
    return f" (did you mean {by_upper[near[0]]}?)" if near else ""


def _unknown(what: str, name: str, known: Iterable[str], file: str) -> str:
    names = list(dict.fromkeys(known))
    return (
        f"no {what} {name!r} in the catalogue{did_you_mean(name, names)}; known are "
        f"{', '.join(names)}; add a row to data/{file} for another one"
    )


def _check_text(name: str, value: str) -> None:
    if not value:
        raise InputError(f"{name} must not be empty")


def _check_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{name} must be a positive finite number, got {value!r}")


def _check_unique(what: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{what} {name} stands twice in the catalogue; remove a row")
