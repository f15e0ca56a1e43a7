"""The gain per cost of a trial, where costs are given."""

import numpy as np
import pytest

from falcon_ray.errors import InputError
from falcon_ray.knowledge.mixture import ExpertMixture
from falcon_ray.optimizers.mcts import MonteCarloTreeSearch
from falcon_ray.space.configuration import ConfigurationSpace, FloatArray
from tests.unit.optimizers.synthetic_serving import (
    SPACE,
    WITHOUT_SLO,
    expert,
    rate,
    suggest,
    usd_per_hour,
)


@pytest.mark.parametrize(
    "cost",
    [np.ones(3), np.zeros(len(SPACE)), np.full(len(SPACE), np.nan), -np.ones(len(SPACE))],
    ids=["length", "zero", "NaN", "negative"],
)
def test_costs_of_trials_that_cannot_be_are_refused(cost: FloatArray) -> None:
    with pytest.raises(
        InputError, match="trial_cost needs one positive number for each of the 120"
    ):
        MonteCarloTreeSearch(SPACE, WITHOUT_SLO, usd_per_hour(SPACE), seed=0, trial_cost=cost)


@pytest.mark.parametrize("n_measured", [0, 1])
@pytest.mark.parametrize("cheap", [1, 2])
def test_of_equal_candidates_the_one_with_the_cheapest_trial_is_tried(
    n_measured: int, cheap: int
) -> None:
    space = ConfigurationSpace.of({"dtype": ["a", "b", "c"]})
    cost = np.array([50.0, 5.0, 5.0])
    cost[cheap] = 1.0
    prior = ExpertMixture(experts=(expert({"saturation_rps": np.zeros(3)}),))
    optimizer = MonteCarloTreeSearch(
        space, WITHOUT_SLO, np.ones(3), seed=0, prior=prior, trial_cost=cost
    )
    for _ in range(n_measured):
        optimizer.observe(rate(space.candidates[0], 1.0))
    assert suggest(optimizer) == space.candidates[cheap]


def test_a_dear_trial_is_made_where_it_gains_more_than_it_costs() -> None:
    space = ConfigurationSpace.of({"dtype": ["a", "b"]})
    logs = np.log([100.0, 1000.0])
    prior = ExpertMixture(experts=(expert({"saturation_rps": logs}, name="a", residual_sd=0.0),))
    for cost_of_the_better, expected in ((5.0, 1), (20.0, 0)):
        optimizer = MonteCarloTreeSearch(
            space,
            WITHOUT_SLO,
            np.ones(2),
            seed=0,
            prior=prior,
            trial_cost=np.array([1.0, cost_of_the_better]),
        )
        assert suggest(optimizer) == space.candidates[expected]  # it is worth ten times as much
