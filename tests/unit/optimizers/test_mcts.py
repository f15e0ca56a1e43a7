"""The search as a whole: what it starts with, learns, says and recommends."""

import re

import numpy as np
import pytest

from falcon_ray.knowledge.mixture import ExpertMixture
from falcon_ray.optimizers.experts import CONSTANT
from falcon_ray.optimizers.mcts import MonteCarloTreeSearch
from falcon_ray.optimizers.optimizer import Suggestion
from falcon_ray.optimizers.random_search import RandomSearch
from falcon_ray.space.configuration import Configuration, ConfigurationSpace, FloatArray
from falcon_ray.space.objective import GenerationObjective, Objective
from falcon_ray.space.observation import Measurement, Observation, TrialStatus
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
    trials_to_within_5_percent,
    true_logs,
    true_mixture,
    usd_per_hour,
)

PRICES = usd_per_hour(SPACE)
SMALL = ConfigurationSpace.of({"batch_size": [1, 2, 4], "cpu_cores": [1, 2, 4]})
TRUE = true_mixture(SPACE, WITHOUT_SLO)


def make(
    objective: Objective = WITHOUT_SLO,
    *,
    space: ConfigurationSpace = SPACE,
    seed: int = 0,
    prior: ExpertMixture | None = None,
    tree: bool = True,
) -> MonteCarloTreeSearch:
    return MonteCarloTreeSearch(
        space, objective, usd_per_hour(space), seed=seed, prior=prior, tree=tree
    )


def next_suggestion(optimizer: MonteCarloTreeSearch) -> Suggestion:
    suggestion = optimizer.suggest()
    assert suggestion is not None
    return suggestion


def of_logs(logs: FloatArray) -> ExpertMixture:
    return ExpertMixture(experts=(expert({"saturation_rps": logs}),))


def test_the_first_suggestion_is_in_the_middle_of_every_ordinal_dimension() -> None:
    for seed in range(5):
        first = suggest(make(space=SMALL, seed=seed))
        assert dict(first) == {"batch_size": 2, "cpu_cores": 2}


def test_the_seed_decides_between_equally_central_candidates() -> None:
    firsts = {suggest(make(seed=seed)) for seed in range(20)}
    assert {each["cpu_cores"] for each in firsts} == {4}
    assert {each["batch_size"] for each in firsts} == {8, 16}  # the middle of eight values
    assert {each["dtype"] for each in firsts} == {"float32", "bfloat16", "int8"}


def test_pending_starts_are_spread_to_the_corners() -> None:
    optimizer = make(space=SMALL)
    batch = [suggest(optimizer) for _ in range(5)]
    corners = {(1, 1), (1, 4), (4, 1), (4, 4)}
    assert {(each["batch_size"], each["cpu_cores"]) for each in batch[1:]} == corners


def test_a_failed_trial_leaves_its_neighbourhood_as_unknown_as_before() -> None:
    optimizer = make(space=SMALL)
    first = suggest(optimizer)
    optimizer.observe(failed(first))
    assert suggest(optimizer) == first  # nothing was learnt of it, and it is still the middle
    optimizer.observe(failed(first))
    again = suggest(optimizer)
    # Still the nearest to the middle that is left, not a corner: one step away from (2, 2).
    assert (again["batch_size"] == 2) != (again["cpu_cores"] == 2)


