"""The throughput that a service settles at, from its whole load, the warm-up included.

What is left of a warm-up cannot be told from noise by looking at a few recent seconds, and cutting
it away needs more seconds than a trial has. It can be modelled: a batch's time decays to a level.
The module knows completion times. It does not know who loads, or when to stop.

| symbol | meaning | shape |
|---|---|---|
| y | seconds per group of completions, mean over each block of groups | (b,) |
| w | groups of each block over their mean | (b,) |
| t | when blocks begin and end, from the first group on, s | (b,) |
| tau | time after which a transient has fallen to 1/e, s | (k,) |
| f | mean of exp(-t / tau) over each block | (k, b) |
| a, c | level and transient: y = a + c f + noise | (k,) |
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from falcon_ray.space.configuration import FloatArray
from falcon_ray.trial.statistics import Estimate, group_centres_s

MAX_BLOCKS = 48
MIN_BLOCKS = 8
"""A level, a transient and its time are estimated; with fewer blocks noise would be guessed."""
N_TAUS = 16
SHORTEST, LONGEST = 1 / 40, 1.0
"""Range of tau as shares of the load's length; a longer transient cannot be told from a trend."""
TRUNCATIONS = (0.0, 1 / 8, 1 / 4, 1 / 2)
"""Shares of the load to leave out at its beginning: what starts up may take any form."""
MISFIT = 4.0
"""The longest stretch is taken whose noise is at most this many times the least of all."""
TRANSIENT_SD = 1.0
"""Prior of c, as a share of the mean of y: a service begins at about half its speed or faster."""
LEVEL_SHARE = 0.01
"""What is left of a transient where the service counts as level."""
MAX_CORRELATION = 0.7
"""Of the residuals of neighbours; beyond it the correction would rest on too few blocks."""


@dataclass(frozen=True, slots=True)
class Settled:
    """Where a service settles.

    Attributes:
        rate: Requests per second once it has.
        unsettled: By which share of it the seconds of a batch still differ at the load's end;
            positive where the service is slower than it will be.
        level_from_s: From when on, on the clock of the completions, that share is within
            `LEVEL_SHARE`; infinite where it never is.
    """

    rate: Estimate
    unsettled: float
    level_from_s: float


def settle(done_s: FloatArray, *, granularity: int, confidence: float = 0.95) -> Settled | None:
    """Fit a level and an exponential transient to the time that groups of completions take.

    The time constant is averaged out over a grid and over "no transient at all", weighted by
    marginal likelihood (Bayesian model averaging; Hoeting et al., 1999, eqs. 1-5): while a
    transient cannot be told from noise, the interval is as wide as that doubt. Its variance
    grows with the residuals' lag-1 correlation r as an autoregressive process's, by
    (1 + r) / (1 - r), and its ends by what is left of the transient.

    Args:
        done_s: When requests were done that succeeded, from the load's start on, shape (n,), any
            order.
        granularity: Completions of one whole round: the batch size times the replicas.
        confidence: Probability that the interval covers the level, in (0, 1).

    Returns:
        None where there are fewer than nine whole groups, or the level cannot be told yet.

    Raises:
        ValueError: `granularity` is below 1.
    """
    centres = group_centres_s(done_s, granularity)
    parts = [_blocks(centres[round(share * centres.size) :]) for share in TRUNCATIONS]
    known = [part for part in parts if part is not None]
    if not known:
        return None
    least = min(part.group_variance for part in known)
    chosen = next(part for part in known if part.group_variance <= MISFIT * least)
    return _settle(chosen, granularity, confidence)


@dataclass(frozen=True, slots=True, eq=False)
class _Blocks:
    """A stretch of load in blocks, in the notation of the module.

    Attributes:
        variance: Of one block's y around the best fit, correlation included.
        group_variance: Of one group's seconds, without correlation.
        begin_s: When blocks begin, on the clock of the completions, shape (b,).
        left: What is left of each transient then and at the end, shape (k + 1, b + 1).
    """

    f: FloatArray
    y: FloatArray
    w: FloatArray
    variance: float
    group_variance: float
    begin_s: FloatArray
    left: FloatArray


