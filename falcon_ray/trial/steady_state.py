"""When a service is warm, and when enough has been measured: rules without a clock.

A rule sees the requests of its own phase and the seconds since that phase began, and says
whether to go on. It does not know how load is made; whoever drives the load asks it now and
then. What is measured after warm-up is all kept: no rule starts again from zero.
"""

import math
from dataclasses import dataclass
from enum import Enum

from falcon_ray.errors import InputError
from falcon_ray.trial.requests import RequestLog
from falcon_ray.trial.settling import settle
from falcon_ray.trial.statistics import Estimate, throughput


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
    """Warm up until hardly anything is left of a transient in throughput.

    Attributes:
        min_s: Seconds to warm up in any case.
        max_s: Seconds after which warm-up ends, whatever throughput does.
        max_unsettled: Share of throughput by which it may still differ from where it settles.

    Raises:
        InputError: A value is out of range.
    """

    min_s: float = 1.5
    max_s: float = 12.0
    max_unsettled: float = 0.01

    def __post_init__(self) -> None:
        _check_span(self.min_s, self.max_s)
        if not self.max_unsettled > 0:
            raise InputError(f"max_unsettled must be positive, got {self.max_unsettled!r}")

    def judge(self, log: RequestLog, *, elapsed_s: float, granularity: int) -> WarmUpVerdict:
        """Say whether to go on warming up.

        Args:
            log: All requests that completed since warm-up began; failed ones are passed over.
            elapsed_s: Seconds since warm-up began.
            granularity: Completions of one whole round: the batch size times the replicas.
        """
        if elapsed_s < self.min_s:
            return WarmUpVerdict.KEEP_WARMING
        settled = settle(log.done_s[log.ok], granularity=granularity)
        if settled is not None and abs(settled.unsettled) <= self.max_unsettled:
            return WarmUpVerdict.LEVEL
        return WarmUpVerdict.GAVE_UP if elapsed_s >= self.max_s else WarmUpVerdict.KEEP_WARMING


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

    def judge(self, rate: Estimate | None, *, elapsed_s: float) -> PrecisionVerdict:
        """Say whether to go on measuring.

        Args:
            rate: Throughput as far as it is known.
            elapsed_s: Seconds since warm-up ended.
        """
        if elapsed_s < self.min_s:
            return PrecisionVerdict.KEEP_MEASURING
        if rate is not None and rate.relative_half_width <= self.relative_half_width:
            return PrecisionVerdict.PRECISE
        if elapsed_s >= self.max_s:
            return PrecisionVerdict.GAVE_UP
        return PrecisionVerdict.KEEP_MEASURING


@dataclass(frozen=True, slots=True)
class Steady:
    """Where a service is once it has settled.

    Attributes:
        rate: Requests per second.
        from_s: From when on it counts as level, on the clock of the requests.
    """

    rate: Estimate
    from_s: float


def steady(warm_up: RequestLog, measured: RequestLog, *, granularity: int) -> Steady | None:
    """Throughput once the service has settled, from the whole load where it has enough rounds.

    Args:
        warm_up: Requests of one load, up to where the measurement begins.
        measured: Those of the same load that follow; failed ones are passed over in both.
        granularity: Completions of one whole round: the batch size times the replicas.

    Returns:
        None where fewer than five whole rounds were measured.
    """
    alone = throughput(measured.done_s[measured.ok], granularity=granularity)
    if alone is None:
        return None
    whole = RequestLog.concat([warm_up, measured])
    settled = settle(whole.done_s[whole.ok], granularity=granularity)
    if settled is None:
        return Steady(alone, -math.inf)
    return Steady(settled.rate, settled.level_from_s)


def _check_span(min_s: float, max_s: float) -> None:
    if not 0 <= min_s <= max_s:
        raise InputError(f"0 <= min_s <= max_s must hold, got min_s={min_s!r}, max_s={max_s!r}")
