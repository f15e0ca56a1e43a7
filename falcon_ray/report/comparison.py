"""How much better one measurement is than another, and how sure that is.

A comparison knows two rates, their uncertainty and two exact prices. It does not know what
was measured.

    gain      score of one / score of the other - 1
    l, L, U   logarithm of a rate, of the lower and of the upper end of its interval
"""

import math
from dataclasses import dataclass
from enum import Enum

from falcon_ray.space.objective import Objective
from falcon_ray.space.observation import Measurement


class Uncertainty(Enum):
    """What the ends of a gain's range mean."""

    CONFIDENCE = "95 % confidence interval"
    """From the intervals of two independent throughput measurements."""
    RESOLUTION = "resolution of the certified rates"
    """Certified rates come from a search over offered rates; only its step is known."""
    UNKNOWN = "not recorded"
    """The target reports no interval, or the step of its certified rates is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """A relative difference in requests per dollar, e.g. 0.38 for 38 % more.

    Attributes:
        value: The estimate, above -1.
        low: Lower end of its range; -1 where nothing bounds it.
        high: Upper end; infinite where nothing bounds it.
        uncertainty: What the range is.
    """

    value: float
    low: float
    high: float
    uncertainty: Uncertainty

    @property
    def shows_difference(self) -> bool:
        """Whether the range leaves out zero."""
        return not self.low <= 0 <= self.high


@dataclass(frozen=True, slots=True)
class RateInterval:
    """A positive rate and its 95 % confidence interval; 0 and infinity bound nothing."""

    rate_rps: float
    ci_low_rps: float
    ci_high_rps: float


def gain_in_score(
    best: Measurement,
    baseline: Measurement,
    *,
    objective: Objective,
    best_usd_per_hour: float,
    baseline_usd_per_hour: float,
    capacity_step: float | None,
) -> Gain | None:
    """Compare two measurements of independent deployments by requests per dollar.

    Without an SLO the range is a 95 % confidence interval of what these two deployments
    deliver. One deployment of each was measured, so a difference between two deployments of
    the same configuration is not in it.

    A certified capacity is a rate that passed a test while the next rate tried did not. It has
    no sampling distribution that one run would show, and the width of the saturation interval
    says nothing about it. What is known is the step: the capacity lies between the certified
    rate and `1 + capacity_step` times it. The range is then all gains that two such brackets
    allow, and no probability is attached.

    Args:
        best: The measurement whose gain is wanted.
        baseline: What it is compared with.
        objective: Says which rate the score pays for.
        best_usd_per_hour: Exact price of the first, positive.
        baseline_usd_per_hour: Exact price of the second, positive.
        capacity_step: See `SearchHeader`; used with an SLO only.

    Returns:
        None where one of the two has no rate under the SLO.
    """
    price_ratio = baseline_usd_per_hour / best_usd_per_hour
    if objective.slo is None:
        rates = _saturation(best), _saturation(baseline)
        if rates[0] is None or rates[1] is None:
            gain = _unbounded_gain(best.saturation_rps / baseline.saturation_rps)
        else:
            gain = confidence_gain(rates[0], rates[1])
        return _scaled(gain, price_ratio)
    if best.capacity_rps is None or baseline.capacity_rps is None:
        return None
    ratio = best.capacity_rps / baseline.capacity_rps
    return _scaled(resolution_gain(ratio, capacity_step), price_ratio)


def confidence_gain(best: RateInterval, baseline: RateInterval) -> Gain:
    """The gain of one rate over another with its 95 % confidence interval.

    The logarithm of the ratio is a difference of independent estimates. Its limits follow from
    theirs by Zou and Donner (2008), Statistics in Medicine 27, "method of variance estimates
    recovery": l1 - l2 - sqrt((l1 - L1)^2 + (U2 - l2)^2), and likewise upwards. Where intervals
    are symmetric around the logarithm this is the delta method.
    """
    ratio = best.rate_rps / baseline.rate_rps
    down = math.hypot(
        _log_ratio(best.rate_rps, best.ci_low_rps),
        _log_ratio(baseline.ci_high_rps, baseline.rate_rps),
    )
    up = math.hypot(
        _log_ratio(best.ci_high_rps, best.rate_rps),
        _log_ratio(baseline.rate_rps, baseline.ci_low_rps),
    )
    return Gain(
        value=ratio - 1,
        low=ratio * math.exp(-down) - 1,
        high=ratio * math.exp(up) - 1,
        uncertainty=Uncertainty.CONFIDENCE,
    )


def resolution_gain(ratio: float, capacity_step: float | None) -> Gain:
    """The gain of one certified rate over another, with the range that their step allows."""
    if capacity_step is None:
        return _unbounded_gain(ratio)
    return Gain(
        value=ratio - 1,
        low=ratio / (1 + capacity_step) - 1,
        high=ratio * (1 + capacity_step) - 1,
        uncertainty=Uncertainty.RESOLUTION,
    )


def _unbounded_gain(ratio: float) -> Gain:
    return Gain(value=ratio - 1, low=-1.0, high=math.inf, uncertainty=Uncertainty.UNKNOWN)


def _saturation(measurement: Measurement) -> RateInterval | None:
    """The saturation throughput, or None where its interval is not known."""
    low, high = measurement.saturation_rps_ci_low, measurement.saturation_rps_ci_high
    if low is None or high is None:
        return None
    return RateInterval(measurement.saturation_rps, low, high)


def _log_ratio(high: float, low: float) -> float:
    """log(high / low), infinite where an end is not bounded."""
    return math.log(high / low) if low > 0 and math.isfinite(high) else math.inf


def _scaled(gain: Gain, factor: float) -> Gain:
    """The gain when the ratio behind it is multiplied by an exact factor."""
    return Gain(
        value=(1 + gain.value) * factor - 1,
        low=(1 + gain.low) * factor - 1,
        high=(1 + gain.high) * factor - 1,
        uncertainty=gain.uncertainty,
    )
