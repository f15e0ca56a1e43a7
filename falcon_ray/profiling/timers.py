"""How a device is used and timed: a CPU by its threads, a GPU by a share of its compute units.

A timer gives what calls take in each mode. It does not know operators, models or rows.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch

from falcon_ray.profiling.benchmark import (
    Call,
    Timing,
    TimingPlan,
    time_calls,
    undisturbed,
)
from falcon_ray.profiling.compute_share import compute_share
from falcon_ray.profiling.cuda_timing import CUDA_KEPT_BYTES, CUDA_TURNS_BYTES, time_on_gpu
from falcon_ray.profiling.operands import Operands
from falcon_ray.profiling.run_queue import waits_of_computing_threads


@dataclass(frozen=True, slots=True)
class Setting:
    """How a device is used for some of the measurements.

    Attributes:
        threads: Of a CPU; 0 on a GPU.
        share: Of a GPU's compute units; 1 on a CPU.
    """

    threads: int = 0
    share: float = 1.0

    def __str__(self) -> str:
        """The setting in words."""
        if self.threads:
            return f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.share:.0%} of the units"


class Timer(Protocol):
    """Times calls on a device."""

    device: torch.device

    def using(self, setting: Setting) -> AbstractContextManager[float]:
        """Use the device as the setting says; gives the share that this really is."""
        ...

    def time(self, calls: Sequence[Call], plan: TimingPlan) -> Mapping[str, Timing]:
        """Timings by mode."""
        ...

    def peak_memory_bytes(self, call: Call) -> float | None:
        """Most memory in use during one call, or None where that is not cheap to know."""
        ...

    def operands(self, dtype: torch.dtype) -> Operands:
        """Where operands of a dtype come from, with as many turns as the device's caches ask."""
        ...


class CpuTimer:
    """Times on this machine's CPU.

    With one thread, the time that this process spends on a CPU is what a quiet machine shows, and
    neighbours do not change it. With several, waiting for each other counts, so it is the wall's,
    and what was measured while one of them waited for a CPU is dropped.
    """

    device = torch.device("cpu")

    def __init__(self) -> None:
        self._clock: Callable[[], float] = time.perf_counter
        self._waited_s: Callable[[], float] = undisturbed

    def using(self, setting: Setting) -> AbstractContextManager[float]:
        """See `Timer.using`."""
        torch.set_num_threads(setting.threads)
        is_alone = setting.threads == 1
        self._clock = time.process_time if is_alone else time.perf_counter
        self._waited_s = undisturbed if is_alone else waits_of_computing_threads()
        return nullcontext(1.0)

    def time(self, calls: Sequence[Call], plan: TimingPlan) -> Mapping[str, Timing]:
        """See `Timer.time`."""
        timing = time_calls(calls, plan=plan, clock=self._clock, waited_s=self._waited_s)
        return {"eager": timing}

    def peak_memory_bytes(self, call: Call) -> float | None:
        """See `Timer.peak_memory_bytes`."""
        del call
        return None

    def operands(self, dtype: torch.dtype) -> Operands:
        """See `Timer.operands`."""
        return Operands(dtype, self.device)


class GpuTimer:
    """Times on an NVIDIA GPU of this machine."""

    def __init__(self, index: int = 0) -> None:
        self.device = torch.device("cuda", index)
        self._index = index

    def using(self, setting: Setting) -> AbstractContextManager[float]:
        """See `Timer.using`."""
        return compute_share(setting.share, index=self._index)

    def time(self, calls: Sequence[Call], plan: TimingPlan) -> Mapping[str, Timing]:
        """See `Timer.time`."""
        return time_on_gpu(calls, plan=plan)

    def peak_memory_bytes(self, call: Call) -> float | None:
        """See `Timer.peak_memory_bytes`."""
        torch.cuda.reset_peak_memory_stats(self.device)
        call()
        torch.cuda.synchronize(self.device)
        return float(torch.cuda.max_memory_allocated(self.device))

    def operands(self, dtype: torch.dtype) -> Operands:
        """See `Timer.operands`."""
        return Operands(
            dtype,
            self.device,
            turns_bytes=CUDA_TURNS_BYTES,
            kept_bytes=CUDA_KEPT_BYTES,
            pool_bytes=2 * CUDA_TURNS_BYTES,
        )
