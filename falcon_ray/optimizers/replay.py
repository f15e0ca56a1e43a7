"""Searches on recorded tables: every trial is looked up instead of deployed.

A replay runs any optimizer on any task and keeps what it tried. It knows no prior, no table
format and no opponent by name.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from falcon_ray.errors import InputError
from falcon_ray.knowledge.mixture import ExpertMixture
from falcon_ray.optimizers.optimizer import Optimizer
from falcon_ray.space.configuration import ConfigurationSpace, FloatArray
from falcon_ray.space.objective import SearchObjective
from falcon_ray.space.observation import Measurement, Observation, TrialStatus

Tried: TypeAlias = NDArray[np.intp]
"""Candidates in the order in which their trials ended, shape (t,)."""

_NOISY_TOGETHER = (
    ("saturation_rps", "saturation_rps_ci_low", "saturation_rps_ci_high"),
    ("capacity_rps",),
    ("model_rps",),
    ("service_time_ms",),
    ("floor_latency_ms",),
    ("latency_p50_ms", "latency_p90_ms", "latency_p95_ms", "latency_p99_ms", "latency_p999_ms"),
    ("memory_gib",),
)
# Metrics that share their noise: an interval holds its estimate, and percentiles stay in order.


@dataclass(frozen=True, kw_only=True, eq=False)
class ReplayTask:
    """One search whose every trial is already recorded.

    Attributes:
        name: Of the task.
        model: What is served; tasks of one model share rows, so intervals resample models.
        family: What is held out together: no prior of this task has seen any of it.
        space: The n candidates.
        objective: What counts as better.
        usd_per_hour: Price of each candidate, shape (n,).
        observations: How the trial of each candidate ends, length n, in the order of
            `space.candidates`.
        prior: What is expected without the family; None where nothing is.

    Raises:
        InputError: The lengths differ, or no candidate is feasible.
    """

    name: str
    model: str
    family: str
    space: ConfigurationSpace
    objective: SearchObjective
    usd_per_hour: FloatArray
    observations: tuple[Observation, ...]
    prior: ExpertMixture | None = None

    def __post_init__(self) -> None:
        n = len(self.space)
        if not n == len(self.observations) == len(self.usd_per_hour):
            raise InputError(
                f"{self.name}: {n} candidates need as many observations and prices, got "
                f"{len(self.observations)} and {len(self.usd_per_hour)}"
            )
        if self.prior is not None and self.prior.n != n:
            raise InputError(f"{self.name}: the prior speaks of {self.prior.n} candidates, not {n}")
        if not self.scores.max() > 0:
            raise InputError(f"{self.name}: no candidate is feasible; leave the task out")

    @cached_property
    def scores(self) -> FloatArray:
        """Score of every candidate, 0 where it is infeasible or misses a limit, shape (n,)."""
        found: list[float] = []
        for observation, price in zip(self.observations, self.usd_per_hour, strict=True):
            score = None
            if observation.measurement is not None:
                score = self.objective.score_measurement(
                    observation.measurement, usd_per_hour=float(price)
                )
            found.append(score or 0.0)
        return np.array(found)


def replay(
    task: ReplayTask,
    optimizer: Optimizer,
    *,
    budget: int,
    batch_size: int = 1,
    noise_sd: float = 0.0,
    rng: np.random.Generator | None = None,
    stop: Callable[[list[int]], bool] | None = None,
) -> Tried:
    """Let an optimizer search a recorded task.

    Args:
        task: Where to search.
        optimizer: New; it has observed nothing.
        budget: Trials at most.
        batch_size: Trials that run at a time: so many suggestions are made before the first of
            them is observed.
        noise_sd: Relative sd of noise that is laid over every metric of an observation, log-normal,
            one draw per metric and trial; a rate that was not certified stays so.
        rng: Draws the noise.
        stop: Told the candidates tried so far after every batch; true ends the search.

    Returns:
        The candidates tried, in order, shape (t,), t <= budget.

    Raises:
        InputError: A number is out of range, noise has no rng, or the optimizer suggests what is
            no candidate or was tried before.
    """
    if budget < 1 or batch_size < 1:
        raise InputError(f"budget and batch_size must be 1 or more, got {budget} and {batch_size}")
    if not 0 <= noise_sd < np.inf:
        raise InputError(f"noise_sd must be finite and not negative, got {noise_sd!r}")
    if noise_sd > 0 and rng is None:
        raise InputError("noise needs an rng to draw it")
    tried: list[int] = []
    while len(tried) < budget:
        batch = _suggested(task, optimizer, tried, at_most=min(batch_size, budget - len(tried)))
        if not batch:
            break
        for index in batch:
            observation = task.observations[index]
            if noise_sd > 0 and rng is not None:
                observation = noisy(observation, noise_sd=noise_sd, rng=rng)
            optimizer.observe(observation)
        tried += batch
        if stop is not None and stop(tried):
            break
    return np.array(tried, dtype=np.intp)


def noisy(observation: Observation, *, noise_sd: float, rng: np.random.Generator) -> Observation:
    """An observation whose metrics are multiplied by log-normal noise of median 1.

    Shares and counts, such as `error_rate`, stay as they are.
    """
    measurement = observation.measurement
    if measurement is None:
        return observation
    changed: dict[str, float] = {}
    for names in _NOISY_TOGETHER:
        factor = _factor(noise_sd, rng)
        for name in names:
            value = measurement.metric(name)
            if value is not None:
                changed[name] = value * factor
    extra = {
        name: value * _factor(noise_sd, rng) if value > 0 else value
        for name, value in measurement.extra.items()
    }
    shown: Measurement = replace(measurement, **changed, extra=extra)
    return replace(observation, measurement=shown)


def _factor(noise_sd: float, rng: np.random.Generator) -> float:
    """Log-normal with median 1, whose log has the variance ln(1 + noise_sd^2)."""
    return float(np.exp(np.sqrt(np.log1p(noise_sd**2)) * rng.standard_normal()))


def _suggested(
    task: ReplayTask, optimizer: Optimizer, tried: list[int], *, at_most: int
) -> list[int]:
    """Up to so many suggestions in a row, by position; fewer where no candidate is left."""
    batch: list[int] = []
    while len(batch) < at_most:
        suggestion = optimizer.suggest()
        if suggestion is None:
            break
        index = task.space.position(suggestion.configuration)
        if index is None:
            raise InputError(
                f"{task.name}: {suggestion.configuration} was suggested, which is no candidate"
            )
        again = index in batch or (
            index in tried and task.observations[index].status is not TrialStatus.FAILED
        )
        if again:
            raise InputError(f"{task.name}: {suggestion.configuration} was suggested twice")
        batch.append(index)
    return batch