def _blocks(centres: FloatArray) -> _Blocks | None:
    n_blocks = min(MAX_BLOCKS, centres.size - 1)
    if n_blocks < MIN_BLOCKS or centres[-1] <= centres[0]:
        return None
    edges = np.rint(np.linspace(0, centres.size - 1, n_blocks + 1)).astype(np.intp)
    sizes = np.diff(edges)
    y, w = np.diff(centres[edges]) / sizes, sizes / sizes.mean()
    begin_s, end_s = (centres[each] - centres[0] for each in (edges[:-1], edges[1:]))
    tau = np.geomspace(SHORTEST, LONGEST, N_TAUS)[:, None] * end_s[-1]
    decay = tau * (np.exp(-begin_s / tau) - np.exp(-end_s / tau))
    f = np.vstack([np.zeros(n_blocks), decay / np.maximum(end_s - begin_s, 1e-12)])
    variance, inflation = _noise(f, y, w)
    left = np.vstack([np.zeros(n_blocks + 1), np.exp(-np.append(begin_s, end_s[-1]) / tau)])
    return _Blocks(
        f,
        y,
        w,
        variance=variance * inflation,
        group_variance=variance * float(sizes.mean()),
        begin_s=centres[edges[:-1]],
        left=left,
    )


def _settle(blocks: _Blocks, granularity: int, confidence: float) -> Settled | None:
    y, w = blocks.y, blocks.w
    mean = float(w @ y / w.sum())
    if blocks.variance <= 1e-18 * mean**2:
        rate = granularity / float(y[-1])
        return Settled(Estimate(rate, rate, rate), 0.0, float(blocks.begin_s[0]))
    levels, level_sd, transient, log_evidence = _fit(
        blocks.f, y, w, variance=blocks.variance, prior_sd=TRANSIENT_SD * mean
    )
    weight = np.exp(log_evidence - log_evidence.max())
    weight[1:] /= N_TAUS  # a priori a transient is as likely as none
    weight /= weight.sum()
    a = float(weight @ levels)
    if a <= 0:
        return None
    sd = math.sqrt(float(weight @ (level_sd**2 + (levels - a) ** 2)))
    shares = (weight * transient) @ blocks.left / a
    unsettled = float(shares[-1])
    level = np.flatnonzero(np.abs(shares[:-1]) <= LEVEL_SHARE)
    # That it decays exponentially is an assumption: what is left of it is doubted as a whole.
    half = float(stats.t.ppf((1 + confidence) / 2, y.size - 3)) * sd + abs(unsettled) * a
    return Settled(
        Estimate(
            granularity / a,
            granularity / (a + half),
            granularity / (a - half) if half < a else math.inf,
        ),
        unsettled,
        level_from_s=float(blocks.begin_s[level[0]]) if level.size else math.inf,
    )


def _noise(f: FloatArray, y: FloatArray, w: FloatArray) -> tuple[float, float]:
    """Variance of a block's y around the best least-squares fit; its factor for correlation."""
    n = y.size
    f_centred = f - (f @ w / w.sum())[:, None]
    y_centred = y - float(w @ y / w.sum())
    spread = (f_centred**2) @ w
    slope = np.divide(f_centred @ (w * y_centred), spread, out=np.zeros(len(f)), where=spread > 0)
    residuals = y_centred - slope[:, None] * f_centred
    squares = (residuals**2) @ w
    best = int(np.argmin(squares))
    total = float(squares[best])
    if total == 0:
        return 0.0, 1.0
    weighted = residuals[best] * np.sqrt(w)
    # Residuals correlate negatively where the noise does not: three parameters were fitted.
    lag_1 = float(weighted[:-1] @ weighted[1:]) / total + 1.5 / n
    correlation = min(max(lag_1, 0.0), MAX_CORRELATION)
    return total / (n - 3), (1 + correlation) / (1 - correlation)


def _fit(
    f: FloatArray, y: FloatArray, w: FloatArray, *, variance: float, prior_sd: float
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Posterior of a and c for each row of f: a's mean and sd, c's mean, log evidence, (k + 1,).

    Flat prior on a, normal prior on c (Bishop, 2006, eqs. 3.50, 3.51 and 3.86 up to a constant).
    """
    saa, sac, scc = w.sum() / variance, f @ w / variance, (f**2) @ w / variance + prior_sd**-2
    ya, yc = float(w @ y) / variance, f @ (w * y) / variance
    determinant = saa * scc - sac**2
    a = (scc * ya - sac * yc) / determinant
    c = (saa * yc - sac * ya) / determinant
    residuals = y - a[:, None] - c[:, None] * f
    misfit = (residuals**2) @ w / variance + (c / prior_sd) ** 2
    log_evidence = -0.5 * (misfit + np.log(determinant)) - math.log(prior_sd)
    return a, np.sqrt(scc / determinant), c, log_evidence
