"""How much better configurations are than a baseline, and how sure that is.

A comparison knows rates of fresh deployments, their uncertainty and exact prices. It does not
know what was measured.

    gain      score of one / score of the other - 1
    l, L, U   logarithm of a rate, of the lower and of the upper end of its interval
    k         comparisons with the same baseline that are made together
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from scipy import stats

from falcon_ray.report.dunnett import allowances, pooled_deviation

CONFIDENCE = 0.95


class Uncertainty(Enum):
    """What the ends of a gain's range mean."""

    DEPLOYMENTS = "95 % simultaneous confidence interval over deployments"
    """From the spread between fresh deployments; it holds for all comparisons at once. For
    certified rates it is widened by their step."""
    CONFIDENCE = "95 % confidence interval"
    """From the intervals of two independent throughput measurements in one deployment each:
    how deployments of the same configuration differ is not in it."""
    RESOLUTION = "resolution of the certified rates"
    """Certified rates come from a search over offered rates; only its step is known."""
    PRICE = "exact"
    """Both serve the one rate that was asked for, and prices are exact."""
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
        n_deployments: Behind the one and behind the baseline.
    """

    value: float
    low: float
    high: float
    uncertainty: Uncertainty
    n_deployments: tuple[int, int] = (1, 1)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """What fresh deployments of one configuration served.

    Attributes:
        rates_rps: One positive rate for each deployment, at least one.
        intervals: Of the rates, each within its deployment; None where they are not known.
        usd_per_hour: Exact price, positive.
    """

    rates_rps: tuple[float, ...]
    intervals: tuple[RateInterval, ...] | None
    usd_per_hour: float

    @property
    def logs(self) -> tuple[float, ...]:
        """Logarithms of the rates."""
        return tuple(math.log(rate) for rate in self.rates_rps)

    @property
    def mean_rps(self) -> float:
        """Geometric mean of the rates, as deployments differ by factors."""
        return math.exp(sum(self.logs) / len(self.rates_rps))

    @property
    def mean_interval(self) -> RateInterval | None:
        """The mean with what the intervals within the deployments say, independent ones."""
        if self.intervals is None:
            return None
        n = len(self.intervals)
        down = math.hypot(*(_log_ratio(each.rate_rps, each.ci_low_rps) for each in self.intervals))
        up = math.hypot(*(_log_ratio(each.ci_high_rps, each.rate_rps) for each in self.intervals))
        mean = self.mean_rps
        return RateInterval(mean, mean * math.exp(-down / n), mean * math.exp(up / n))


def gains_over_baseline(
    contenders: Sequence[Deployed],
    baseline: Deployed,
    *,
    is_certified: bool,
    capacity_step: float | None,
) -> tuple[Gain, ...]:
    """Compare configurations with a baseline by requests per dollar, all at once.

    Where any of them was deployed more than once, the range holds the spread between
    deployments: Dunnett's (1955) intervals of the differences in log rate, with the variance
    pooled over all configurations. They hold together, so the best of the contenders may be
    picked afterwards. With two deployments of three configurations there are three degrees of
    freedom, and the intervals are as wide as that little evidence is. No interval is narrower
    than what the intervals within the deployments say, made simultaneous by Sidak's (1967)
    correction; with one deployment of each there is nothing else.

    A certified capacity is a rate that passed a test while the next rate tried did not. What is
    known of it within one deployment is the step: it lies between the certified rate and
    `1 + capacity_step` times it. The range is widened by the step on both sides; with one
    deployment of each it is the step alone, and no probability is attached.

    Args:
        contenders: The configurations whose gains are wanted.
        baseline: What they are compared with.
        is_certified: Whether rates are certified ones.
        capacity_step: See `SearchHeader`; used for certified rates only.

    Returns:
        One gain for each contender.
    """
    between = allowances([each.logs for each in contenders], baseline.logs)
    gains: list[Gain] = []
    for i, one in enumerate(contenders):
        ratio = one.mean_rps / baseline.mean_rps
        if is_certified:
            gain = resolution_gain(ratio, capacity_step)
        else:
            gain = _within_gain(one, baseline, ratio, n_comparisons=len(contenders))
        if between is not None:
            gain = _with_spread(gain, between[i], is_certified=is_certified)
        gain = _scaled(gain, baseline.usd_per_hour / one.usd_per_hour)
        gains.append(replace(gain, n_deployments=(len(one.rates_rps), len(baseline.rates_rps))))
    return tuple(gains)


def price_gain(*, usd_per_hour: float, baseline_usd_per_hour: float) -> Gain:
    """The gain where both serve the one rate that was asked for: that of the price."""
    value = baseline_usd_per_hour / usd_per_hour - 1
    return Gain(value=value, low=value, high=value, uncertainty=Uncertainty.PRICE)


def mean_rate(one: Deployed, others: Sequence[Deployed] = ()) -> RateInterval | None:
    """The mean rate of a configuration with its 95 % interval, None where nothing is known.

    The variance between deployments is pooled with that of the others; the interval is never
    narrower than what those within the deployments say.
    """
    within = one.mean_interval
    deviation, df = pooled_deviation([one.logs, *(each.logs for each in others)])
    if df == 0:
        return within
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, df))
    half = quantile * deviation / math.sqrt(len(one.rates_rps))
    mean = one.mean_rps
    low, high = mean * math.exp(-half), mean * math.exp(half)
    if within is not None:
        low, high = min(low, within.ci_low_rps), max(high, within.ci_high_rps)
    return RateInterval(mean, low, high)


def confidence_gain(best: RateInterval, baseline: RateInterval, *, widening: float = 1.0) -> Gain:
    """The gain of one rate over another with its 95 % confidence interval.

    The logarithm of the ratio is a difference of independent estimates. Its limits follow from
    theirs by Zou and Donner (2008), Statistics in Medicine 27, "method of variance estimates
    recovery": l1 - l2 - sqrt((l1 - L1)^2 + (U2 - l2)^2), and likewise upwards. Where intervals
    are symmetric around the logarithm this is the delta method.

    Args:
        best: The rate whose gain is wanted.
        baseline: What it is compared with.
        widening: What the interval's two halves are multiplied by, on the log scale.
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
        low=ratio * math.exp(-down * widening) - 1,
        high=ratio * math.exp(up * widening) - 1,
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


