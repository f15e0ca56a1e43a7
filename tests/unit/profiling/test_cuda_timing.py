"""These run on a machine with an NVIDIA GPU only."""

import pytest
import torch

from falcon_ray.knowledge.operators.operator import Family
from falcon_ray.profiling.benchmark import TimingPlan
from falcon_ray.profiling.compute_share import compute_share
from falcon_ray.profiling.cuda_timing import TINY_US, EventClock, time_on_gpu
from falcon_ray.profiling.operator_calls import operator_calls
from falcon_ray.profiling.timers import GpuTimer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
PLAN = TimingPlan(repeat_s=0.002)


def test_an_event_clock_counts_the_streams_time() -> None:
    clock = EventClock()
    before_s = clock()
    torch.cuda._sleep(10_000_000)  # noqa: SLF001 - cycles; at 2 GHz or less, 5 ms or more
    assert clock() - before_s > 0.003


def test_a_large_product_takes_what_its_flops_allow() -> None:
    operands = GpuTimer().operands(torch.bfloat16)
    with torch.inference_mode():
        calls = operator_calls("linear", Family.LINEAR, (4096, 4096, 4096), operands)
        timings = time_on_gpu(calls, plan=PLAN)
    # 2 x 4096^3 = 0.137 TFLOP: no GPU does 5,000 TFLOP/s.
    assert timings["eager"].latency_us > 27
    assert timings["eager"].relative_sd < 0.1


def test_tiny_kernels_are_timed_in_a_graph_too() -> None:
    operands = GpuTimer().operands(torch.float32)
    with torch.inference_mode():
        timings = time_on_gpu(
            operator_calls("relu", Family.ACTIVATION, (1024, 1024), operands), plan=PLAN
        )
    assert timings["eager"].latency_us < TINY_US
    assert timings["graph"].latency_us < timings["eager"].latency_us


def test_half_of_the_units_takes_longer() -> None:
    operands = GpuTimer().operands(torch.float32)
    latencies: list[float] = []
    for share in (1.0, 0.5):
        with torch.inference_mode(), compute_share(share) as given:
            calls = operator_calls("linear", Family.LINEAR, (4096, 4096, 4096), operands)
            latencies.append(time_on_gpu(calls, plan=PLAN)["eager"].latency_us)
    assert 0.4 < given < 0.6
    assert 1.5 < latencies[1] / latencies[0] < 2.5
