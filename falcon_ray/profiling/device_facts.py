"""What the machine at hand is: its name, its rates as measured, and the software on it.

Facts of a GPU come from the catalogue by its name; facts of a CPU are measured here, since no
catalogue knows what of it a virtual machine was given. The module knows no operators.
"""

import hashlib
import json
import os
import platform
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from falcon_ray.knowledge.device import Device, DeviceKind
from falcon_ray.space.catalogue import Catalogue

CPU_DTYPES = ("float32", "bfloat16")
"""Those whose rates are measured on a CPU."""

_CPUINFO = Path("/proc/cpuinfo")
_DRIVER = Path("/proc/driver/nvidia/version")
_KEY_LENGTH = 12
_MATRIX = 2048
_COPY_BYTES = 2**28
_REPEATS = 5
_LOOK_S = 0.25
_LOOKS = 8


@dataclass(frozen=True, slots=True)
class CpuIdentity:
    """Which CPU a machine has, as far as it says.

    Attributes:
        name: Its model, with the numbers behind a name that several generations share.
        cores: Physical ones that this process may use.
    """

    name: str
    cores: int

    @property
    def device(self) -> str:
        """The name of the device in profiles."""
        return f"{self.name}, {self.cores} core{'s' if self.cores != 1 else ''}"


@dataclass(frozen=True, slots=True)
class Environment:
    """What software and machine measurements are taken with.

    Attributes:
        facts: By name.
    """

    facts: Mapping[str, str]

    @property
    def text(self) -> str:
        """The facts as JSON with sorted keys."""
        return json.dumps(dict(self.facts), sort_keys=True)

    @property
    def key(self) -> str:
        """Short hash of the facts: equal where they all are."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:_KEY_LENGTH]


def cpu_identity() -> CpuIdentity:
    """The CPU of this machine."""
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    return CpuIdentity(
        cpu_model(_CPUINFO.read_text() if _CPUINFO.exists() else ""),
        min(cores, len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else cores,
    )


def busy_cores() -> float:
    """CPU cores that are busy while this process waits, at the quietest moment of two seconds.

    A Ray that has just been started is busy with itself for one.
    """
    looks = [psutil.cpu_percent(interval=_LOOK_S) for _ in range(_LOOKS)]
    return min(looks) / 100 * (psutil.cpu_count() or 1)


def cpu_model(cpuinfo: str) -> str:
    """The CPU's name, from the text of /proc/cpuinfo (other systems: what Python knows)."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    name = fields.get("model name") or platform.processor() or platform.machine()
    name = " ".join(re.sub(r"\((R|TM)\)|\bCPU\b", "", name).split())
    numbers = [fields[key] for key in ("cpu family", "model") if key in fields]
    # Virtual machines often hide which of many generations a "Xeon Processor" is.
    return f"{name} ({'-'.join(numbers)})" if numbers else name


def cpu_device(identity: CpuIdentity, *, clock: Callable[[], float] = time.perf_counter) -> Device:
    """Facts of this machine's CPU: the rate of a large matrix product, and of a large copy.

    It takes about a second, with all cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(identity.cores)
    try:
        with torch.inference_mode():
            peaks = {name: _matmul_flops_per_s(name, clock) for name in CPU_DTYPES}
            bandwidth = _copy_bytes_per_s(clock)
    finally:
        torch.set_num_threads(before)
    return Device(
        name=identity.device,
        kind=DeviceKind.CPU,
        peak_flops_per_s=peaks,
        bandwidth_bytes_per_s=bandwidth,
        memory_bytes=float(psutil.virtual_memory().total),
        units=identity.cores,
        source="measured: a product of 2048 x 2048 matrices, a copy of 256 MiB",
    )


def gpu_device(index: int = 0) -> Device:
    """The catalogue's facts of a GPU of this machine.

    Raises:
        InputError: The catalogue does not know it.
    """
    properties = torch.cuda.get_device_properties(index)
    name = gpu_name(properties.name)
    return Device.of_gpu(Catalogue.packaged().gpu(name, memory_gib=properties.total_memory / 2**30))


def gpu_name(cuda_name: str) -> str:
    """The catalogue's name in what CUDA calls a GPU: "NVIDIA A100-SXM4-40GB" holds A100.

    Returns:
        The longest name that stands in it as a word, else what CUDA says.
    """
    words = set(re.split(r"[^A-Za-z0-9]+", cuda_name))
    known = {gpu.accelerator_type for gpu in Catalogue.packaged().gpus}
    found = [name for name in known if set(name.split("-")) <= words]
    return max(found, key=len) if found else cuda_name


def cpu_environment(identity: CpuIdentity) -> Environment:
    """What measurements on this machine's CPU are taken with."""
    return Environment(
        {
            **_software(),
            "cpu": identity.name,
            "cores": str(identity.cores),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "onednn": _library(r"MKL-DNN v([\w.]+)"),
            "mkl": _library(r"Math Kernel Library Version ([\w.]+)"),
        }
    )


def gpu_environment(index: int = 0) -> Environment:
    """What measurements on a GPU of this machine are taken with."""
    properties = torch.cuda.get_device_properties(index)
    driver = re.search(r"Kernel Module\D*([\d.]+)", _DRIVER.read_text() if _DRIVER.exists() else "")
    return Environment(
        {
            **_software(),
            "gpu": properties.name,
            "units": str(properties.multi_processor_count),
            "memory_bytes": str(properties.total_memory),
            "cuda": str(torch.version.cuda),
            "cudnn": str(torch.backends.cudnn.version()),
            "driver": driver.group(1) if driver else "unknown",
            "clock_khz": str(getattr(properties, "clock_rate", "unknown")),
        }
    )


def _software() -> dict[str, str]:
    return {
        "torch": torch.__version__,
        "system": platform.system(),
        "kernel": platform.release(),
        "machine": platform.machine(),
    }


def _library(pattern: str) -> str:
    found = re.search(pattern, torch.__config__.show())
    return found.group(1) if found else "none"


def _matmul_flops_per_s(dtype: str, clock: Callable[[], float]) -> float:
    a = torch.rand(_MATRIX, _MATRIX).to(getattr(torch, dtype))
    result = a @ a
    return 2.0 * _MATRIX**3 / _least_s(lambda: torch.mm(a, a, out=result), clock)


def _copy_bytes_per_s(clock: Callable[[], float]) -> float:
    source = torch.ones(_COPY_BYTES // 4)
    target = torch.empty_like(source)
    target.copy_(source)
    return 2.0 * _COPY_BYTES / _least_s(lambda: target.copy_(source), clock)


def _least_s(call: Callable[[], object], clock: Callable[[], float]) -> float:
    """The fastest of a few: a peak is what a device can do when nothing else hinders it."""
    times_s: list[float] = []
    for _ in range(_REPEATS):
        start_s = clock()
        call()
        times_s.append(clock() - start_s)
    return max(min(times_s), 1e-9)