def _within_gain(one: Deployed, baseline: Deployed, ratio: float, *, n_comparisons: int) -> Gain:
    best, other = one.mean_interval, baseline.mean_interval
    if best is None or other is None:
        return _unbounded_gain(ratio)
    together = CONFIDENCE ** (1 / n_comparisons)
    wide, plain = (float(stats.norm.ppf((1 + each) / 2)) for each in (together, CONFIDENCE))
    return confidence_gain(best, other, widening=wide / plain)


def _with_spread(gain: Gain, allowance: float, *, is_certified: bool) -> Gain:
    """The gain with the spread between deployments in its range, on the log scale."""
    if is_certified and gain.uncertainty is Uncertainty.UNKNOWN:
        return gain
    low = (1 + gain.value) * math.exp(-allowance) - 1
    high = (1 + gain.value) * math.exp(allowance) - 1
    if is_certified:
        low = (1 + gain.low) * math.exp(-allowance) - 1
        high = (1 + gain.high) * math.exp(allowance) - 1
    elif gain.uncertainty is Uncertainty.CONFIDENCE:
        low, high = min(low, gain.low), max(high, gain.high)
    return Gain(value=gain.value, low=low, high=high, uncertainty=Uncertainty.DEPLOYMENTS)


def _unbounded_gain(ratio: float) -> Gain:
    return Gain(value=ratio - 1, low=-1.0, high=math.inf, uncertainty=Uncertainty.UNKNOWN)


def _log_ratio(high: float, low: float) -> float:
    """log(high / low), infinite where an end is not bounded."""
    return math.log(high / low) if low > 0 and math.isfinite(high) else math.inf


def _scaled(gain: Gain, factor: float) -> Gain:
    """The gain when the ratio behind it is multiplied by an exact factor."""
    return replace(
        gain,
        value=(1 + gain.value) * factor - 1,
        low=(1 + gain.low) * factor - 1,
        high=(1 + gain.high) * factor - 1,
    )
