"""Plain Bayesian optimisation on the candidates: a Gaussian process on the log score.

The score is a black box to it: no metrics, no prior, no other model. What it does is what a
careful user would write with scikit-learn in an afternoon.
"""

import numpy as np

from falcon_ray.optimizers.acquisition import expected_improvement
from falcon_ray.optimizers.baselines.likelihood_gp import (
    LikelihoodGp,
    fit_gp,
    probability_of_feasibility,
    refit_gp,
)
from falcon_ray.optimizers.baselines.pool_search import PoolSearch, Trials
from falcon_ray.space.configuration import ConfigurationSpace, FloatArray
from falcon_ray.space.objective import SearchObjective

N_RANDOM = 3
"""So many random candidates come first, as is usual."""


class GpEi:
    """Expected improvement of the log score times the probability of feasibility; a `Chooser`.

    Schonlau et al. (1998), section 4. Before the first score: the candidate most likely to have
    one (Gardner et al., 2014, section 3). Pending trials are believed to show what is expected of
    them (the kriging believer of Ginsbourger et al., 2010, section 4.2).

    Args:
        x: Coordinates of the n candidates, shape (n, d).
    """

    def __init__(self, x: FloatArray) -> None:
        self._x = x

    def __call__(self, trials: Trials, rng: np.random.Generator) -> tuple[int, str]:
        """See `Chooser`."""
        if trials.tried.size + trials.pending.size < N_RANDOM:
            return int(rng.choice(trials.available)), "drawn uniformly: too few trials to model"
        at = self._x[trials.available]
        feasible = trials.feasible
        fits = probability_of_feasibility(self._x[trials.tried], feasible, at, rng=rng)
        if not feasible.any():
            index = _first_or_any(trials, fits, rng)
            return index, "most likely to be feasible: nothing feasible is known"
        scores = trials.log_scores[feasible]
        gp = fit_gp(self._x[trials.tried[feasible]], scores, rng=rng)
        gp = _believing(gp, self._x, trials)
        mean, sd = gp.predict(at)
        gain = fits * expected_improvement(mean, sd, float(scores.max()))
        index = _first_or_any(trials, gain, rng)
        return index, "highest expected improvement of the log score, feasibility weighed in"


def gp_ei(
    space: ConfigurationSpace, objective: SearchObjective, usd_per_hour: FloatArray, *, seed: int
) -> PoolSearch:
    """Plain Bayesian optimisation; see `GpEi`."""
    chooser = GpEi(space.encode(space.candidates))
    return PoolSearch(space, objective, usd_per_hour, seed=seed, chooser=chooser)


def _believing(gp: LikelihoodGp, x: FloatArray, trials: Trials) -> LikelihoodGp:
    if trials.pending.size == 0:
        return gp
    feasible = trials.feasible
    mean, _ = gp.predict(x[trials.pending])
    return refit_gp(
        gp,
        np.concatenate([x[trials.tried[feasible]], x[trials.pending]]),
        np.concatenate([trials.log_scores[feasible], mean]),
    )


def _first_or_any(trials: Trials, worth: FloatArray, rng: np.random.Generator) -> int:
    """An available candidate of the highest worth, one at random where several have it."""
    return int(rng.choice(trials.available[worth >= worth.max()]))
