"""How long the threads that compute had to wait for a CPU because others used it.

Linux counts it for every thread. A team of threads that waits for one of its own is late without
any of them being interrupted, so that counting interruptions is not enough.
"""

from collections.abc import Callable
from pathlib import Path

import torch

from falcon_ray.profiling.benchmark import involuntary_waits_s

_TASKS = Path("/proc/self/task")
_LEAST_CPU_NS = 1_000_000
_PRODUCTS = 20
_MATRIX = 512


class RunQueueDelay:
    """Seconds that some threads of this process have waited for a CPU.

    Args:
        files: Of these threads, each as /proc/self/task/*/schedstat: nanoseconds on a CPU,
            nanoseconds of waiting for one, and a count.
    """

    def __init__(self, files: tuple[Path, ...]) -> None:
        self._files = files

    def __call__(self) -> float:
        """The sum over the threads so far."""
        return 1e-9 * sum(_numbers(each)[1] for each in self._files)


def waits_of_computing_threads() -> Callable[[], float]:
    """Waits of the threads that a product of matrices keeps busy as torch is set up now.

    Where the system does not tell, interruptions are counted instead.
    """
    before = _cpu_ns()
    matrix = torch.ones(_MATRIX, _MATRIX)
    for _ in range(_PRODUCTS):
        torch.mm(matrix, matrix)
    files = tuple(
        file for file, cpu_ns in _cpu_ns().items() if cpu_ns - before.get(file, 0) >= _LEAST_CPU_NS
    )
    return RunQueueDelay(files) if files else involuntary_waits_s


def _cpu_ns() -> dict[Path, int]:
    return {file: _numbers(file)[0] for file in _TASKS.glob("*/schedstat")}


def _numbers(file: Path) -> tuple[int, int]:
    """Nanoseconds on a CPU and waiting for one; zeros once the thread has ended."""
    try:
        running, waiting, _ = file.read_text().split()
    except (OSError, ValueError):
        return 0, 0
    return int(running), int(waiting)
