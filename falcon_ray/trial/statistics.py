"""What a sample of requests says about the service, and how sure it is.

Everything here is a pure function of arrays. It does not know who sent the requests, when to
stop measuring, or what a configuration is.

Two facts shape it. A batch completes at once, so completions come in clumps; and a latency
limit is certified by counting the requests over it, not by comparing a percentile's estimate.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from scipy import stats

from falcon_ray.space.configuration import FloatArray
from falcon_ray.trial.requests import BoolArray

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
MAX_BLOCKS = 16
"""More blocks narrow Student's t hardly at all and are correlated more."""
MIN_BLOCKS = 4
"""With fewer, the interval is so wide that it says nothing."""
MAX_CORRELATION = 0.7
"""Beyond it the correction for correlation is larger than 16 blocks can support."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its confidence interval, all in one unit; `ci_high` may be infinite."""

    mean: float
    ci_low: float
    ci_high: float

    def __post_init__(self) -> None:
        if not 0 <= self.ci_low <= self.mean <= self.ci_high:
            raise ValueError(
                f"an estimate needs 0 <= ci_low <= mean <= ci_high, got {self.ci_low!r}, "
                f"{self.mean!r}, {self.ci_high!r}"
            )

    @property
    def relative_half_width(self) -> float:
        """Half the interval's length as a share of the mean; infinite where the mean is 0."""
        return (self.ci_high - self.ci_low) / (2 * self.mean) if self.mean > 0 else math.inf


class SloVerdict(Enum):
    """What a sample says about a latency limit."""

    MET = "met"
    """The share of requests over the limit is low enough, at the confidence asked for."""
    VIOLATED = "violated"
    """It is too high, at the same confidence."""
    UNDECIDED = "undecided"
    """Too few requests, or too near the limit, to say either: not certified."""


def group_centres_s(done_s: FloatArray, granularity: int) -> FloatArray:
    """Mean completion time of each group of `granularity` consecutive completions.

    A centre follows the service's mean progress wherever the groups' boundaries fall within
    the clumps, so full, partial and interleaved batches all give nearly unbiased rates.

    Args:
        done_s: Completion times, shape (n,), any order.
        granularity: Completions that make one whole round: the batch size times the replicas.

    Returns:
        Shape (n // granularity,), ascending; an incomplete last group is left out.

    Raises:
        ValueError: `granularity` is below 1.
    """
    if granularity < 1:
        raise ValueError(f"granularity must be at least 1, got {granularity!r}")
    n_groups = done_s.size // granularity
    whole = np.sort(done_s)[: n_groups * granularity]
    return whole.reshape(n_groups, granularity).mean(axis=1)


def throughput(
    done_s: FloatArray, *, granularity: int, confidence: float = 0.95
) -> Estimate | None:
    """Completions per second, with a confidence interval that holds for short, clumped samples.

    The rate is whole groups over the time between the centres of the first and the last: no
    window's edge cuts a batch. The interval comes from batch means (Law, Simulation Modeling
    and Analysis, 2015, sec. 9.5.3) over at most 16 blocks of whole groups, and widens with the
    lag-1 correlation r between blocks by sqrt((1 + r) / (1 - r)), the autoregressive
    correction of Skart (Tafazzoli et al., 2011). An interval for the time that the groups
    took becomes one for the rate by inversion.

    Args:
        done_s: Completion times of the requests that succeeded, shape (n,), any order.
        granularity: Completions of one whole round: the batch size times the replicas. Too
            small a value overstates the rate by up to one round over the whole sample.
        confidence: Probability that the interval covers the true rate, in (0, 1).

    Returns:
        Requests per second, or None where there are fewer than five whole groups.

    Raises:
        ValueError: `granularity` or `confidence` is out of range.
    """
    _check_confidence(confidence)
    centres = group_centres_s(done_s, granularity)
    n_steps = centres.size - 1
    if n_steps < MIN_BLOCKS or centres[-1] <= centres[0]:
        return None
    total_s = float(centres[-1] - centres[0])
    n_blocks = min(MAX_BLOCKS, n_steps)
    edges = np.rint(np.linspace(0, n_steps, n_blocks + 1)).astype(np.intp)
    residuals = np.diff(centres[edges]) - np.diff(edges) * (total_s / n_steps)
    squares = float(residuals @ residuals)
    error_s = math.sqrt(squares * n_blocks / (n_blocks - 1))
    if squares > 0:
        # Residuals around their own mean correlate by -1 / n_blocks where blocks do not at all.
        lag_1 = float(residuals[:-1] @ residuals[1:]) / squares + 1 / n_blocks
        correlation = min(max(lag_1, 0.0), MAX_CORRELATION)
        error_s *= math.sqrt((1 + correlation) / (1 - correlation))
    half_s = float(stats.t.ppf((1 + confidence) / 2, n_blocks - 1)) * error_s
    done = n_steps * granularity
    return Estimate(
        mean=done / total_s,
        ci_low=done / (total_s + half_s),
        ci_high=done / (total_s - half_s) if total_s > half_s else math.inf,
    )


