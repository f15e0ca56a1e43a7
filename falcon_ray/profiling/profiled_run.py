"""One real forward pass on the CPU under torch's profiler, as the operators that it spent time on.

What `trace.py` finds without running is judged by this. The times carry the profiler's overhead:
they are shares to compare, not latencies to report.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from falcon_ray.knowledge.operators.operator import Shape
from falcon_ray.profiling.trace import Inputs

OperatorKey: TypeAlias = tuple[str, tuple[Shape, ...]]
"""Name without namespace, and the shapes of the arguments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfiledRun:
    """What the profiler saw.

    Attributes:
        seconds: Of all top-level calls of each operator.
        calls: How many there were.
        peak_bytes: Most that the CPU allocator held beside parameters, inputs included.
    """

    seconds: Mapping[OperatorKey, float]
    calls: Counter[OperatorKey]
    peak_bytes: float


def profiled_run(build: Callable[[], nn.Module], inputs: Inputs) -> ProfiledRun:
    """Run a model once to warm it up and once under the profiler."""
    model = build().eval()
    positional: tuple[Tensor, ...] = ()
    named: Mapping[str, Tensor] = {}
    if isinstance(inputs, Mapping):
        named = inputs
    else:
        positional = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    with torch.inference_mode():
        model(*positional, **named)
        with profile(
            activities=[ProfilerActivity.CPU], record_shapes=True, profile_memory=True
        ) as profiler:
            output = model(*positional, **named)
    del output  # alive until the profiler stopped
    seconds: dict[OperatorKey, float] = defaultdict(float)
    calls: Counter[OperatorKey] = Counter()
    for event in profiler.events() or ():
        parent = event.cpu_parent
        if not event.name.startswith("aten::") or (parent and parent.name.startswith("aten::")):
            continue
        key = (
            event.name.removeprefix("aten::"),
            tuple(tuple(shape) for shape in event.input_shapes or ()),
        )
        seconds[key] += event.cpu_time_total / 1e6
        calls[key] += 1
    held = sum(each.nbytes for each in (*positional, *named.values()))
    return ProfiledRun(seconds=seconds, calls=calls, peak_bytes=held + _allocated_peak(profiler))


def _allocated_peak(profiler: profile) -> int:
    """From the allocator's events in order of time; torch has no public way to these."""
    inner = profiler.profiler
    assert inner is not None
    results: Any = inner.kineto_results
    changes = sorted(
        (event.start_ns(), event.nbytes())
        for event in results.events()
        if event.name() == "[memory]"
    )
    return max(accumulate(n_bytes for _, n_bytes in changes), default=0)
