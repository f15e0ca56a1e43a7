"""Several trials at once: batches by belief, workers that come and go by draws."""

import numpy as np
import pytest

from falcon_ray.knowledge.mixture import ExpertMixture
from falcon_ray.optimizers.mcts import MonteCarloTreeSearch, Parallel
from falcon_ray.space.configuration import Configuration, ConfigurationSpace
from falcon_ray.space.objective import Objective
from tests.unit.optimizers.synthetic_serving import (
    SPACE,
    WITH_SLO,
    WITHOUT_SLO,
    expert,
    failed,
    infeasible,
    measured,
    rate,
    scores,
    suggest,
    true_mixture,
    usd_per_hour,
)

PRICES = usd_per_hour(SPACE)
every_way = pytest.mark.parametrize("parallel", list(Parallel))
every_prior = pytest.mark.parametrize("informed", [False, True], ids=["no prior", "prior"])
every_objective = pytest.mark.parametrize(
    "objective", [WITHOUT_SLO, WITH_SLO], ids=["no SLO", "SLO"]
)


def make(
    parallel: Parallel,
    *,
    space: ConfigurationSpace = SPACE,
    objective: Objective = WITHOUT_SLO,
    seed: int = 0,
    informed: bool = True,
) -> MonteCarloTreeSearch:
    return MonteCarloTreeSearch(
        space,
        objective,
        usd_per_hour(space),
        seed=seed,
        prior=true_mixture(space, objective) if informed else None,
        parallel=parallel,
    )


def batch(optimizer: MonteCarloTreeSearch, n: int) -> list[Configuration]:
    return [suggest(optimizer) for _ in range(n)]


def waits_between_measured_ends(parallel: Parallel, *, seed: int = 0) -> MonteCarloTreeSearch:
    """A line of 17 waits, of which both ends showed the same."""
    space = ConfigurationSpace.of({"batch_wait_ms": range(17)})
    optimizer = MonteCarloTreeSearch(space, WITHOUT_SLO, np.ones(17), seed=seed, parallel=parallel)
    for end in (space.candidates[0], space.candidates[16]):
        optimizer.observe(rate(end, 100.0))
    return optimizer


def test_pending_trials_are_believed_so_that_a_batch_does_not_crowd() -> None:
    optimizer = waits_between_measured_ends(Parallel.BELIEVER)
    first, second = (each.number("batch_wait_ms", 0) for each in batch(optimizer, 2))
    assert first == 8  # midway between the two ends
    assert abs(second - 8) >= 3  # not beside it


def test_a_batch_of_eight_covers_a_line_about_which_nothing_is_known() -> None:
    optimizer = waits_between_measured_ends(Parallel.BELIEVER)
    waits = sorted(each.number("batch_wait_ms", 0) for each in batch(optimizer, 8))
    # Of 15 in between no three neighbours are left without a trial.
    assert np.diff([0, *waits, 16]).max() <= 3


def test_a_suggestion_does_not_depend_on_draws_while_nothing_is_pending() -> None:
    believer, thompson = make(Parallel.BELIEVER), make(Parallel.THOMPSON)
    for _ in range(4):
        configuration = suggest(believer)
        assert suggest(thompson) == configuration
        for optimizer in (believer, thompson):
            optimizer.observe(measured(configuration, WITHOUT_SLO))


def test_workers_draw_their_own_suggestions() -> None:
    by_seed = {
        tuple(batch(waits_between_measured_ends(Parallel.THOMPSON, seed=seed), 4))
        for seed in range(6)
    }
    assert len(by_seed) > 1
    for one in by_seed:
        assert len(set(one)) == 4


def test_draws_are_deterministic_by_seed() -> None:
    first, again = (batch(make(Parallel.THOMPSON, seed=5), 6) for _ in range(2))
    assert first == again


def test_a_draw_says_so() -> None:
    optimizer = make(Parallel.THOMPSON)
    suggest(optimizer)
    suggestion = optimizer.suggest()
    assert suggestion is not None
    assert suggestion.why.startswith("the best of a draw; predicted saturation_rps ")


