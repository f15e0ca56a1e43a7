"""How far several means lie from one control's by chance: Dunnett's simultaneous intervals.

Samples are plain numbers with one variance in common. The module does not know what they are.

    k, n_i, n_0   comparisons, size of sample i, size of the control's
    df            degrees of freedom of the pooled variance, sum of all sizes minus k + 1
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import optimize, stats

_SEED = 0
"""The integral below is taken at random points; the same ones make every report the same."""


def pooled_deviation(samples: Sequence[Sequence[float]]) -> tuple[float, int]:
    """Standard deviation within samples that share one, and its degrees of freedom.

    Returns:
        Zero and zero where no sample has two values.
    """
    df = sum(len(each) - 1 for each in samples)
    if df == 0:
        return 0.0, 0
    squares = sum(float(np.var(each)) * len(each) for each in samples)
    return math.sqrt(squares / df), df


def critical_value(
    n_samples: Sequence[int], n_control: int, *, df: int, confidence: float = 0.95
) -> float:
    """How many standard errors every comparison stays within, with that probability at once.

    Dunnett (1955), Journal of the American Statistical Association 50, 1096-1121: the
    comparisons have a k-variate t distribution in which two correlate by
    1 / sqrt((n_0 / n_i + 1) (n_0 / n_j + 1)). The value lies between Student's for one
    comparison and Bonferroni's for all of them. `scipy.stats.dunnett` minimises a noisy
    function for it, and for some sizes ends at 5.4 % instead of 5 %; the root of the same
    integral, always taken at the same points, has no such error.

    Args:
        n_samples: Size of each sample that is compared, each at least 1.
        n_control: Size of the control, at least 1.
        df: Of the variance, at least 1.
        confidence: That no interval misses, in (0, 1).
    """
    k = len(n_samples)
    alone = float(stats.t.ppf((1 + confidence) / 2, df))
    if k == 1:
        return alone
    root = 1 / np.sqrt(n_control / np.array(n_samples) + 1)
    correlation = np.outer(root, root)
    np.fill_diagonal(correlation, 1.0)

    def excess(value: float) -> float:
        inside = stats.multivariate_t.cdf(
            np.full(k, value),
            shape=correlation,
            df=df,
            lower_limit=np.full(k, -value),
            random_state=np.random.default_rng(_SEED),
        )
        return float(inside) - confidence

    # A little wider than Bonferroni's, which nearly independent comparisons come close to.
    bonferroni = 1.05 * float(stats.t.ppf(1 - (1 - confidence) / (2 * k), df))
    return float(optimize.brentq(excess, alone, bonferroni, xtol=1e-4))


def allowances(
    samples: Sequence[Sequence[float]], control: Sequence[float], *, confidence: float = 0.95
) -> tuple[float, ...] | None:
    """Half the width of each simultaneous interval for a difference of means to the control's.

    Returns:
        One for each sample; None where no sample has two values, so that nothing is known of
        the variance.
    """
    deviation, df = pooled_deviation((*samples, control))
    if df == 0:
        return None
    n_samples = [len(each) for each in samples]
    value = critical_value(n_samples, len(control), df=df, confidence=confidence)
    return tuple(value * deviation * math.sqrt(1 / n + 1 / len(control)) for n in n_samples)
