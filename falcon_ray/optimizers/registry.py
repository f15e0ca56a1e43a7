"""Optimizers by name, as a command line or a benchmark asks for them."""

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from falcon_ray.errors import InputError
from falcon_ray.knowledge.mixture import ExpertMixture
from falcon_ray.optimizers.mcts import MonteCarloTreeSearch, Parallel
from falcon_ray.optimizers.optimizer import Optimizer
from falcon_ray.optimizers.random_search import RandomSearch
from falcon_ray.space.configuration import ConfigurationSpace, FloatArray
from falcon_ray.space.objective import SearchObjective


class OptimizerFactory(Protocol):
    """Makes an optimizer that has observed nothing yet."""

    def __call__(
        self,
        space: ConfigurationSpace,
        objective: SearchObjective,
        usd_per_hour: FloatArray,
        *,
        seed: int,
        prior: ExpertMixture | None,
        parallel: Parallel,
        trial_cost: FloatArray | None,
    ) -> Optimizer:
        """See `make_optimizer`."""
        ...


def _random(
    space: ConfigurationSpace,
    objective: SearchObjective,
    usd_per_hour: FloatArray,
    *,
    seed: int,
    prior: ExpertMixture | None,
    parallel: Parallel,
    trial_cost: FloatArray | None,
) -> Optimizer:
    del prior, parallel, trial_cost  # random search predicts nothing
    return RandomSearch(space, objective, usd_per_hour, seed=seed)


def _flat(
    space: ConfigurationSpace,
    objective: SearchObjective,
    usd_per_hour: FloatArray,
    *,
    seed: int,
    prior: ExpertMixture | None,
    parallel: Parallel,
    trial_cost: FloatArray | None,
) -> Optimizer:
    return MonteCarloTreeSearch(
        space,
        objective,
        usd_per_hour,
        seed=seed,
        prior=prior,
        tree=False,
        parallel=parallel,
        trial_cost=trial_cost,
    )


OPTIMIZERS: Mapping[str, OptimizerFactory] = MappingProxyType(
    {"mcts": MonteCarloTreeSearch, "bayesian": _flat, "random": _random}
)
"""The default; the same without its tree; and the yardstick."""


def make_optimizer(
    name: str,
    space: ConfigurationSpace,
    objective: SearchObjective,
    usd_per_hour: FloatArray,
    *,
    seed: int,
    prior: ExpertMixture | None = None,
    parallel: Parallel = Parallel.BELIEVER,
    trial_cost: FloatArray | None = None,
) -> Optimizer:
    """Make the optimizer of that name.

    Args:
        name: A key of `OPTIMIZERS`.
        space: The n candidates.
        objective: What counts as better.
        usd_per_hour: Price of each candidate, all replicas together, shape (n,).
        seed: Not negative.
        prior: What is expected of the candidates. This and what follows is ignored by an
            optimizer that predicts nothing.
        parallel: How pending trials count.
        trial_cost: Relative cost of a trial of each candidate, shape (n,): with it the gain per
            cost is what counts.

    Raises:
        InputError: There is no optimizer of that name, or an argument does not fit the space.
    """
    factory = OPTIMIZERS.get(name)
    if factory is None:
        near = difflib.get_close_matches(name.lower(), OPTIMIZERS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(
            f"there is no optimizer {name!r}; {hint}known are {', '.join(sorted(OPTIMIZERS))}"
        )
    return factory(
        space,
        objective,
        usd_per_hour,
        seed=seed,
        prior=prior,
        parallel=parallel,
        trial_cost=trial_cost,
    )
