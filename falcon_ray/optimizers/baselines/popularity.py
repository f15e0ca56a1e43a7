"""What worked for other models, in that order: a vote that learns nothing from its own trials."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from falcon_ray.optimizers.baselines.pool_search import PoolSearch, Trials
from falcon_ray.optimizers.replay import ReplayTask
from falcon_ray.space.configuration import ConfigurationSpace, FloatArray
from falcon_ray.space.objective import SearchObjective


class Popularity:
    """Chooses in the order of a vote; a `Chooser`.

    Args:
        votes: Of each candidate, shape (n,).
    """

    def __init__(self, votes: FloatArray) -> None:
        self._votes = votes

    def __call__(self, trials: Trials, rng: np.random.Generator) -> tuple[int, str]:
        """See `Chooser`."""
        del rng  # a vote has no luck
        index = int(trials.available[self._votes[trials.available].argmax()])
        return index, f"{self._votes[index]:.0%} of the best score on average for other models"


def votes(space: ConfigurationSpace, sources: Sequence[ReplayTask]) -> FloatArray:
    """Mean score over the best, of the same configuration among the sources.

    A configuration that no source has gets the average over its dimensions of what the same value
    got, values that no source has left out; 0 where nothing matches. Configurations are the same
    that agree in every dimension of the space.

    Returns:
        Shape (n,), in [0, 1].
    """
    names = [each.name for each in space.dimensions]
    same: dict[tuple[object, ...], list[float]] = defaultdict(list)
    alike: dict[tuple[str, object], list[float]] = defaultdict(list)
    for source in sources:
        scores = source.scores / source.scores.max()
        for configuration, score in zip(source.space.candidates, scores, strict=True):
            for name in names:
                if name in configuration:
                    alike[name, configuration[name]].append(float(score))
            if all(name in configuration for name in names):
                same[tuple(configuration[name] for name in names)].append(float(score))
    found: list[float] = []
    for candidate in space.candidates:
        key = tuple(candidate[name] for name in names)
        if key in same:
            found.append(float(np.mean(same[key])))
            continue
        means = [_mean(alike, (name, candidate[name])) for name in names]
        known = [each for each in means if each is not None]
        found.append(float(np.mean(known)) if known else 0.0)
    return np.array(found)


def popularity(
    space: ConfigurationSpace,
    objective: SearchObjective,
    usd_per_hour: FloatArray,
    *,
    sources: Sequence[ReplayTask],
) -> PoolSearch:
    """A vote of tasks of other families; see `votes`."""
    chooser = Popularity(votes(space, sources))
    return PoolSearch(space, objective, usd_per_hour, seed=0, chooser=chooser)


def _mean(
    scores: Mapping[tuple[str, object], Sequence[float]], key: tuple[str, object]
) -> float | None:
    return float(np.mean(scores[key])) if key in scores else None
