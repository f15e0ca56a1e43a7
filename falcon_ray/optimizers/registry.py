"""Optimizers by name, as a command line or a benchmark asks for them."""

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from falcon_ray.errors import InputError
from falcon_ray.optimizers.bayesian import BayesianOptimizer, PriorMeans
from falcon_ray.optimizers.optimizer import Optimizer
from falcon_ray.optimizers.random_search import RandomSearch
from falcon_ray.space.configuration import ConfigurationSpace, FloatArray
from falcon_ray.space.objective import Objective


class OptimizerFactory(Protocol):
    """Makes an optimizer that has observed nothing yet."""

    def __call__(
        self,
        space: ConfigurationSpace,
        objective: Objective,
        usd_per_hour: FloatArray,
        *,
        seed: int,
        prior: PriorMeans | None,
        fits: FloatArray | None,
    ) -> Optimizer:
        """See `make_optimizer`."""
        ...


def _random(
    space: ConfigurationSpace,
    objective: Objective,
    usd_per_hour: FloatArray,
    *,
    seed: int,
    prior: PriorMeans | None,
    fits: FloatArray | None,
) -> Optimizer:
    del prior, fits  # random search predicts nothing
    return RandomSearch(space, objective, usd_per_hour, seed=seed)


OPTIMIZERS: Mapping[str, OptimizerFactory] = MappingProxyType(
    {"bayesian": BayesianOptimizer, "random": _random}
)


def make_optimizer(
    name: str,
    space: ConfigurationSpace,
    objective: Objective,
    usd_per_hour: FloatArray,
    *,
    seed: int,
    prior: PriorMeans | None = None,
    fits: FloatArray | None = None,
) -> Optimizer:
    """Make the optimizer of that name.

    Args:
        name: A key of `OPTIMIZERS`.
        space: The n candidates.
        objective: What counts as better.
        usd_per_hour: Price of each candidate, all replicas together, shape (n,).
        seed: Not negative.
        prior: Predicted log metrics, shapes (n,); ignored by an optimizer that predicts nothing.
        fits: Predicted probability that memory suffices, shape (n,); likewise.

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
    return factory(space, objective, usd_per_hour, seed=seed, prior=prior, fits=fits)
