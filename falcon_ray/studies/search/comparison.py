"""Lets methods search recorded tasks and keeps, of every run, how soon it got how good.

It knows tasks and makers of optimizers by name. It does not know what a method is, where a task
comes from, or what is made of the runs.
"""

import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits

from falcon_ray.errors import InputError
from falcon_ray.optimizers.optimizer import Optimizer, Suggestion
from falcon_ray.optimizers.readiness import Readiness
from falcon_ray.optimizers.replay import ReplayTask, Tried, replay
from falcon_ray.space.configuration import Configuration, FloatArray
from falcon_ray.space.observation import Observation

Maker: TypeAlias = Callable[[int], Optimizer]
"""Makes a new optimizer from a seed."""

SLACKS = (5, 10)
"""A trial has arrived that is within so many percent of the best feasible score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One way to search.

    Attributes:
        name: In tables.
        prepare: From the task and the tasks of other families, what makes its optimizers: fits to
            other tasks happen once here, not in every search.
        n_seeds: Runs on each task; 1 where nothing is drawn.
        package: What must be installed, or empty.
        learns: Whether it is given the tasks of other families; else it gets none.
    """

    name: str
    prepare: Callable[[ReplayTask, Sequence[ReplayTask]], Maker]
    n_seeds: int = 1
    package: str = ""
    learns: bool = True


