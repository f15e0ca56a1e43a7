"""What processes take of GPUs, as NVIDIA's management library (NVML) sees it.

The library is imported where it is used; without it, or without a driver, no GPU is watched.
The module knows GPUs and processes, not Ray. Values that a GPU does not offer are None.
"""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")

PROC = Path("/proc")

_DEVICE_FILE = re.compile(r"/dev/nvidia(\d+)")
_CORES_PER_UNIT: Mapping[tuple[int, int], int] = {
    (7, 0): 64,
    (7, 5): 64,
    (8, 0): 64,
    (8, 6): 128,
    (8, 9): 128,
    (9, 0): 128,
    (10, 0): 128,
    (10, 3): 128,
    (12, 0): 128,
}
"""FP32 lanes of one multiprocessor; CUDA C++ Programming Guide, arithmetic instructions."""


class NvmlDevice(Protocol):
    """One GPU of this machine."""

    @property
    def uuid(self) -> str:
        """Its identity, "GPU-..."."""
        ...

    @property
    def number(self) -> int | None:
        """Of its device file, /dev/nvidia<number>."""
        ...

    def used_bytes(self) -> int | None:
        """Memory in use by whatever process."""
        ...

    def process_bytes(self) -> Mapping[int, int | None]:
        """Memory by process id; empty where the driver hides processes."""
        ...

    def utilization_pct(self) -> float | None:
        """Share of the last moments in which a kernel ran, in [0, 100]."""
        ...

    def power_w(self) -> float | None:
        """Power drawn now."""
        ...

    def n_units(self, capability: tuple[int, int]) -> int | None:
        """Streaming multiprocessors, whoever may use them."""
        ...

    def clocks(self) -> Mapping[str, str]:
        """Current and highest clocks by name, in MHz."""
        ...


class Nvml(Protocol):
    """NVML, open."""

    def devices(self) -> Sequence[NvmlDevice]:
        """All GPUs."""
        ...

    def driver(self) -> str:
        """Version of the driver."""
        ...

    def close(self) -> None:
        """End its use."""
        ...


@dataclass(frozen=True, slots=True)
class GpuUsage:
    """What the watched processes took so far.

    Attributes:
        n_gpus: GPUs that they use.
        memory_bytes: Largest memory of one process over all its GPUs. Where the driver hides
            processes, all that is in use on them.
        utilization_pct: Mean over samples and GPUs.
        power_w: Mean over samples, summed over GPUs.
    """

    n_gpus: int
    memory_bytes: int | None
    utilization_pct: float | None
    power_w: float | None


class GpuWatch:
    """Samples the GPUs that a few processes use.

    Args:
        nvml: Open.
        pids: The processes.
        open_gpus: Numbers of the device files that a process has open.
    """

    def __init__(
        self,
        nvml: Nvml,
        pids: Sequence[int],
        *,
        open_gpus: Callable[[int], frozenset[int]],
    ) -> None:
        self._devices = tuple(nvml.devices())
        self._pids = tuple(pids)
        self._open_gpus = open_gpus
        self._watched: set[str] = set()
        self._peak_bytes: int | None = None
        self._utilization: list[float] = []
        self._power: dict[str, list[float]] = {}

    def sample(self) -> None:
        """Look once."""
        listed = {device.uuid: device.process_bytes() for device in self._devices}
        used_now: set[str] = set()
        for pid in self._pids:
            gpus = [device for device in self._devices if pid in listed[device.uuid]]
            if not gpus:
                # The driver hides it, as in a container, or it does not compute there yet.
                open_numbers = self._open_gpus(pid)
                gpus = [device for device in self._devices if device.number in open_numbers]
            used_now.update(device.uuid for device in gpus)
            amounts = [_memory_of(pid, device, listed[device.uuid]) for device in gpus]
            known = [amount for amount in amounts if amount is not None]
            if known:
                self._peak_bytes = max(self._peak_bytes or 0, sum(known))
        self._watched |= used_now
        for device in self._devices:
            if device.uuid not in used_now:
                continue
            if (utilization := device.utilization_pct()) is not None:
                self._utilization.append(utilization)
            if (power := device.power_w()) is not None:
                self._power.setdefault(device.uuid, []).append(power)

    def usage(self) -> GpuUsage | None:
        """What was seen so far; None where the processes use no GPU."""
        if not self._watched:
            return None
        powers = [_mean(values) for values in self._power.values()]
        return GpuUsage(
            len(self._watched),
            self._peak_bytes,
            _mean(self._utilization) if self._utilization else None,
            sum(powers) if powers else None,
        )


