"""A search over candidates whose only choice is which of them to try next.

Every opponent is a `Chooser` inside one `PoolSearch`: the books, the log scores and the protocol
are the same for all, so that differences between them come from their choices. It knows scores,
not metrics: an opponent sees what a user would hand it, one number per trial.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from falcon_ray.optimizers.history import History, IndexArray, MaskArray
from falcon_ray.optimizers.optimizer import Suggestion
from falcon_ray.optimizers.readiness import Readiness
from falcon_ray.space.configuration import Configuration, ConfigurationSpace, FloatArray
from falcon_ray.space.objective import SearchObjective
from falcon_ray.space.observation import Observation, TrialStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Trials:
    """What a chooser may look at: k trials that ended, p that still run, m that are left.

    Attributes:
        tried: Candidates of the trials that ended, in order, shape (k,).
        log_scores: Natural logs of their scores, NaN where a trial ran out of memory or missed a
            limit, shape (k,).
        pending: Candidates of the trials that still run, shape (p,).
        available: Candidates that may be chosen, shape (m,), m >= 1.
    """

    tried: IndexArray
    log_scores: FloatArray
    pending: IndexArray
    available: IndexArray

    @property
    def feasible(self) -> MaskArray:
        """Which trials have a score, shape (k,)."""
        return np.isfinite(self.log_scores)

    @property
    def penalised(self) -> FloatArray:
        """Log scores with the worst score so far where there is none, shape (k,).

        Zeros where no trial has a score yet.
        """
        feasible = self.feasible
        worst = self.log_scores[feasible].min() if feasible.any() else 0.0
        return np.where(feasible, self.log_scores, worst)


class Chooser(Protocol):
    """Chooses the next candidate."""

    def __call__(self, trials: Trials, rng: np.random.Generator) -> tuple[int, str]:
        """One of `trials.available`, and why in one line."""
        ...


class PoolSearch:
    """Suggests what a chooser chooses; an `Optimizer`.

    Args:
        space: The n candidates.
        objective: Turns measurements into scores.
        usd_per_hour: Price of each candidate, shape (n,).
        seed: Not negative; equal seeds and observations give equal suggestions.
        chooser: Chooses among the candidates that are left.
    """

    def __init__(
        self,
        space: ConfigurationSpace,
        objective: SearchObjective,
        usd_per_hour: FloatArray,
        *,
        seed: int,
        chooser: Chooser,
    ) -> None:
        self._history = History(space, objective, usd_per_hour)
        self._seed = seed
        self._chooser = chooser
        self._scored: list[tuple[int, float]] = []

    def suggest(self, readiness: Readiness | None = None) -> Suggestion | None:
        """What the chooser chooses; None when every candidate was suggested or observed.

        Among those that can be had; an opponent does not prefer what is ready.
        """
        history = self._history
        if history.exhausted:
            return None
        trials = Trials(
            tried=np.array([index for index, _ in self._scored], dtype=np.intp),
            log_scores=np.array([score for _, score in self._scored], dtype=np.float64),
            pending=history.pending,
            available=np.flatnonzero(history.open_to(readiness)),
        )
        index, why = self._chooser(trials, history.rng(self._seed))
        history.expect(index)
        return Suggestion(configuration=history.space.candidate(index), why=why)

    def observe(self, observation: Observation) -> None:
        """Take note of a score, or that there is none; a FAILED trial teaches nothing."""
        self._history.observe(observation)
        index = self._history.space.position(observation.configuration)
        if observation.status is TrialStatus.FAILED or index is None:
            return
        score = None
        if observation.measurement is not None:
            score = self._history.objective.score_measurement(
                observation.measurement, usd_per_hour=float(self._history.usd_per_hour[index])
            )
        self._scored.append((index, float("nan") if score is None else float(np.log(score))))

    def withdraw(self, configuration: Configuration) -> None:
        """Take a suggestion back whose trial never began."""
        self._history.withdraw(configuration)

    def recommend(self) -> Observation | None:
        """The best raw measurement that is feasible; None when there is none."""
        best = self._history.best()
        return None if best is None else best[0]

    @property
    def exhausted(self) -> bool:
        """Whether every candidate was suggested or observed."""
        return self._history.exhausted
