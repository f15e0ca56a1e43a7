"""A share of a GPU's compute units and of its memory for this process, checked once it is set.

A limit counts as enforced only where reading it back shows it. The module knows CUDA by the few
functions in `Cuda`; it knows neither Ray nor models.
"""

import errno
import logging
import math
import os
import stat
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

logger = logging.getLogger(__name__)

MPS_PERCENTAGE = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"
MPS_DIRECTORY = "CUDA_MPS_PIPE_DIRECTORY"
MPS_DEFAULT_DIRECTORY = "/tmp/nvidia-mps"  # noqa: S108 - NVIDIA's default
GIB = 2.0**30
FRACTION_TOLERANCE = 1e-6


class ComputeEnforcement(StrEnum):
    """How a process is kept to its share of the compute units."""

    MPS = "mps"
    GREEN_CONTEXT = "green_context"
    NONE = "none"


class MemoryEnforcement(StrEnum):
    """How a process is kept to its share of the GPU's memory."""

    TORCH = "torch"
    """Torch's allocator fails beyond it; what others allocate in the process is not counted."""
    NONE = "none"


class Cuda(Protocol):
    """What is asked of CUDA, for the first GPU that this process sees."""

    def initialised(self) -> bool:
        """Whether this process uses CUDA already; MPS takes its share at that moment."""
        ...

    def memory_bytes(self) -> int:
        """Memory of the GPU."""
        ...

    def set_memory_fraction(self, fraction: float) -> None:
        """Let torch allocate this share of the GPU's memory at most."""
        ...

    def memory_fraction(self) -> float | None:
        """The share that torch may allocate; None where torch does not say."""
        ...

    def capability(self) -> tuple[int, int]:
        """Compute capability, major and minor."""
        ...

    def visible_units(self) -> int:
        """Streaming multiprocessors that CUDA shows; under MPS those of this process's share."""
        ...

    def current_units(self) -> int | None:
        """Streaming multiprocessors of this thread's current context; None where unknown."""
        ...

    def physical_units(self) -> int | None:
        """Streaming multiprocessors that the GPU has, whoever may use them; None where unknown."""
        ...

    def enter_green_context(self, n_units: int) -> None:
        """Run what this thread starts from now on on so many streaming multiprocessors.

        Raises:
            RuntimeError: Torch, the driver or the GPU cannot.
        """
        ...

    def leave_green_context(self) -> None:
        """Return this thread to what was before."""
        ...


@dataclass(frozen=True, slots=True)
class GpuLimits:
    """What a process was limited to, and how that can be seen.

    Attributes:
        compute: How the share of the units was enforced when it was set.
        memory: How the share of the memory was enforced when it was set.
        warnings: Why a limit that was asked for is not enforced.
        most_units: Streaming multiprocessors that the share allows; None where none is asked for.
        fraction: Of the memory; None where no limit is asked for.
    """

    compute: ComputeEnforcement = ComputeEnforcement.NONE
    memory: MemoryEnforcement = MemoryEnforcement.NONE
    warnings: tuple[str, ...] = ()
    most_units: int | None = None
    fraction: float | None = None

    def compute_now(self, cuda: Cuda) -> ComputeEnforcement:
        """Likewise, read back now; to be asked in the thread that computes."""
        if self.most_units is None or self.compute is ComputeEnforcement.NONE:
            return ComputeEnforcement.NONE
        by_mps = self.compute is ComputeEnforcement.MPS
        units = cuda.visible_units() if by_mps else cuda.current_units()
        held = units is not None and units <= self.most_units
        return self.compute if held else ComputeEnforcement.NONE

    def memory_now(self, cuda: Cuda) -> MemoryEnforcement:
        """Likewise, read back now."""
        if self.memory is MemoryEnforcement.NONE or not _is_set(cuda, self.fraction):
            return MemoryEnforcement.NONE
        return self.memory