def percentiles_ms(
    latency_ms: FloatArray, percentiles: Sequence[float] = PERCENTILES
) -> tuple[float, ...]:
    """Nearest-rank percentiles: each is a latency that was measured, never an interpolation.

    Args:
        latency_ms: Pooled latencies, shape (n,), n at least 1; infinite ones are allowed and
            stand for requests without an answer.
        percentiles: Each in (0, 100].

    Returns:
        For each percentile p, the smallest latency that at least p % of all do not exceed.

    Raises:
        ValueError: There are no latencies, or a percentile is out of range.
    """
    if latency_ms.size == 0:
        raise ValueError("percentiles need at least one latency; measure for longer")
    if not all(0 < each <= 100 for each in percentiles):
        raise ValueError(f"percentiles must lie in (0, 100], got {tuple(percentiles)!r}")
    ordered = np.sort(latency_ms)
    # Dividing last keeps 99.9 % of 1000 at 999; np.percentile divides first and lands above it.
    ranks = [math.ceil(each * ordered.size / 100) for each in percentiles]
    return tuple(float(ordered[max(rank, 1) - 1]) for rank in ranks)


def share_verdict(over: float, n: float, allowed: float, confidence: float = 0.95) -> SloVerdict:
    """Whether `over` of `n` shows that the true share is within what is allowed, or above it.

    The bounds are one-sided and exact for independent requests (Clopper and Pearson, 1934).

    Args:
        over: Requests over the limit; a fraction where correlated ones count for less.
        n: All requests, likewise.
        allowed: Share that may be over the limit.
        confidence: Of the verdicts MET and VIOLATED, in (0, 1).
    """
    if over < n and stats.beta.ppf(confidence, over + 1, n - over) <= allowed:
        return SloVerdict.MET
    if share_exceeds(over, n, allowed, confidence):
        return SloVerdict.VIOLATED
    return SloVerdict.UNDECIDED


def share_exceeds(count: float, n: float, limit: float, confidence: float = 0.95) -> bool:
    """Whether `count` of `n` shows that the true share is above a limit, not only this sample.

    By the exact one-sided lower bound of a binomial share (Clopper and Pearson, 1934).
    """
    return count > 0 and bool(stats.beta.ppf(1 - confidence, count, n - count + 1) > limit)


def requests_to_certify(percentile: float, confidence: float = 0.95) -> int:
    """Fewest requests, none of them over the limit, that certify a percentile.

    The smallest n with (percentile / 100) ** n <= 1 - confidence.

    Raises:
        ValueError: `percentile` lies outside (0, 100) or `confidence` outside (0, 1).
    """
    _check_confidence(confidence)
    if not 0 < percentile < 100:
        raise ValueError(f"percentile must lie between 0 and 100, got {percentile!r}")
    return math.ceil(math.log(1 - confidence) / math.log(percentile / 100))


def trend_is_significant(values: FloatArray, significance: float = 0.05) -> bool:
    """Whether values rise or fall with their order, by Mann's (1945) test, two-sided.

    Args:
        values: In order of time, shape (n,). Fewer than 5 are never significant at 0.05.
        significance: Chance of seeing a trend in independent values without one, in (0, 1).
    """
    if values.size < 2 or np.all(values == values[0]):
        return False
    return bool(stats.kendalltau(np.arange(values.size), values).pvalue < significance)


def design_effect(events: BoolArray, n_blocks: int = 20) -> float:
    """How many correlated requests say as much as one independent request, at least 1.

    Variance of the number of events per block over that of independent ones (Kish, Survey
    Sampling, 1965, sec. 8.2).

    Args:
        events: Whether each request had the event, in order of time, shape (n,).
        n_blocks: Stretches of equal length to compare.
    """
    share = float(np.mean(events)) if events.size else 0.0
    if events.size < 2 * n_blocks or share in (0.0, 1.0):
        return 1.0
    edges = np.rint(np.linspace(0, events.size, n_blocks + 1)).astype(np.intp)
    counts = np.add.reduceat(events.astype(np.float64), edges[:-1])
    expected = events.size / n_blocks * share * (1 - share)
    return max(1.0, float(np.var(counts, ddof=1)) / expected)


def rise_is_significant(values: FloatArray, significance: float = 0.05) -> bool:
    """Whether values rise with their order; arguments as in `trend_is_significant`."""
    if not trend_is_significant(values, significance):
        return False
    return bool(stats.kendalltau(np.arange(values.size), values).statistic > 0)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence!r}")
