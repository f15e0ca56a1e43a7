"""A device as predictors see it: peak rates, bandwidth, memory. Never a rank.

Facts of GPUs come from the catalogue, facts of CPUs from a profile that measured them. The module
knows no prices.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from falcon_ray.errors import InputError
from falcon_ray.space.catalogue import Gpu


class DeviceKind(Enum):
    """What runs the operators."""

    CPU = "cpu"
    GPU = "gpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """Facts of one type of device.

    Attributes:
        name: As in profiles: a GPU's name in the catalogue, or a CPU's model.
        kind: CPU or GPU.
        peak_flops_per_s: Of dense arithmetic, by dtype; missing dtypes gain nothing.
        bandwidth_bytes_per_s: Of its main memory.
        memory_bytes: What a process can use.
        units: Streaming multiprocessors of a GPU, physical cores of a CPU.
        source: Where the facts come from.

    Raises:
        InputError: A number is not positive, or there is no float32 rate.
    """

    name: str
    kind: DeviceKind
    peak_flops_per_s: Mapping[str, float]
    bandwidth_bytes_per_s: float
    memory_bytes: float
    units: int
    source: str

    def __post_init__(self) -> None:
        numbers = (*self.peak_flops_per_s.values(), self.bandwidth_bytes_per_s, self.memory_bytes)
        if "float32" not in self.peak_flops_per_s or not min(numbers, default=0) > 0:
            raise InputError(
                f"facts of {self.name} must be positive and hold a float32 rate, got {self}"
            )

    @classmethod
    def of_gpu(cls, gpu: Gpu) -> "Device":
        """The catalogue's facts of a GPU."""
        rates = {
            "float32": gpu.fp32_tflops,
            "float16": gpu.fp16_tflops,
            "bfloat16": gpu.bf16_tflops,
            "fp8": gpu.fp8_tflops,
        }
        return cls(
            name=gpu.gpu_type,
            kind=DeviceKind.GPU,
            peak_flops_per_s={name: 1e12 * rate for name, rate in rates.items() if rate},
            bandwidth_bytes_per_s=1e9 * gpu.bandwidth_gb_per_s,
            memory_bytes=2.0**30 * gpu.memory_gib,
            units=gpu.sm_count,
            source=gpu.source,
        )

    def peak(self, dtype: str) -> float:
        """FLOP/s in a dtype; one that the hardware does not have is computed in float32."""
        return self.peak_flops_per_s.get(dtype, self.peak_flops_per_s["float32"])
