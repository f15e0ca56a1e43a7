"""When a service is warm, and when enough has been measured: rules without a clock.

A rule sees the requests of its own phase and the seconds since that phase began, and says
whether to go on. It does not know how load is made; whoever drives the load asks it now and
then. What is measured after warm-up is kept: no rule ever starts again from zero.
"""

from dataclasses import dataclass
from enum import Enum

import numpy as np

from falcon_ray.errors import InputError
from falcon_ray.space.configuration import FloatArray
from falcon_ray.trial.requests import RequestLog
from falcon_ray.trial.statistics import group_centres_s, throughput, trend_is_significant


class WarmUpVerdict(Enum):
    """Whether the warm-up is over."""

    KEEP_WARMING = "keep_warming"
    LEVEL = "level"
    """Throughput shows no trend."""
    GAVE_UP = "gave_up"
    """Time is up and throughput still drifts, or too few batches have completed to say."""


class PrecisionVerdict(Enum):
    """Whether the measurement is over."""

    KEEP_MEASURING = "keep_measuring"
    PRECISE = "precise"
    """Throughput is known as exactly as was asked."""
    GAVE_UP = "gave_up"
    """Time is up and the confidence interval is still wider."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUpRule:
    """Warm up until the recent windows' throughput shows no significant trend.

    Attributes:
        min_s: Seconds to warm up in any case.
        max_s: Seconds after which warm-up ends whatever throughput does.
        window_s: Length of a window; a window holds whole groups, hence at least one.
        n_windows: How many recent windows the trend test sees.
        significance: Of the trend test. High, because a missed trend biases the result and a
            false one only costs time.

    Raises:
        InputError: A time or a count is out of range.
    """

    min_s: float = 1.5
    max_s: float = 6.0
    window_s: float = 0.25
    n_windows: int = 12
    significance: float = 0.1

    def __post_init__(self) -> None:
        _check_span(min_s=self.min_s, max_s=self.max_s)

    def judge(self, log: RequestLog, *, elapsed_s: float, granularity: int) -> WarmUpVerdict:
        if elapsed_s < self.min_s:
            return WarmUpVerdict.KEEP_WARMING
        durations = self._window_durations_s(group_centres_s(log.done_s[log.ok], granularity))
        if durations.size >= 5 and not trend_is_significant(durations, self.significance):
            return WarmUpVerdict.LEVEL
        return WarmUpVerdict.GAVE_UP if elapsed_s >= self.max_s else WarmUpVerdict.KEEP_WARMING

    def _window_durations_s(self, centres: FloatArray) -> FloatArray:
        n_steps = centres.size - 1
        if n_steps < 1:
            return np.empty(0)
        step_s = max((centres[-1] - centres[0]) / n_steps, 1e-9)
        steps = max(1, round(self.window_s / step_s))
        n = min(self.n_windows, n_steps // steps)
        edges = n_steps - steps * np.arange(n, -1, -1)
        return np.diff(centres[edges])


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionRule:
    min_s: float = 3.0
    max_s: float = 10.0
    relative_half_width: float = 0.03

    def judge(self, log: RequestLog, *, elapsed_s: float, granularity: int) -> PrecisionVerdict:
        if elapsed_s < self.min_s:
            return PrecisionVerdict.KEEP_MEASURING
        estimate = throughput(log.done_s[log.ok], granularity=granularity)
        if estimate is not None and estimate.relative_half_width <= self.relative_half_width:
            return PrecisionVerdict.PRECISE
        if elapsed_s >= self.max_s:
            return PrecisionVerdict.GAVE_UP
        return PrecisionVerdict.KEEP_MEASURING


def _check_span(*, min_s: float, max_s: float) -> None:
    if not 0 <= min_s <= max_s:
        raise InputError(f"0 <= min_s <= max_s is needed, got min_s={min_s!r}, max_s={max_s!r}")
