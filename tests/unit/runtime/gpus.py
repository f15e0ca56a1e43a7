"""GPUs as NVML would show them, with what is said of them at each look."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

GIB = 2**30


@dataclass
class FakeGpu:
    """One GPU; tests change its fields between looks."""

    uuid: str
    number: int | None = 0
    used: int | None = 0
    processes: Mapping[int, int | None] = field(default_factory=dict[int, int | None])
    utilization: float | None = None
    power: float | None = None

    def used_bytes(self) -> int | None:
        return self.used

    def process_bytes(self) -> Mapping[int, int | None]:
        return self.processes

    def utilization_pct(self) -> float | None:
        return self.utilization

    def power_w(self) -> float | None:
        return self.power

    def n_units(self, capability: tuple[int, int]) -> int | None:
        raise NotImplementedError

    def clocks(self) -> Mapping[str, str]:
        raise NotImplementedError


class FakeNvml:
    """NVML with these GPUs."""

    def __init__(self, *gpus: FakeGpu) -> None:
        self._gpus = gpus
        self.closed = False

    def devices(self) -> Sequence[FakeGpu]:
        return self._gpus

    def driver(self) -> str:
        return "570.1"

    def close(self) -> None:
        self.closed = True
