"""RGPE: one Gaussian process per other task, weighted by how well each ranks the own trials.

Feurer, Letham, Hutter & Bakshy, "Practical Transfer Learning for Bayesian Optimization" (2018),
section 4. A configuration without a score counts as the worst of its task.

Notation: k own trials, s other tasks, b samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from falcon_ray.optimizers.acquisition import expected_improvement
from falcon_ray.optimizers.baselines.likelihood_gp import LikelihoodGp, fit_gp
from falcon_ray.optimizers.baselines.pool_search import PoolSearch, Trials
from falcon_ray.optimizers.baselines.source_scores import transfer
from falcon_ray.optimizers.replay import ReplayTask
from falcon_ray.space.configuration import ConfigurationSpace, FloatArray
from falcon_ray.space.objective import SearchObjective

N_SAMPLES = 256
MAX_CONFIGURATIONS = 100
"""Of one source."""
MIN_TO_RANK = 2
"""Fewer trials have no order; until then all other tasks count the same."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankingSources:
    """Processes of other tasks over n candidates; can be shared by searches of one space.

    Attributes:
        x: Coordinates of the candidates, shape (n, d).
        gps: One per source.
        means: Their standardised posterior means, shape (s, n).
        sds: Their sds, likewise.
    """

    x: FloatArray
    gps: tuple[LikelihoodGp, ...]
    means: FloatArray
    sds: FloatArray

    @classmethod
    def fitted(cls, space: ConfigurationSpace, sources: Sequence[ReplayTask]) -> "RankingSources":
        """Fit a process to each source, a task of another family."""
        known = transfer(space, sources, max_configurations=MAX_CONFIGURATIONS)
        rng = np.random.default_rng(0)
        gps = tuple(fit_gp(each.x, each.penalised, rng=rng) for each in known.sources)
        predicted = [gp.predict_standardised(known.x) for gp in gps]
        return cls(
            x=known.x,
            gps=gps,
            means=np.array([mean for mean, _ in predicted]),
            sds=np.array([sd for _, sd in predicted]),
        )


class Rgpe:
    """Expected improvement under the ensemble; a `Chooser`."""

    def __init__(self, sources: RankingSources) -> None:
        self._sources = sources

    def __call__(self, trials: Trials, rng: np.random.Generator) -> tuple[int, str]:
        """See `Chooser`."""
        known = self._sources
        means, sds = known.means, known.sds
        if trials.tried.size < MIN_TO_RANK:
            weights = np.full(len(means), 1 / len(means))
        else:
            x, values = known.x[trials.tried], trials.penalised
            own = fit_gp(x, values, rng=rng)
            weights = _weights(known.gps, own, x, values, rng)
            mean, sd = own.predict_standardised(known.x)
            means, sds = np.vstack([means, mean]), np.vstack([sds, sd])
        mean = weights @ means
        sd = np.sqrt(weights**2 @ sds**2)
        seen = np.concatenate([trials.tried[trials.feasible], trials.pending])
        at = trials.available
        if seen.size == 0:
            return int(at[mean[at].argmax()]), "best on average under other tasks' models"
        gain = expected_improvement(mean[at], sd[at], float(mean[seen].max()))
        return (
            int(at[gain.argmax()]),
            f"highest expected improvement of {len(weights)} models weighted by their ranking",
        )


def ranking_losses(samples: FloatArray, values: FloatArray) -> FloatArray:
    """How many pairs each sample orders differently from the trials (ibid., eq. 3).

    Args:
        samples: Shape (b, k).
        values: What the trials showed, shape (k,).

    Returns:
        Shape (b,).
    """
    said = samples[:, :, np.newaxis] < samples[:, np.newaxis, :]
    shown = values[:, np.newaxis] < values[np.newaxis, :]
    return (said ^ shown).sum(axis=(1, 2))


def _weights(
    gps: Sequence[LikelihoodGp],
    own: LikelihoodGp,
    x: FloatArray,
    values: FloatArray,
    rng: np.random.Generator,
) -> FloatArray:
    """How often each process ranks best, the own one last, shape (s + 1,) (ibid., section 4.2).

    A source whose median loss exceeds the 95th percentile of the own one's is left out, so that
    many bad ones do not outvote the own.
    """
    losses = [
        ranking_losses(gp.sample_standardised(x, n_samples=N_SAMPLES, rng=rng), values)
        for gp in gps
    ]
    mean, sd = own.leave_one_out(values)
    standardised = (values - own.centre) / own.scale
    drawn = mean + sd * rng.standard_normal((N_SAMPLES, len(values)))
    # The left-out trial's prediction is ranked against what the others showed.
    said = drawn[:, :, np.newaxis] < standardised
    shown = values[:, np.newaxis] < values
    off_diagonal = ~np.eye(len(values), dtype=np.bool_)
    own_losses = ((said ^ shown) & off_diagonal).sum(axis=(1, 2))
    limit = float(np.percentile(own_losses, 95))
    table = np.array(
        [np.where(np.median(each) > limit, np.inf, each) for each in losses] + [own_losses]
    )
    best = table <= table.min(axis=0)
    return (best / best.sum(axis=0)).mean(axis=1)


def rgpe(
    space: ConfigurationSpace,
    objective: SearchObjective,
    usd_per_hour: FloatArray,
    *,
    seed: int,
    sources: RankingSources,
) -> PoolSearch:
    """The ensemble of other tasks and the own one; see `Rgpe`."""
    return PoolSearch(space, objective, usd_per_hour, seed=seed, chooser=Rgpe(sources))