@pytest.mark.parametrize("tree", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_with_a_perfect_prior_the_first_suggestion_is_the_optimum(seed: int, *, tree: bool) -> None:
    optimizer = make(prior=TRUE, seed=seed, tree=tree)
    assert SPACE.index[suggest(optimizer)] == scores(SPACE, WITHOUT_SLO).argmax()


def test_with_a_perfect_prior_under_an_slo_the_first_suggestion_meets_it() -> None:
    optimizer = make(WITH_SLO, prior=true_mixture(SPACE, WITH_SLO))
    truth = scores(SPACE, WITH_SLO)
    assert truth[SPACE.index[suggest(optimizer)]] > 0.5 * truth.max()


def test_observations_correct_an_opposite_prior() -> None:
    prior = of_logs(-true_logs(SPACE, WITHOUT_SLO)["saturation_rps"])
    n_trials = [
        trials_to_within_5_percent(make(prior=prior, seed=seed), WITHOUT_SLO) for seed in range(3)
    ]
    assert max(n_trials) < 40  # what random search needs on average


def test_a_permuted_prior_is_left_for_the_constant_and_found_out_of() -> None:
    truth = true_logs(SPACE, WITHOUT_SLO)["saturation_rps"]
    n_trials: list[int] = []
    for seed in range(3):
        prior = of_logs(np.random.default_rng(seed).permutation(truth))
        optimizer = make(prior=prior, seed=seed)
        assert optimizer.expert_weights == pytest.approx({"physics": 0.9, CONSTANT: 0.1})
        n_trials.append(trials_to_within_5_percent(optimizer, WITHOUT_SLO))
        if n_trials[-1] > 4:
            assert optimizer.expert_weights[CONSTANT] > 0.9
    assert max(n_trials) < 40
    assert max(n_trials) > 4  # else the permuted prior was not wrong enough to test anything


def test_a_right_expert_is_believed_more_with_every_trial() -> None:
    optimizer = make(prior=TRUE)
    weights = [optimizer.expert_weights["physics"]]
    for _ in range(3):
        optimizer.observe(measured(suggest(optimizer), WITHOUT_SLO))
        optimizer.recommend()  # takes in what was observed
        weights.append(optimizer.expert_weights["physics"])
    assert weights == sorted(weights)
    assert weights[0] == pytest.approx(0.9)
    assert weights[-1] > 0.95


def test_what_is_predicted_not_to_fit_is_not_tried_first() -> None:
    best = suggest(make(prior=TRUE))
    share = np.full(len(SPACE), -2.0)
    share[SPACE.index[best]] = 2.0
    prior = ExpertMixture(experts=TRUE.experts, log_memory_share=share)
    optimizer = make(prior=prior)
    assert best not in [suggest(optimizer) for _ in range(3)]


def test_out_of_memory_rules_out_larger_batches_of_the_same_kind() -> None:
    optimizer = make(prior=TRUE)
    first = suggest(optimizer)
    optimizer.observe(infeasible(first))
    same = [
        each
        for each in SPACE.candidates
        if each["dtype"] == first["dtype"] and each["cpu_cores"] == first["cpu_cores"]
    ]
    larger = {each for each in same if each.count("batch_size", 1) > first.count("batch_size", 1)}
    assert larger
    assert larger.isdisjoint({suggest(optimizer) for _ in range(10)})


def test_without_a_prior_rates_are_expected_in_proportion_to_prices() -> None:
    space = ConfigurationSpace.of({"dtype": ["a", "b"]})
    optimizer = MonteCarloTreeSearch(space, WITHOUT_SLO, np.array([1.0, 3.0]), seed=0)
    optimizer.observe(rate(space.candidates[0], 10.0))
    # One dollar an hour bought 10 requests/s, so three are expected to buy 30.
    assert next_suggestion(optimizer).expected == {"saturation_rps": pytest.approx(30.0)}


def test_a_suggestion_says_what_it_expects_and_why() -> None:
    optimizer = make(prior=of_logs(np.full(len(SPACE), np.log(50.0))), tree=False)
    first = next_suggestion(optimizer)
    assert first.why.startswith("highest expected score; nothing feasible is measured yet; ")
    assert set(first.expected) == {"saturation_rps"}
    optimizer.observe(rate(first.configuration, 50.0))
    price = PRICES[SPACE.index[first.configuration]]
    second = next_suggestion(optimizer)
    assert second.why.startswith("expected improvement ")
    told = re.search(r" over ([\d,]+) requests/\$; predicted saturation_rps ", second.why)
    assert told is not None
    # What it is believed to score: next to what was measured, for noise is small.
    assert float(told[1].replace(",", "")) == pytest.approx(50 * 3600 / price, rel=0.01)


def test_the_error_that_is_said_is_that_of_the_mixture() -> None:
    space = ConfigurationSpace.of({"dtype": ["a", "b"]})
    logs = {"saturation_rps": np.array([2.0, 0.0])}
    prior = ExpertMixture(
        experts=(expert(logs), expert({"saturation_rps": np.zeros(2)}, name=CONSTANT))
    )
    first = next_suggestion(
        MonteCarloTreeSearch(space, WITHOUT_SLO, np.ones(2), seed=0, prior=prior)
    )
    # Means of 2 and 0 by halves: exp(1). Variances 0.5^2 + 0.25^2 = 0.3125 each, and 1 for the
    # difference of the means: sqrt(1.3125) = 1.146.
    assert first.expected == {"saturation_rps": pytest.approx(np.e)}
    assert "; predicted saturation_rps 2.72 (sd 115 %)" in first.why


def test_a_suggestion_says_why_its_part_of_the_tree_exists() -> None:
    optimizer = make(prior=TRUE)
    suggestion = next_suggestion(optimizer)
    row = SPACE.index[suggestion.configuration]
    (leaf,) = (each for each in optimizer.root.leaves() if row in each.rows)
    assert leaf.why
    assert suggestion.why.endswith("; " + leaf.why)


@pytest.mark.parametrize("tree", [True, False])
def test_the_tree_needs_curves(*, tree: bool) -> None:
    without_operators = ExpertMixture(experts=TRUE.experts)
    assert make(prior=without_operators, tree=tree).root.is_leaf
    assert make(prior=None, tree=tree).root.is_leaf
    assert make(prior=TRUE, tree=tree).root.is_leaf is not tree


def test_what_a_pending_trial_is_believed_to_score_is_the_mark_to_beat() -> None:
    space = ConfigurationSpace.of({"dtype": ["a", "b"]})
    prior = of_logs(np.log([50.0, 20.0]))
    optimizer = MonteCarloTreeSearch(space, WITHOUT_SLO, np.ones(2), seed=0, prior=prior)
    assert suggest(optimizer) == space.candidates[0]
    # The constant expects sqrt(50 * 20) = 31.62 of both: (0.9 * 50 + 0.1 * 31.62) * 3600 / 1
    assert " over a believed 173,384 requests/$; " in next_suggestion(optimizer).why


def test_metrics_that_nothing_is_known_of_are_not_predicted() -> None:
    optimizer = make(WITH_SLO)
    slow = SPACE.configuration({"batch_size": 128, "cpu_cores": 1, "dtype": "float32"})
    optimizer.observe(measured(slow, WITH_SLO))  # no capacity, only a latency
    suggestion = next_suggestion(optimizer)
    assert set(suggestion.expected) == {"floor_latency_ms"}
    assert "capacity_rps" not in suggestion.why


def test_infeasible_trials_keep_the_search_away_from_their_neighbours() -> None:
    def tried(*, large_batches_run: bool) -> list[Configuration]:
        optimizer = make()
        found: list[Configuration] = []
        for _ in range(10):
            found.append(suggest(optimizer))
            runs = large_batches_run or found[-1].count("batch_size", 1) <= 16
            ending = measured(found[-1], WITHOUT_SLO) if runs else infeasible(found[-1])
            optimizer.observe(ending)
        return found

    def large(found: list[Configuration]) -> int:
        return sum(each.count("batch_size", 1) > 16 for each in found)

    assert large(tried(large_batches_run=False)) < large(tried(large_batches_run=True)) - 2


def test_a_start_in_the_dark_keeps_farther_from_what_did_not_run_than_from_what_is_pending() -> (
    None
):
    line = ConfigurationSpace.of({"batch_wait_ms": [0, 48, 55, 100]})
    optimizer = make(space=line)
    optimizer.observe(infeasible(line.candidates[0]))
    # 100 is the farthest; then 48 is 48 away from either, 55 only 45, but likelier to run.
    assert [suggest(optimizer)["batch_wait_ms"] for _ in range(2)] == [100, 55]


def test_a_suggestion_near_infeasible_trials_says_how_likely_it_runs() -> None:
    optimizer = make()
    optimizer.observe(infeasible(suggest(optimizer)))
    assert "; runs with probability 0." in next_suggestion(optimizer).why


def test_an_slo_that_nothing_comes_near_still_leads_towards_it() -> None:
    space = ConfigurationSpace.of({"cpu_cores": [1, 2, 4, 8, 16]})
    optimizer = make(WITH_SLO, space=space)
    for cores, floor_ms in ((1, 4e8), (2, 2e8)):
        measurement = Measurement(saturation_rps=1.0, floor_latency_ms=floor_ms)
        optimizer.observe(
            Observation(
                configuration=space.configuration({"cpu_cores": cores}),
                status=TrialStatus.MEASURED,
                measurement=measurement,
            )
        )
    # The limit is 17 natural logs away, where no sample comes near.
    assert dict(suggest(optimizer)) == {"cpu_cores": 16}


def test_two_latencies_of_a_language_model_are_searched_by_answers_per_dollar() -> None:
    space = ConfigurationSpace.of({"concurrency": [1, 4, 16, 64]})
    limited = GenerationObjective(output_tokens=101, tpot_budget_ms=25.0)
    tpot_ms = np.array([10.0, 12.0, 20.0, 60.0])
    logs = {"ttft_ms": np.log(10 * tpot_ms), "tpot_ms": np.log(tpot_ms)}
    prices = 1 / np.array([1.0, 4.0, 16.0, 64.0])
    prior = ExpertMixture(experts=(expert(logs, offset_sd=0.05, residual_sd=0.05),))
    free = GenerationObjective(output_tokens=101)
    for objective, concurrency in ((limited, 16), (free, 64)):
        optimizer = MonteCarloTreeSearch(space, objective, prices, seed=0, prior=prior)
        assert dict(suggest(optimizer)) == {"concurrency": concurrency}
        extra = {"ttft_ms": 200.0, "tpot_ms": 20.0}
        observation = Observation(
            configuration=space.configuration({"concurrency": 16}),
            status=TrialStatus.MEASURED,
            measurement=Measurement(saturation_rps=1.0, extra=extra),
        )
        optimizer.observe(observation)
        assert optimizer.recommend() == observation


@pytest.mark.parametrize("tree", [True, False])
def test_one_candidate_is_suggested_and_recommended(*, tree: bool) -> None:
    one = ConfigurationSpace.of({"batch_size": [8]})
    for prior in (None, true_mixture(one, WITHOUT_SLO)):
        optimizer = make(space=one, prior=prior, tree=tree)
        assert optimizer.outlook() is None
        observation = measured(suggest(optimizer), WITHOUT_SLO)
        optimizer.observe(observation)
        assert optimizer.exhausted
        assert optimizer.outlook() is None
        assert optimizer.recommend() == observation


@pytest.mark.parametrize(
    ("objective", "at_most"), [(WITHOUT_SLO, 9.0), (WITH_SLO, 11.0)], ids=["no SLO", "SLO"]
)
def test_without_a_prior_it_needs_far_fewer_trials_than_random_search(
    objective: Objective, at_most: float
) -> None:
    seeds = range(6)
    ours = [trials_to_within_5_percent(make(objective, seed=seed), objective) for seed in seeds]
    random = [
        trials_to_within_5_percent(RandomSearch(SPACE, objective, PRICES, seed=seed), objective)
        for seed in range(50)
    ]
    assert np.mean(ours) <= at_most
    assert np.mean(ours) < 0.5 * np.mean(random)


def test_of_equally_good_candidates_the_cheapest_is_tried_first() -> None:
    space = ConfigurationSpace.of({"replicas": [1, 2, 4]})
    replicas = np.array([1.0, 2.0, 4.0])
    # Rates and prices double together: what a dollar buys differs by rounding at most.
    prior = of_logs(np.log(7.0 * replicas))
    for factor in (0.1, 0.3, 0.7):
        optimizer = MonteCarloTreeSearch(space, WITHOUT_SLO, factor * replicas, seed=0, prior=prior)
        assert suggest(optimizer)["replicas"] == 1
