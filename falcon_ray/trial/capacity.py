"""The highest load that a deployment serves under a latency limit, found with few loads.

A deployment is expensive and one more load on it is cheap, so the rate is bracketed and
bisected inside a single deployment. The search says which rate to offer next. It does not know
how the load is made, how long it lasts, or how the verdict was reached.
"""

import math
from dataclasses import dataclass

from falcon_ray.errors import InputError
from falcon_ray.trial.statistics import SloVerdict

DESCENT = (0.7, 0.35, 0.096, 0.05)
"""Shares of saturation to offer until one is met; the last is the lightest load. The steps are as
long as eight points allow: from the third, what is left bisects down to (0.35 / 0.096) ** (1 / 32),
from the last to (0.096 / 0.05) ** (1 / 16), both 4.2 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPoint:
    """One offered rate, and what the SLO's verdict on it was."""

    rate_rps: float
    verdict: SloVerdict


class CapacitySearch:
    """Descends from 70 % of saturation until a rate is met, then bisects above it.

    A bracket is split at its geometric mean, as the resolution is relative. Only a MET verdict
    is proof; UNDECIDED sends the search down just as VIOLATED does. Saturation itself is taken
    as not met: there a queue of random arrivals grows without bound.

    Usage: while `next_rate()` is a rate, offer it and `record` the verdict on it.
    """

    def __init__(
        self,
        saturation_rps: float,
        *,
        max_points: int = 8,
        resolution: float,
        rate_to_beat_rps: float | None = None,
    ) -> None:
        """Start a search that has offered nothing yet.

        Args:
            saturation_rps: Closed-loop throughput, positive; the capacity lies below it.
            max_points: Rates to offer at most, positive. Where the capacity is above 35 % of
                saturation, six reach a resolution of 5 % and seven one of 3 %; where it is above
                5 %, that takes eight and nine.
            resolution: Stop when the lowest rate not met is within this share of the highest
                rate met; positive.
            rate_to_beat_rps: Once a rate is met, and all above this one are known not to be,
                the search is over: how far below it stays is not worth a load.

        Raises:
            InputError: An argument is out of range.
        """
        if not (math.isfinite(saturation_rps) and saturation_rps > 0):
            raise InputError(f"saturation_rps must be positive, got {saturation_rps!r}")
        if max_points < 1:
            raise InputError(f"max_points must be at least 1, got {max_points!r}")
        if not resolution > 0:
            raise InputError(f"resolution must be positive, got {resolution!r}")
        self._saturation_rps = saturation_rps
        self._max_points = max_points
        self._resolution = resolution
        self._rate_to_beat_rps = rate_to_beat_rps
        self._points: list[LoadPoint] = []

    @property
    def capacity_rps(self) -> float | None:
        """The highest rate that was certified, or None while none was."""
        return max((p.rate_rps for p in self._points if p.verdict is SloVerdict.MET), default=None)

    def next_rate(self) -> float | None:
        """The rate to offer next, in requests per second, or None when the search is over."""
        if len(self._points) >= self._max_points:
            return None
        met_rps = self.capacity_rps
        if met_rps is None:
            lightest_rps = min((p.rate_rps for p in self._points), default=math.inf)
            lighter = (share * self._saturation_rps for share in DESCENT)
            return next((rate for rate in lighter if rate < lightest_rps), None)
        if self._is_resolved(met_rps) or self.cut_short:
            return None
        return math.sqrt(met_rps * self._too_high_rps(met_rps))

    @property
    def cut_short(self) -> bool:
        """Whether the search ended, or will, because the rate to beat is out of reach."""
        met_rps, to_beat_rps = self.capacity_rps, self._rate_to_beat_rps
        if met_rps is None or to_beat_rps is None or self._is_resolved(met_rps):
            return False
        return self._too_high_rps(met_rps) <= to_beat_rps

    def _is_resolved(self, met_rps: float) -> bool:
        return self._too_high_rps(met_rps) <= met_rps * (1 + self._resolution)

    def _too_high_rps(self, met_rps: float) -> float:
        """The lowest rate above `met_rps` that is not met."""
        not_met_rps = [p.rate_rps for p in self._points if p.rate_rps > met_rps]
        return min([self._saturation_rps, *not_met_rps])

    def record(self, rate_rps: float, verdict: SloVerdict) -> None:
        """Take note of what an offered rate did.

        Args:
            rate_rps: The rate that `next_rate` gave.
            verdict: On the requests of this load alone.

        Raises:
            ValueError: The rate is not positive and finite.
        """
        if not (math.isfinite(rate_rps) and rate_rps > 0):
            raise ValueError(f"rate_rps must be positive and finite, got {rate_rps!r}")
        self._points.append(LoadPoint(rate_rps=rate_rps, verdict=verdict))