def compare(
    methods: Sequence[Method],
    tasks: Sequence[ReplayTask],
    *,
    sources: Sequence[ReplayTask] | None = None,
    budget: int = 30,
    batch_size: int = 1,
    noise_sd: float = 0.0,
    n_jobs: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> pd.DataFrame:
    """Run every method on every task, as often as it has seeds.

    The result is the same for any number of jobs, apart from the seconds.

    Args:
        methods: With different names.
        tasks: With different names.
        sources: Tasks to learn from, of which each task gets those of other families; `tasks`
            where they are left out.
        budget: Trials at most.
        batch_size: Trials that run at a time.
        noise_sd: Relative sd of noise on every metric; the same draws for every method.
        n_jobs: Processes.
        clock: Monotonic seconds.

    Returns:
        One row per run: `task`, `model`, `family`, `method`, `seed`, `n_candidates`,
        `trials_to_5` and `trials_to_10` (NaN where the budget ended before), `regret_1` to
        `regret_BUDGET`, `n_wasted` (trials without a score before the first with one, all where
        none has one), `n_trials` until the best one was tried or the budget was used up, and
        `suggestion_ms` (median of suggestion and observation together).

    Raises:
        InputError: Two methods or two tasks share a name, or there is nothing to compare.
    """
    _check_names("method", [each.name for each in methods])
    _check_names("task", [each.name for each in tasks])
    known = tasks if sources is None else sources
    pieces = (
        (
            method,
            task,
            # They travel to another process with every search, hundreds of tasks at worst.
            [each for each in known if method.learns and each.family != task.family],
        )
        for task in tasks
        for method in methods
    )

    def run(method: Method, task: ReplayTask, others: list[ReplayTask]) -> list[dict[str, Any]]:
        return _runs(
            method,
            task,
            others,
            budget=budget,
            batch_size=batch_size,
            noise_sd=noise_sd,
            clock=clock,
        )

    if n_jobs == 1:
        done: Iterable[list[dict[str, Any]]] = (run(*piece) for piece in pieces)
    else:
        parallel = Parallel(n_jobs=n_jobs, max_nbytes=None, return_as="generator")
        done = cast(
            "Iterator[list[dict[str, Any]]]", parallel(delayed(run)(*piece) for piece in pieces)
        )
    return pd.DataFrame([row for rows in done for row in rows])


def regret_columns(budget: int) -> list[str]:
    """Names of the columns of regret."""
    return [f"regret_{trial}" for trial in range(1, budget + 1)]


def regrets(task: ReplayTask, tried: Tried, *, budget: int) -> FloatArray:
    """What is missing from the best feasible score after each trial, relative to it.

    1 while nothing feasible was tried; after the last trial it stays what it was.

    Returns:
        Shape (budget,).
    """
    best = np.maximum.accumulate(task.scores[tried]) / task.scores.max()
    return 1 - np.concatenate([best, np.full(budget - len(best), best[-1])])


class TimedOptimizer:
    """An `Optimizer` whose seconds are counted, per suggestion.

    Args:
        optimizer: The one that does the work.
        clock: Monotonic seconds.
    """

    def __init__(self, optimizer: Optimizer, clock: Callable[[], float]) -> None:
        self._optimizer = optimizer
        self._clock = clock
        self.seconds: list[float] = []

    def suggest(self, readiness: Readiness | None = None) -> Suggestion | None:
        """See `Optimizer`."""
        start_s = self._clock()
        suggestion = self._optimizer.suggest(readiness)
        self.seconds.append(self._clock() - start_s)
        return suggestion

    def observe(self, observation: Observation) -> None:
        """See `Optimizer`; its seconds count to the last suggestion."""
        start_s = self._clock()
        self._optimizer.observe(observation)
        self.seconds[-1] += self._clock() - start_s

    def withdraw(self, configuration: Configuration) -> None:
        """See `Optimizer`."""
        self._optimizer.withdraw(configuration)

    def recommend(self) -> Observation | None:
        """See `Optimizer`."""
        return self._optimizer.recommend()

    @property
    def exhausted(self) -> bool:
        """See `Optimizer`."""
        return self._optimizer.exhausted


def _runs(
    method: Method,
    task: ReplayTask,
    others: Sequence[ReplayTask],
    *,
    budget: int,
    batch_size: int,
    noise_sd: float,
    clock: Callable[[], float],
) -> list[dict[str, Any]]:
    """All seeds of one method on one task."""
    make = method.prepare(task, others)
    rows: list[dict[str, Any]] = []
    for seed in range(method.n_seeds):
        # Made outside: what it imports must be loaded before threads can be limited. One thread
        # each, because sums over several may differ in their last digit, and so break ties.
        optimizer = TimedOptimizer(make(seed), clock)
        with threadpool_limits(1):
            tried = replay(
                task,
                optimizer,
                budget=budget,
                batch_size=batch_size,
                noise_sd=noise_sd,
                rng=np.random.default_rng([zlib.crc32(task.name.encode()), seed]),
                stop=lambda so_far: bool(task.scores[so_far].max() >= task.scores.max()),
            )
        rows.append(
            {
                "task": task.name,
                "model": task.model,
                "family": task.family,
                "method": method.name,
                "seed": seed,
                "n_candidates": len(task.space),
                **_figures(task, tried, budget=budget),
                "suggestion_ms": 1e3 * float(np.median(optimizer.seconds)),
            }
        )
    return rows


def _figures(task: ReplayTask, tried: Tried, *, budget: int) -> dict[str, float]:
    """What the trials of one run say."""
    course = regrets(task, tried, budget=budget)
    feasible = task.scores[tried] > 0
    arrived: dict[str, float] = {}
    for slack in SLACKS:
        # Not below by rounding: 1 - 0.95 is more than 0.05.
        near = np.flatnonzero(course <= slack / 100 + 1e-12)
        arrived[f"trials_to_{slack}"] = float(near[0]) + 1 if near.size else np.nan
    return {
        **arrived,
        "n_wasted": int(feasible.argmax()) if feasible.any() else len(tried),
        "n_trials": len(tried),
        **dict(zip(regret_columns(budget), course.tolist(), strict=True)),
    }


def _check_names(what: str, names: Sequence[str]) -> None:
    if not names:
        raise InputError(f"there is no {what} to compare")
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise InputError(f"the {what} {min(twice)!r} stands twice; give each its own name")
