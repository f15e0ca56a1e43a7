"""When a service is warm, and when enough has been measured: rules without a clock.

A rule sees the requests of its own phase and the seconds since that phase began, and says
whether to go on. It does not know how load is made; whoever drives the load asks it now and
then. What is measured after warm-up is all kept: no rule starts again from zero.
"""

from dataclasses import dataclass
from enum import Enum

import numpy as np

from falcon_ray.errors import InputError
from falcon_ray.space.configuration import FloatArray
from falcon_ray.trial.requests import RequestLog
from falcon_ray.trial.statistics import group_centres_s, throughput, trend_is_significant

MIN_WINDOWS = 5
"""With fewer, no order of the windows would be a significant trend at 5 %."""
CLOCK_DECIMALS = 6
"""Below a microsecond, rounding and not the service decides which window is longer."""


class WarmUpVerdict(Enum):
    """Whether the warm-up is over."""

    KEEP_WARMING = "keep_warming"
    """Throughput still drifts, or too few batches have completed to say."""
    LEVEL = "level"
    """Throughput shows no trend: measure now."""
    GAVE_UP = "gave_up"
    """As KEEP_WARMING, but time is up: measure now, and say so."""


class PrecisionVerdict(Enum):
    """Whether the measurement is over."""

    KEEP_MEASURING = "keep_measuring"
    """The confidence interval of throughput is too wide, or there is none yet."""
    PRECISE = "precise"
    """Throughput is known as precisely as was asked."""
    GAVE_UP = "gave_up"
    """As KEEP_MEASURING, but time is up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUpRule:
    """Warm up until the throughput of recent windows shows no significant trend.

    A window is a number of whole groups that takes about `window_s`, so that its edges cut no
    batch; where one group takes longer, a window is one group.

    Attributes:
        min_s: Seconds to warm up in any case.
        max_s: Seconds after which warm-up ends, whatever throughput does.
        window_s: About how many seconds one window takes.
        n_windows: How many recent windows the trend test looks at.
        significance: Of the trend test. Large, because a missed trend biases the measurement
            where a false one costs a fraction of a second.

    Raises:
        InputError: A value is out of range.
    """

    min_s: float = 1.5
    max_s: float = 6.0
    window_s: float = 0.25
    n_windows: int = 8
    significance: float = 0.2

    def __post_init__(self) -> None:
        _check_span(self.min_s, self.max_s)
        if not self.window_s > 0:
            raise InputError(f"window_s must be positive, got {self.window_s!r}")
        if self.n_windows < MIN_WINDOWS:
            raise InputError(f"n_windows must be at least {MIN_WINDOWS}, got {self.n_windows!r}")
        if not 0 < self.significance < 1:
            raise InputError(f"significance must lie between 0 and 1, got {self.significance!r}")

    def judge(self, log: RequestLog, *, elapsed_s: float, granularity: int) -> WarmUpVerdict:
        """Say whether to go on warming up.

        Args:
            log: All requests that completed since warm-up began; failed ones are passed over.
            elapsed_s: Seconds since warm-up began.
            granularity: Completions of one whole round: the batch size times the replicas.
        """
        if elapsed_s < self.min_s:
            return WarmUpVerdict.KEEP_WARMING
        durations_s = self._window_durations_s(group_centres_s(log.done_s[log.ok], granularity))
        if durations_s.size >= MIN_WINDOWS and not trend_is_significant(
            durations_s, self.significance
        ):
            return WarmUpVerdict.LEVEL
        return WarmUpVerdict.GAVE_UP if elapsed_s >= self.max_s else WarmUpVerdict.KEEP_WARMING

    def _window_durations_s(self, centres_s: FloatArray) -> FloatArray:
        """How long each recent window took, oldest first; windows are counted from the end."""
        n_steps = centres_s.size - 1
        if n_steps < MIN_WINDOWS:
            return np.empty(0)
        per_second = n_steps / max(float(centres_s[-1] - centres_s[0]), self.window_s)
        steps = max(1, round(self.window_s * per_second))
        n_windows = min(self.n_windows, n_steps // steps)
        edges = n_steps - steps * np.arange(n_windows, -1, -1)
        return np.round(np.diff(centres_s[edges]), CLOCK_DECIMALS)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionRule:
    """Measure until the 95 % confidence interval of throughput is narrow.

    Attributes:
        min_s: Seconds to measure in any case: an interval found narrow by chance in the first
            moments would end the measurement too early.
        max_s: Seconds after which the measurement ends, however wide the interval is.
        relative_half_width: Half the interval's length as a share of throughput.

    Raises:
        InputError: A value is out of range.
    """

    min_s: float = 3.0
    max_s: float = 10.0
    relative_half_width: float = 0.03

    def __post_init__(self) -> None:
        _check_span(self.min_s, self.max_s)
        if not self.relative_half_width > 0:
            raise InputError(
                f"relative_half_width must be positive, got {self.relative_half_width!r}"
            )

    def judge(self, log: RequestLog, *, elapsed_s: float, granularity: int) -> PrecisionVerdict:
        """Say whether to go on measuring.

        Args:
            log: All requests that completed since warm-up ended; failed ones are passed over.
            elapsed_s: Seconds since warm-up ended.
            granularity: Completions of one whole round: the batch size times the replicas.
        """
        if elapsed_s < self.min_s:
            return PrecisionVerdict.KEEP_MEASURING
        estimate = throughput(log.done_s[log.ok], granularity=granularity)
        if estimate is not None and estimate.relative_half_width <= self.relative_half_width:
            return PrecisionVerdict.PRECISE
        if elapsed_s >= self.max_s:
            return PrecisionVerdict.GAVE_UP
        return PrecisionVerdict.KEEP_MEASURING


def _check_span(min_s: float, max_s: float) -> None:
    if not 0 <= min_s <= max_s:
        raise InputError(f"0 <= min_s <= max_s must hold, got min_s={min_s!r}, max_s={max_s!r}")
