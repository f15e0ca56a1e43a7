"""How much memory the replicas take, seen from outside their processes.

Resident memory by psutil on the replica's own node. It knows processes, not models.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import psutil
import ray

from falcon_ray.trial.protocols import DeviceUsage, Endpoint

GIB = 2.0**30
INTERVAL_S = 0.5


class ProcessEndpoint(Endpoint, Protocol):
    """An endpoint whose replicas are known processes."""

    def processes(self) -> Sequence[tuple[str, int]]:
        """Ray node and process id of every replica."""
        ...


class PeakMemory:
    """Largest resident memory of any of a few processes, sampled by a thread."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = tuple(pids)
        self._peak_bytes = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    @property
    def memory_gib(self) -> float | None:
        """Peak so far, or None where no process could be seen."""
        self._read()
        return self._peak_bytes / GIB if self._peak_bytes else None

    def stop(self) -> None:
        """End the sampling."""
        self._stopped.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stopped.wait(INTERVAL_S):
            self._read()

    def _read(self) -> None:
        for pid in self._pids:
            try:
                resident = psutil.Process(pid).memory_info().rss
            except psutil.Error:
                continue
            self._peak_bytes = max(self._peak_bytes, resident)


class ProcessMonitor:
    """Watches the replicas that live on this node; others are not seen."""

    @contextmanager
    def watch(self, endpoint: ProcessEndpoint) -> Iterator[DeviceUsage]:
        """See `DeviceMonitor.watch`."""
        here = ray.get_runtime_context().get_node_id()
        peak = PeakMemory([pid for node, pid in endpoint.processes() if node == here])
        try:
            yield peak
        finally:
            peak.stop()
