"""Timing calls on an NVIDIA GPU: by events on its stream, and as a CUDA graph where they are tiny.

Nothing here runs on machines without CUDA: importing the module touches no GPU.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from falcon_ray.profiling.benchmark import Call, Timing, TimingPlan, time_calls, undisturbed

TINY_US = 20.0
"""Below it the host's launches are slower than many kernels, so both are worth knowing."""

CUDA_TURNS_BYTES = 2**28
CUDA_KEPT_BYTES = 2**27
"""As `operands.TURNS_BYTES` and `KEPT_BYTES`, for second-level caches of up to 126 MB."""

_MAX_IN_GRAPH = 64
_WARM_UP_CALLS = 3


class EventClock:
    """Seconds that have passed on the current stream, by its own events.

    Reading it waits until the stream has done all that it was given.
    """

    def __init__(self) -> None:
        self._elapsed_s = 0.0
        self._last = self._recorded()

    def __call__(self) -> float:
        """Seconds since the clock was made."""
        now = self._recorded()
        # Short stretches are summed up in float64; an event's own time is a float32.
        self._elapsed_s += self._last.elapsed_time(now) / 1000.0
        self._last = now
        return self._elapsed_s

    def _recorded(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        event.synchronize()
        return event


def time_on_gpu(calls: Sequence[Call], *, plan: TimingPlan) -> dict[str, Timing]:
    """Time calls that take turns; what is tiny in mode "graph" beside "eager".

    Returns:
        Timings by mode.
    """
    eager = time_calls(calls, plan=plan, clock=EventClock(), waited_s=undisturbed)
    timings = {"eager": eager}
    if eager.latency_us < TINY_US:
        replay, n = graph_of(calls)
        whole = time_calls([replay], plan=plan, clock=EventClock(), waited_s=undisturbed)
        timings["graph"] = replace(whole, latency_us=whole.latency_us / n)
    return timings


def graph_of(calls: Sequence[Call]) -> tuple[Callable[[], None], int]:
    """A CUDA graph of one round of the calls, at most 64 of them, and how many those are."""
    chosen = list(calls)[:_MAX_IN_GRAPH]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for call in chosen[:_WARM_UP_CALLS]:
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in chosen:
            call()
    return graph.replay, len(chosen)