def _memory_of(pid: int, device: NvmlDevice, listed: Mapping[int, int | None]) -> int | None:
    own = listed.get(pid)
    return device.used_bytes() if own is None else own


def open_gpus(pid: int, *, proc: Path = PROC) -> frozenset[int]:
    """Numbers of the NVIDIA device files that a process has open; none where it is not ours."""
    numbers: set[int] = set()
    with suppress(OSError):
        for file in (proc / str(pid) / "fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                if found := _DEVICE_FILE.fullmatch(str(file.readlink())):
                    numbers.add(int(found.group(1)))
    return frozenset(numbers)


def open_nvml() -> Nvml | None:
    """NVML, or None without the library or without a driver."""
    try:
        import pynvml  # noqa: PLC0415 - optional
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        logger.debug("no GPU is watched: %s", error)
        return None
    return _Pynvml(pynvml)


class _Pynvml:
    def __init__(self, library: Any) -> None:  # noqa: ANN401 - a module
        self._library = library

    def devices(self) -> Sequence[NvmlDevice]:
        count = self._asked("nvmlDeviceGetCount") or 0
        handles = [self._asked("nvmlDeviceGetHandleByIndex", index) for index in range(count)]
        return [_PynvmlDevice(self._library, each) for each in handles if each is not None]

    def driver(self) -> str:
        return str(self._asked("nvmlSystemGetDriverVersion") or "unknown")

    def close(self) -> None:
        self._asked("nvmlShutdown")

    def _asked(self, name: str, *arguments: object) -> Any:  # noqa: ANN401 - as the library
        return _ask(self._library, name, *arguments)


class _PynvmlDevice:
    def __init__(self, library: Any, handle: object) -> None:  # noqa: ANN401 - a module
        self._library = library
        self._handle = handle
        self.uuid: str = str(self._asked("nvmlDeviceGetUUID") or "")
        self.number: int | None = self._asked("nvmlDeviceGetMinorNumber")

    def used_bytes(self) -> int | None:
        memory = self._asked("nvmlDeviceGetMemoryInfo")
        return None if memory is None else int(memory.used)

    def process_bytes(self) -> Mapping[int, int | None]:
        # Under MPS the driver lists clients apart.
        lists = ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetMPSComputeRunningProcesses")
        return {
            process.pid: process.usedGpuMemory
            for name in lists
            for process in self._asked(name) or ()
        }

    def utilization_pct(self) -> float | None:
        rates = self._asked("nvmlDeviceGetUtilizationRates")
        return None if rates is None else float(rates.gpu)

    def power_w(self) -> float | None:
        milliwatts = self._asked("nvmlDeviceGetPowerUsage")
        return None if milliwatts is None else milliwatts / 1000

    def n_units(self, capability: tuple[int, int]) -> int | None:
        cores, per_unit = self._asked("nvmlDeviceGetNumGpuCores"), _CORES_PER_UNIT.get(capability)
        return None if cores is None or per_unit is None else cores // per_unit

    def clocks(self) -> Mapping[str, str]:
        kinds = {
            "sm": self._library.NVML_CLOCK_SM,
            "memory": self._library.NVML_CLOCK_MEM,
        }
        asked = {
            f"{name}_clock{suffix}_mhz": self._asked(function, kind)
            for name, kind in kinds.items()
            for suffix, function in (
                ("", "nvmlDeviceGetClockInfo"),
                ("_max", "nvmlDeviceGetMaxClockInfo"),
            )
        }
        return {name: str(value) for name, value in asked.items() if value is not None}

    def _asked(self, name: str, *arguments: object) -> Any:  # noqa: ANN401 - as the library
        return _ask(self._library, name, self._handle, *arguments)


def _ask(library: Any, name: str, *arguments: object) -> Any:  # noqa: ANN401 - as the library
    """What the library answers, None where it cannot."""
    try:
        return getattr(library, name)(*arguments)
    except library.NVMLError:
        return None


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
