"""What processes of this machine take: memory, GPUs, and what the kernel killed for memory.

Sampled by one thread, by psutil, NVML and the processes' control groups. The module does not
know Ray, nor what the processes are for.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from falcon_ray.runtime.cgroups import Cgroups, kills_since
from falcon_ray.runtime.monitors.nvml_monitor import GpuUsage, GpuWatch, Nvml, open_gpus

INTERVAL_S = 0.5


@dataclass(frozen=True, slots=True)
class NodeUsage:
    """What the watched processes of one machine took so far.

    Attributes:
        memory_bytes: Largest resident memory of one of them, 0 where none could be seen.
        gpu: Of GPUs; None where they use none, or none can be watched.
        out_of_memory_kills: Processes killed in their control groups since the watch began.
    """

    memory_bytes: int = 0
    gpu: GpuUsage | None = None
    out_of_memory_kills: int = 0


class LocalWatch:
    """Watches processes of this machine until it is stopped.

    Args:
        pids: The processes.
        nvml: Open, and closed here; None where there is no GPU to watch.
        cgroups: Of this machine.
        interval_s: Between two samples.
    """

    def __init__(
        self,
        pids: Sequence[int],
        *,
        nvml: Nvml | None,
        cgroups: Cgroups,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._pids = tuple(pids)
        self._nvml = nvml
        self._gpus = None if nvml is None else GpuWatch(nvml, self._pids, open_gpus=open_gpus)
        # A process that was killed has no group any more, so they are looked up now.
        counters = {cgroups.kill_counter(pid) for pid in self._pids}
        self._counters = [each for each in counters if each is not None]
        self._kills_before = self._kills()
        self._interval_s = interval_s
        self._peak_bytes = 0
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="node-watch", daemon=True)
        self._thread.start()

    def usage(self) -> NodeUsage:
        """What was seen up to now, this moment included."""
        with self._lock:
            if not self._stopped.is_set():
                self._look()
            gpu = None if self._gpus is None else self._gpus.usage()
            kills = kills_since(self._kills_before, self._kills())
            return NodeUsage(self._peak_bytes, gpu, kills)

    def stop(self) -> None:
        """End the sampling."""
        with self._lock:
            self._stopped.set()
        self._thread.join()
        if self._nvml is not None:
            self._nvml.close()

    def _kills(self) -> dict[str, int]:
        # By group, as one may be seen from above as well.
        return {group: n for each in self._counters for group, n in each.read().items()}

    def _sample(self) -> None:
        while not self._stopped.wait(self._interval_s):
            with self._lock:
                self._look()

    def _look(self) -> None:
        for pid in self._pids:
            try:
                resident = psutil.Process(pid).memory_info().rss
            except psutil.Error:
                continue
            self._peak_bytes = max(self._peak_bytes, resident)
        if self._gpus is not None:
            self._gpus.sample()