def limit_gpu(
    cuda: Cuda,
    *,
    share: float,
    memory_gib: float | None,
    mps_runs: Callable[[], bool],
    environment: MutableMapping[str, str] = os.environ,
) -> GpuLimits:
    """Limit this process, and what this thread runs on the GPU.

    Call it before anything else of the process uses CUDA, in the thread that computes.

    Args:
        share: Of the compute units, in (0, 1].
        memory_gib: Largest memory; None for all of it.
        mps_runs: Whether CUDA's multi-process service serves this user.
        environment: Of this process.
    """
    compute, most_units, warnings = _limit_compute(cuda, share, mps_runs, environment)
    fraction = None
    memory = MemoryEnforcement.NONE
    if memory_gib is not None:
        fraction = min(1.0, memory_gib * GIB / cuda.memory_bytes())
        cuda.set_memory_fraction(fraction)
        if _is_set(cuda, fraction):
            memory = MemoryEnforcement.TORCH
        else:
            warnings = (*warnings, "this torch does not confirm its memory limit; upgrade torch")
    for warning in warnings:
        logger.warning("%s", warning)
    return GpuLimits(compute, memory, warnings, most_units, fraction)


def _limit_compute(
    cuda: Cuda,
    share: float,
    mps_runs: Callable[[], bool],
    environment: MutableMapping[str, str],
) -> tuple[ComputeEnforcement, int | None, tuple[str, ...]]:
    if share >= 1:
        return ComputeEnforcement.NONE, None, ()
    warnings: list[str] = []
    if mps_runs():
        if cuda.initialised():
            warnings.append(
                "MPS takes a share only before CUDA is in use; import nothing that uses it first"
            )
        else:
            environment[MPS_PERCENTAGE] = f"{max(1, math.floor(100 * share + 1e-9))}"
            physical = cuda.physical_units()
            if physical is None:
                return (
                    ComputeEnforcement.NONE,
                    None,
                    ("the GPU's own number of units is unknown; install falcon-ray[gpu]",),
                )
            most, visible = units_of_share(share, physical), cuda.visible_units()
            if visible <= most:
                return ComputeEnforcement.MPS, most, ()
            warnings.append(f"MPS leaves {visible} of {physical} units, the share allows {most}")
    enforced, most, warning = _enter_green_context(cuda, share)
    if enforced is ComputeEnforcement.GREEN_CONTEXT:
        return enforced, most, ()
    return enforced, most, (*warnings, warning)


def _enter_green_context(cuda: Cuda, share: float) -> tuple[ComputeEnforcement, int | None, str]:
    total = cuda.visible_units()
    most = units_of_share(share, total)
    n = whole_groups(most, cuda.capability())
    if n == 0:
        return ComputeEnforcement.NONE, most, f"this GPU cannot give as few as {most} units"
    try:
        cuda.enter_green_context(n)
    except RuntimeError as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return ComputeEnforcement.NONE, most, f"a compute share needs MPS or CUDA 12.8: {reason}"
    given = cuda.current_units()
    if given is not None and given <= most:
        return ComputeEnforcement.GREEN_CONTEXT, most, ""
    cuda.leave_green_context()
    seen = "an unknown number of" if given is None else str(given)
    warning = f"a green context gives {seen} units, the share allows {most}"
    return ComputeEnforcement.NONE, most, warning


def units_of_share(share: float, total: int) -> int:
    """Streaming multiprocessors that a share of so many may take, rounded up."""
    return math.ceil(share * total - 1e-9)


def whole_groups(most: int, capability: tuple[int, int]) -> int:
    """Units that hardware can set apart without exceeding `most`; 0 where it cannot so few.

    CUDA Driver API, Green Contexts: at least 8 in steps of 8 from compute capability 9.0, at
    least 4 in steps of 2 from 8.0, at least 2 in steps of 2 from 7.0, else any number.
    """
    least, step = {9: (8, 8), 8: (4, 2), 7: (2, 2)}.get(min(capability[0], 9), (1, 1))
    n = most // step * step
    return n if n >= least else 0


def mps_runs(environment: Mapping[str, str]) -> bool:
    """Whether the control daemon of CUDA's multi-process service listens to this user."""
    control = Path(environment.get(MPS_DIRECTORY) or MPS_DEFAULT_DIRECTORY) / "control"
    try:
        if not stat.S_ISFIFO(control.stat().st_mode):
            return False
        # A pipe without a reader cannot be opened for writing at once: its daemon is gone.
        os.close(os.open(control, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENXIO}:
            logger.warning("the MPS control pipe cannot be used: %s", error)
        return False
    return True


def _is_set(cuda: Cuda, fraction: float | None) -> bool:
    found = cuda.memory_fraction()
    return found is not None and fraction is not None and abs(found - fraction) < FRACTION_TOLERANCE
