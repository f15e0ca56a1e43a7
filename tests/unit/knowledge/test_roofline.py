import numpy as np
import pytest

from falcon_ray.knowledge.device import Device, DeviceKind
from falcon_ray.knowledge.roofline import log_roofline_s
from tests.unit.knowledge.known import one_layer

GPU = Device(
    name="made up",
    kind=DeviceKind.GPU,
    peak_flops_per_s={"float32": 1e12, "float16": 1e13},
    bandwidth_bytes_per_s=1e11,
    memory_bytes=2.0**34,
    units=40,
    source="made up",
)


def seconds(batch: int, *, dtype: str = "float32", part: float = 1.0) -> float:
    calls = one_layer().calls(np.array([float(batch)]), dtype=dtype)
    (found,) = np.exp(log_roofline_s(calls, GPU, dtype=dtype, part=part))
    return float(found)


def test_a_small_batch_takes_the_time_of_its_weights() -> None:
    # 4.008 MB at half of 100 GB/s, against 2 MFLOP at half of 1 TFLOP/s: 80.16 us, not 4 us.
    assert seconds(1) == pytest.approx(8e-6 + 80.16e-6)


def test_a_large_batch_takes_the_time_of_its_arithmetic() -> None:
    # 2 GFLOP at half of 1 TFLOP/s: 4 ms, against 12 MB: 0.24 ms.
    assert seconds(1000) == pytest.approx(8e-6 + 4e-3)


def test_a_part_of_the_units_has_that_part_of_the_arithmetic_and_all_of_the_traffic() -> None:
    assert seconds(1000, part=0.25) == pytest.approx(8e-6 + 4 * 4e-3)
    assert seconds(1, part=0.25) == pytest.approx(seconds(1))


def test_a_narrower_dtype_computes_at_its_own_peak_and_moves_fewer_bytes() -> None:
    # 12 MB / 2 at half of 100 GB/s: 120 us; arithmetic is ten times as fast: 400 us.
    assert seconds(1000, dtype="float16") == pytest.approx(8e-6 + 400e-6)
    assert seconds(1, dtype="float16") == pytest.approx(8e-6 + 40.08e-6)
