"""Facts of devices that public measurements were taken on and the catalogue does not list.

They come from the vendors' specifications, written down from memory: check them before anything
but the scaling of constants hangs on them. Rates are dense; GPUs accumulate in float32.
"""

from falcon_ray.knowledge.device import Device, DeviceKind


def _gpu(
    name: str, *, float32: float, half: float, bandwidth: float, gib: float, units: int, source: str
) -> Device:
    return Device(
        name=name,
        kind=DeviceKind.GPU,
        peak_flops_per_s={
            "float32": 1e12 * float32,
            "float16": 1e12 * half,
            "bfloat16": 1e12 * half,
        },
        bandwidth_bytes_per_s=1e9 * bandwidth,
        memory_bytes=2.0**30 * gib,
        units=units,
        source=f"{source}; to be checked",
    )


def _cpu(
    name: str, *, float32: float, bandwidth: float, gib: float, units: int, source: str
) -> Device:
    return Device(
        name=name,
        kind=DeviceKind.CPU,
        peak_flops_per_s={"float32": 1e12 * float32},
        bandwidth_bytes_per_s=1e9 * bandwidth,
        memory_bytes=2.0**30 * gib,
        units=units,
        source=f"{source}; memory size of the measured machine unknown; to be checked",
    )


UNLISTED_DEVICES: tuple[Device, ...] = (
    _gpu(
        "RTX-3090",
        float32=35.6,
        half=71.0,
        bandwidth=936,
        gib=24,
        units=82,
        source="NVIDIA Ampere GA102 whitepaper",
    ),
    _gpu(
        "RTX-4090",
        float32=82.6,
        half=165.2,
        bandwidth=1008,
        gib=24,
        units=128,
        source="NVIDIA Ada whitepaper",
    ),
    _gpu(
        "RTX-5090",
        float32=104.8,
        half=209.5,
        bandwidth=1792,
        gib=32,
        units=170,
        source="NVIDIA RTX Blackwell whitepaper",
    ),
    _gpu(
        "RTX-PRO-6000-MAX-Q",
        float32=110.0,
        half=438.9,
        bandwidth=1792,
        gib=96,
        units=188,
        source="NVIDIA RTX PRO 6000 Blackwell Max-Q datasheet",
    ),
    # 8 performance cores at 4.7 GHz with 32 FLOPs a cycle, two channels of DDR5-4800.
    _cpu(
        "Intel-i7-12700H",
        float32=1.2,
        bandwidth=76.8,
        gib=64,
        units=14,
        source="Intel specification; rate from clock and vector width",
    ),
    # 14 cores at 3.3 GHz with 64 FLOPs a cycle, four channels of DDR4-2933.
    _cpu(
        "Intel-i9-10940X",
        float32=2.96,
        bandwidth=93.9,
        gib=256,
        units=14,
        source="Intel specification; rate from clock and vector width",
    ),
)
