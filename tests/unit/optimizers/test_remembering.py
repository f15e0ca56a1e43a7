"""Which of many trials a model is made of."""

import numpy as np

from falcon_ray.knowledge.mixture import ExpertMixture
from falcon_ray.optimizers.coordinates import Coordinates
from falcon_ray.optimizers.experts import Experts
from falcon_ray.optimizers.history import History
from falcon_ray.optimizers.mcts import MonteCarloTreeSearch
from falcon_ray.optimizers.remembering import (
    FIT_EACH,
    MAX_REMEMBERED,
    n_fitted,
    remembered,
    spread,
)
from falcon_ray.space.configuration import ConfigurationSpace
from falcon_ray.space.objective import Objective
from tests.unit.optimizers.synthetic_serving import expert, rate, suggest

N = 2 * MAX_REMEMBERED
SPACE = ConfigurationSpace.of({"batch_wait_ms": range(N)})
COORDINATES = Coordinates(SPACE)


def test_few_trials_are_all_remembered_in_their_order() -> None:
    rows = np.array([7, 3, 5])
    kept = remembered(COORDINATES, rows, np.zeros(3), at_most=3)
    assert kept.tolist() == [7, 3, 5]


def test_of_many_trials_the_best_and_the_latest_are_remembered() -> None:
    rows = np.arange(N)
    scores = np.zeros(N)
    scores[[17, 101]] = 5.0
    kept = remembered(COORDINATES, rows, scores, at_most=16)
    assert kept.size == 16
    assert {17, 101} <= set(kept.tolist())
    assert set(range(N - 4, N)) <= set(kept.tolist())  # a quarter of 16


def test_the_others_that_are_remembered_cover_what_was_tried() -> None:
    rows = np.arange(N)
    kept = remembered(COORDINATES, rows, np.zeros(N), at_most=16)
    # Four of 16 are the first among equals and four the latest; eight halve the gap in between
    # three times, so that no gap is wider than an eighth, and one for rounding.
    assert np.diff(kept).max() <= N / 8 + 1


def test_a_spread_starts_at_the_first_and_counts_repeats_once() -> None:
    kept = spread(COORDINATES, np.array([2, 2, 3, 300, 3]), at_most=2)
    assert kept.tolist() == [2, 300]


def test_hyperparameters_are_fitted_after_each_of_the_first_trials_and_ever_more_seldom_then() -> (
    None
):
    assert [n_fitted(n) for n in range(FIT_EACH + 1)] == list(range(FIT_EACH + 1))
    changes = len({n_fitted(n) for n in range(FIT_EACH, 1001)})
    # By a tenth at a time, rounded down: ln(1000 / 32) / ln(1.1) is 36.1, and a few for rounding.
    assert 36 <= changes <= 42
    assert all(0.9 * n <= n_fitted(n) <= n for n in range(1, 1001))


def test_what_a_model_takes_in_does_not_grow_with_the_trials() -> None:
    history = History(SPACE, Objective(), np.ones(N))
    for each in SPACE.candidates:
        history.observe(rate(each, 10.0))
    experts = Experts(None, Objective(), np.ones(N), COORDINATES)
    experts.learn(history)
    assert int(experts.remembers(np.arange(N)).sum()) == MAX_REMEMBERED


def test_the_best_trial_is_recommended_however_long_ago_it_was() -> None:
    space = ConfigurationSpace.of({"dtype": [f"format {i}" for i in range(N)]})
    prior = ExpertMixture(experts=(expert({"saturation_rps": np.zeros(N)}),))
    optimizer = MonteCarloTreeSearch(space, Objective(), np.ones(N), seed=0, prior=prior)
    for i, each in enumerate(space.candidates[:-1]):
        optimizer.observe(rate(each, 1.4 if i == 40 else 1.0))
    recommended = optimizer.recommend()
    assert recommended is not None
    assert recommended.configuration == space.candidates[40]
    assert suggest(optimizer) == space.candidates[-1]