def test_draws_prefer_what_is_expected_to_be_good() -> None:
    truth = scores(SPACE, WITHOUT_SLO)
    found = [
        truth[SPACE.index[each]]
        for seed in range(5)
        for each in batch(make(Parallel.THOMPSON, seed=seed), 4)
    ]
    assert np.mean(found) > 0.75 * truth.max() > 1.5 * truth.mean()


def test_a_draw_takes_the_better_of_two_in_proportion_to_its_chance() -> None:
    # Three equal candidates, one of which is pending: the other two are as likely.
    space = ConfigurationSpace.of({"dtype": ["a", "b", "c"]})
    prior = ExpertMixture(experts=(expert({"saturation_rps": np.zeros(3)}),))
    second: list[Configuration] = []
    for seed in range(40):
        optimizer = MonteCarloTreeSearch(
            space,
            WITHOUT_SLO,
            np.ones(3),
            seed=seed,
            prior=prior,
            parallel=Parallel.THOMPSON,
        )
        assert suggest(optimizer) == space.candidates[0]  # the first among equals
        second.append(suggest(optimizer))
    # 20 of 40 are expected; the sd is sqrt(40) / 2 = 3.2.
    assert 8 <= second.count(space.candidates[1]) <= 32
    assert set(second) == set(space.candidates[1:])


@every_way
@every_prior
@every_objective
def test_everything_is_suggested_once_though_nothing_ends(
    parallel: Parallel, objective: Objective, *, informed: bool
) -> None:
    space = ConfigurationSpace.of(
        {"batch_size": [1, 4, 16, 64], "cpu_cores": [1, 2, 4], "dtype": ["float32", "int8"]}
    )
    optimizer = make(parallel, space=space, objective=objective, informed=informed)
    found = batch(optimizer, len(space))
    assert set(found) == set(space.candidates)
    assert optimizer.exhausted
    assert optimizer.suggest() is None


@every_way
@every_prior
def test_everything_is_suggested_once_while_trials_end_in_any_order(
    parallel: Parallel, *, informed: bool
) -> None:
    space = ConfigurationSpace.of({"batch_size": [1, 2, 8, 32, 128], "cpu_cores": [1, 4, 16]})
    optimizer = make(parallel, space=space, objective=WITH_SLO, informed=informed)
    rng = np.random.default_rng(0)
    running, found = [], []
    while not optimizer.exhausted:
        while len(running) < 4 and not optimizer.exhausted:
            running.append(suggest(optimizer))
            found.append(running[-1])
        ended = running.pop(int(rng.integers(len(running))))
        fits = ended.count("batch_size", 1) < 128
        optimizer.observe(measured(ended, WITH_SLO) if fits else infeasible(ended))
    assert sorted(map(str, found)) == sorted(map(str, space.candidates))


@every_way
def test_a_failed_worker_hands_its_candidate_on_once(parallel: Parallel) -> None:
    optimizer = make(parallel)
    first, *others = batch(optimizer, 4)
    optimizer.observe(failed(first))
    later = batch(optimizer, 8)
    assert first in later  # it is still the best
    assert set(others).isdisjoint(later)
    optimizer.observe(failed(first))
    assert first not in batch(optimizer, 8)


def test_pending_trials_count_as_visits_of_their_part_of_the_tree() -> None:
    # Parts that are equally good are visited in turn, pending or not.
    space = ConfigurationSpace.of({"batch_size": [1, 2], "batch_wait_ms": range(8)})
    large = space.codes[:, 0] == 1
    # A slightly better prior for large batches, by far less than a visit outweighs.
    prior = ExpertMixture(
        experts=(expert({"saturation_rps": 0.01 * large + np.zeros(16)}),),
        operator_seconds={"linear": np.where(large, 1.0, 2.0)},
    )
    optimizer = MonteCarloTreeSearch(space, WITHOUT_SLO, np.ones(16), seed=0, prior=prior)
    assert [leaf.rows.size for leaf in optimizer.root.leaves()] == [8, 8]
    assert [each["batch_size"] for each in batch(optimizer, 2)] == [2, 1]
