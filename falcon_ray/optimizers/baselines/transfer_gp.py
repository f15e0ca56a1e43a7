"""One Gaussian process over other models' scores and the own ones together.

The sources' log scores are relative to their own best; the own ones are shifted to what the
sources lead to expect of the same candidates, for how good a model is at all no source knows.
Whose a score is is one more coordinate, so that own scores count more near themselves.
"""

from collections.abc import Sequence

import numpy as np

from falcon_ray.optimizers.acquisition import expected_improvement
from falcon_ray.optimizers.baselines.likelihood_gp import (
    LikelihoodGp,
    fit_gp,
    probability_of_feasibility,
    refit_gp,
)
from falcon_ray.optimizers.baselines.pool_search import PoolSearch, Trials
from falcon_ray.optimizers.baselines.source_scores import Transfer, transfer
from falcon_ray.optimizers.history import IndexArray
from falcon_ray.optimizers.replay import ReplayTask
from falcon_ray.space.configuration import ConfigurationSpace, FloatArray
from falcon_ray.space.objective import SearchObjective

MAX_CONFIGURATIONS = 400
"""Of all sources together, as many of each."""
MAX_TO_FIT = 200
"""Hyperparameters are fitted to so many of them."""
OWN_DISTANCE = 0.3
"""How far apart the own and another model's score of one configuration are."""


class TransferGp:
    """Expected improvement under a process over all scores; a `Chooser`.

    Args:
        known: The space and its sources.
        seed: For which rows hyperparameters are fitted to, and the fit.
    """

    def __init__(self, known: Transfer, *, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._x = np.column_stack([known.x, np.full(len(known.x), OWN_DISTANCE)])
        rows = np.concatenate([each.x for each in known.sources])
        scores = np.concatenate([each.log_scores for each in known.sources])
        self._source_x = np.column_stack([rows, np.zeros(len(rows))])
        self._source_feasible = np.isfinite(scores)
        self._source_scores = scores[self._source_feasible]
        scored_x = self._source_x[self._source_feasible]
        drawn = rng.permutation(len(scored_x))[:MAX_TO_FIT]
        fitted = fit_gp(scored_x[drawn], self._source_scores[drawn], rng=rng)
        self._scored_x = scored_x
        self._sources_only = refit_gp(fitted, scored_x, self._source_scores)
        self._fits = self._fit_verdicts(rng)

    def __call__(self, trials: Trials, rng: np.random.Generator) -> tuple[int, str]:
        """See `Chooser`."""
        feasible = trials.feasible
        own = trials.tried[feasible]
        gp, shifted = self._sources_only, np.zeros(0)
        if own.size:
            expected, _ = gp.predict(self._x[own])
            shift = float(np.mean(expected - trials.log_scores[feasible]))
            shifted = trials.log_scores[feasible] + shift
            gp = self._with(own, shifted)
        if trials.pending.size:
            believed, _ = gp.predict(self._x[trials.pending])
            gp = self._with(
                np.concatenate([own, trials.pending]), np.concatenate([shifted, believed])
            )
        mean, sd = gp.predict(self._x[trials.available])
        fits = self._probability(trials, rng)
        if shifted.size == 0:
            chosen = int((fits * np.exp(mean)).argmax())
            return int(trials.available[chosen]), "expected to be best from other models' scores"
        chosen = int((fits * expected_improvement(mean, sd, float(shifted.max()))).argmax())
        return int(trials.available[chosen]), "highest expected improvement, other models known"

    def _with(self, own: IndexArray, shifted: FloatArray) -> LikelihoodGp:
        """The process of all sources with scores of own candidates."""
        return refit_gp(
            self._sources_only,
            np.concatenate([self._scored_x, self._x[own]]),
            np.concatenate([self._source_scores, shifted]),
        )

    def _fit_verdicts(self, rng: np.random.Generator) -> LikelihoodGp | None:
        """A process on the sources' labels; None where all of them have a score."""
        if self._source_feasible.all():
            return None
        drawn = rng.permutation(len(self._source_x))[:MAX_TO_FIT]
        labels = self._source_feasible.astype(np.float64)
        return fit_gp(self._source_x[drawn], labels[drawn], rng=rng)

    def _probability(self, trials: Trials, rng: np.random.Generator) -> FloatArray:
        """How likely every available candidate is to have a score, shape (m,)."""
        at = self._x[trials.available]
        if self._fits is None:
            return probability_of_feasibility(self._x[trials.tried], trials.feasible, at, rng=rng)
        gp = refit_gp(
            self._fits,
            np.concatenate([self._source_x, self._x[trials.tried]]),
            np.concatenate([self._source_feasible, trials.feasible]).astype(np.float64),
        )
        return gp.probability_above(0.5, at)


def known_scores(space: ConfigurationSpace, sources: Sequence[ReplayTask]) -> Transfer:
    """What tasks of other families say, for any number of searches of one space."""
    each = max(MAX_CONFIGURATIONS // len(sources), 1)
    return transfer(space, sources, max_configurations=each)


def transfer_gp(
    space: ConfigurationSpace,
    objective: SearchObjective,
    usd_per_hour: FloatArray,
    *,
    seed: int,
    known: Transfer,
) -> PoolSearch:
    """Bayesian optimisation that has seen other families' tasks; see `TransferGp`."""
    chooser = TransferGp(known, seed=seed)
    return PoolSearch(space, objective, usd_per_hour, seed=seed, chooser=chooser)
