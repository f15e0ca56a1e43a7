"""How long a call takes: warm up, repeat until the median is known well enough, say how well.

A call is any function without arguments; several that differ in their operands only take turns,
so that a caller decides what is in the caches. The module does not know what is called, nor where
it runs: the clock is given, and `cuda_timing.py` brings one that counts a GPU's time.
"""

import math
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from falcon_ray.space.configuration import FloatArray

Call: TypeAlias = Callable[[], object]

_LEVEL = 0.1
_PATIENCE = 3
_TOLERATED_WAIT = 0.05
_SWITCH_S = 0.001

DISTURBED_RELATIVE_SD = 0.5
"""Of a median whose repeats were all disturbed: nobody knows by how much it is too long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingPlan:
    """When a measurement ends.

    Attributes:
        relative_sd: Of the median, at which it is known well enough.
        min_repeats: Fewest repeats behind a median.
        max_repeats: Most of them.
        max_s: After so many seconds of repeats, no further block of them starts.
        warm_up_s: Longest warm-up; it ends earlier once two rounds take equally long.
        repeat_s: Shorter calls are repeated in an inner loop of this length, which is one repeat.

    Raises:
        ValueError: A number is out of range.
    """

    relative_sd: float = 0.02
    min_repeats: int = 5
    max_repeats: int = 200
    max_s: float = 0.2
    warm_up_s: float = 0.05
    repeat_s: float = 0.0005

    def __post_init__(self) -> None:
        seconds = (self.relative_sd, self.max_s, self.warm_up_s, self.repeat_s)
        if not min(seconds) > 0 or not 2 <= self.min_repeats <= self.max_repeats:
            raise ValueError(f"a plan needs positive times and at least 2 repeats, got {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long one call takes.

    Attributes:
        latency_us: Median over the repeats.
        relative_sd: Of that median.
        n: Repeats behind it.
    """

    latency_us: float
    relative_sd: float
    n: int


def involuntary_waits_s() -> float:
    """Seconds for which the system took a CPU from this process so far, at a millisecond each."""
    return _SWITCH_S * resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def undisturbed() -> float:
    """For clocks that neighbours cannot disturb."""
    return 0.0


def time_calls(
    calls: Sequence[Call],
    *,
    plan: TimingPlan,
    clock: Callable[[], float] = time.perf_counter,
    waited_s: Callable[[], float] = involuntary_waits_s,
) -> Timing:
    """Time calls that take turns; together they count as one call.

    Repeats that waited for a CPU for more than 5 % of their time measured the neighbours too. They
    are dropped once `plan.min_repeats` others are there, for which up to three times `plan.max_s`
    is spent. Where there are none, all count, with a deviation of `DISTURBED_RELATIVE_SD` or more.

    Args:
        calls: At least one; each must have finished its work when it returns.
        plan: When to stop.
        clock: In seconds, monotonic.
        waited_s: Seconds that this process has waited for a CPU so far.
    """
    turns = _Turns(calls)
    call_s = _warm_up(turns, plan, clock)
    n_inner = max(1, math.ceil(plan.repeat_s / max(call_s, 1e-9)))
    samples: list[float] = []
    is_clean: list[bool] = []
    start_s = clock()
    while True:
        for _ in range(plan.min_repeats):
            before_s, start_of_repeat_s = waited_s(), clock()
            turns.take(n_inner)
            repeat_s = clock() - start_of_repeat_s
            samples.append(repeat_s / n_inner)
            is_clean.append(waited_s() - before_s <= _TOLERATED_WAIT * repeat_s)
        has_clean = sum(is_clean) >= plan.min_repeats
        kept = np.array(samples)[is_clean] if has_clean else np.array(samples)
        relative_sd = relative_sd_of_median(kept)
        if not has_clean:
            relative_sd = max(relative_sd, DISTURBED_RELATIVE_SD)
        longest_s = plan.max_s * (1 if has_clean else _PATIENCE)
        if (
            relative_sd <= plan.relative_sd
            or clock() - start_s >= longest_s
            or len(samples) >= plan.max_repeats
        ):
            return Timing(
                latency_us=1e6 * float(np.median(kept)), relative_sd=relative_sd, n=len(kept)
            )


def relative_sd_of_median(samples: FloatArray) -> float:
    """Standard deviation of the median over the median, from order statistics.

    The number of samples below the true median is binomial with mean n/2 and sd sqrt(n)/2, so
    the quantiles at 1/2 -+ 1/(2 sqrt(n)) lie one sd around the median, whatever the distribution
    (David and Nagaraja 2003, "Order Statistics", section 7.1).

    Args:
        samples: Shape (n,), n >= 2, positive.
    """
    half = 0.5 / math.sqrt(len(samples))
    low, median, high = np.quantile(samples, [0.5 - half, 0.5, 0.5 + half])
    return float((high - low) / (2 * median))


class _Turns:
    """Calls that take turns, across warm-up and repeats."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._calls = tuple(calls)
        self._next = 0

    def __len__(self) -> int:
        return len(self._calls)

    def take(self, n: int) -> None:
        calls, n_calls, turn = self._calls, len(self._calls), self._next
        for _ in range(n):
            calls[turn]()
            turn += 1
            if turn == n_calls:
                turn = 0
        self._next = turn


def _warm_up(turns: _Turns, plan: TimingPlan, clock: Callable[[], float]) -> float:
    """Call until it takes equally long twice, and return how long that is.

    The first call is often far slower than any later one: libraries choose and compile a kernel.
    """
    turns.take(1)
    end_s = clock() + plan.warm_up_s
    last_s = math.inf
    while True:
        start_s = clock()
        turns.take(1)
        now_s = clock()
        call_s = now_s - start_s
        if abs(call_s - last_s) <= _LEVEL * call_s or now_s >= end_s:
            return min(call_s, last_s)
        last_s = call_s
