"""What many runs say together, with intervals that resample models.

A miss counts as one more than the budget in the mean and as 99 in quantiles. Tasks of one model
share rows, so a resample draws models, and with few of them the intervals are wide. It knows the
columns of `compare`.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from falcon_ray.errors import InputError
from falcon_ray.space.configuration import FloatArray

MISS = 99
N_RESAMPLES = 1000
EARLY = 6
"""What a search is promised to need."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number and its 95 % interval under resampled models."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodSummary:
    """How one method did, each task counting the same.

    Attributes:
        method: Its name.
        n_runs: Tasks times seeds.
        mean: Trials to within 5 %.
        median: Likewise.
        p90: Likewise.
        within_6: Share of runs that needed six trials or fewer.
        mean_to_10: Trials to within 10 %, on average.
        first_regret: Mean regret after the first trial.
        wasted: Median of the trials without a score before the first with one.
        suggestion_ms: Median over runs.
    """

    method: str
    n_runs: int
    mean: Estimate
    median: Estimate
    p90: Estimate
    within_6: Estimate
    mean_to_10: Estimate
    first_regret: Estimate
    wasted: Estimate
    suggestion_ms: float


def summarise(runs: pd.DataFrame, *, budget: int, seed: int = 0) -> list[MethodSummary]:
    """Summarise every method, in the order in which they first occur.

    Args:
        runs: From `compare`.
        budget: Of these runs.
        seed: Of the resampling.
    """
    models = sorted(runs["model"].unique())
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(models), np.full(len(models), 1 / len(models)), N_RESAMPLES)
    return [
        _summary(str(name), own, counts[:, np.searchsorted(models, own["model"])], budget)
        for name, own in runs.groupby("method", sort=False)
    ]


def saved_trials(
    runs: pd.DataFrame, method: str, opponent: str, *, budget: int, seed: int = 0
) -> Estimate:
    """Share of an opponent's trials that a method does without: 1 - mean / opponent's mean.

    Trials to within 5 %, averaged over seeds and tasks; 0.8 means a fifth of the trials.

    Raises:
        InputError: A method has no runs.
    """
    trials = runs["trials_to_5"].fillna(budget + 1)
    table = trials.groupby([runs["task"], runs["method"]]).mean().unstack("method")
    missing = [name for name in (method, opponent) if name not in table.columns]
    if missing:
        raise InputError(f"there are no runs of {missing[0]}")
    both = table[[method, opponent]].dropna()
    model = runs.groupby("task")["model"].first().loc[both.index]
    models = sorted(model.unique())
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(models), np.full(len(models), 1 / len(models)), N_RESAMPLES)
    weights = counts[:, np.searchsorted(models, model)]
    own, other = (both[name].to_numpy(dtype=np.float64) for name in (method, opponent))
    drawn = weights.sum(axis=1) > 0
    resampled = 1 - (weights[drawn] @ own) / (weights[drawn] @ other)
    return _estimate(1 - float(own.mean() / other.mean()), resampled)


def _summary(
    method: str, own: pd.DataFrame, weights: NDArray[np.int64], budget: int
) -> MethodSummary:
    to_5 = own["trials_to_5"]
    in_quantiles = to_5.fillna(MISS).to_numpy(dtype=np.float64)
    return MethodSummary(
        method=method,
        n_runs=len(own),
        mean=_mean(to_5.fillna(budget + 1).to_numpy(dtype=np.float64), weights),
        median=_quantile(in_quantiles, weights, 0.5),
        p90=_quantile(in_quantiles, weights, 0.9),
        within_6=_mean((in_quantiles <= EARLY).astype(np.float64), weights),
        mean_to_10=_mean(
            own["trials_to_10"].fillna(budget + 1).to_numpy(dtype=np.float64), weights
        ),
        first_regret=_mean(own["regret_1"].to_numpy(dtype=np.float64), weights),
        wasted=_quantile(own["n_wasted"].to_numpy(dtype=np.float64), weights, 0.5),
        suggestion_ms=float(own["suggestion_ms"].median()),
    )


def _mean(values: FloatArray, weights: NDArray[np.int64]) -> Estimate:
    """A mean of values, shape (k,), and of resamples, shape (b, k)."""
    drawn = weights.sum(axis=1) > 0
    resampled = (weights[drawn] @ values) / weights[drawn].sum(axis=1)
    return _estimate(float(values.mean()), resampled)


def _quantile(values: FloatArray, weights: NDArray[np.int64], level: float) -> Estimate:
    """A quantile of values, shape (k,), between the two nearest, and of resamples of them."""
    order = values.argsort(kind="stable")
    reached = weights[:, order].cumsum(axis=1)
    drawn = reached[:, -1] > 0
    low, high = (
        _at_rank(values[order], reached[drawn], level, edge) for edge in (np.floor, np.ceil)
    )
    position = level * (reached[drawn][:, -1] - 1)
    resampled = low + (position - np.floor(position)) * (high - low)
    return _estimate(float(np.quantile(values, level)), resampled)


def _at_rank(
    ordered: FloatArray, reached: NDArray[np.int64], level: float, edge: np.ufunc
) -> FloatArray:
    """The value at one of the two ranks around a quantile, of each resample, shape (b,)."""
    rank = edge(level * (reached[:, -1] - 1))
    return ordered[(reached <= rank[:, np.newaxis]).sum(axis=1)]


def _estimate(value: float, resampled: FloatArray) -> Estimate:
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Estimate(value=value, low=float(low), high=float(high))
