"""What every registered optimizer must do, whatever it believes."""

import json
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from falcon_ray.errors import InputError
from falcon_ray.optimizers.optimizer import Optimizer
from falcon_ray.optimizers.readiness import Readiness
from falcon_ray.optimizers.registry import OPTIMIZERS, make_optimizer
from falcon_ray.space.configuration import Configuration, ConfigurationSpace
from falcon_ray.space.objective import Objective
from falcon_ray.space.observation import Observation
from tests.unit.optimizers.synthetic_serving import (
    SPACE,
    WITH_SLO,
    WITHOUT_SLO,
    failed,
    infeasible,
    measured,
    replay,
    suggest,
    true_mixture,
    usd_per_hour,
)

ONE = ConfigurationSpace.of({"batch_size": [8]})
TWO = ConfigurationSpace.of({"dtype": ["float32", "int8"]})
NINE = ConfigurationSpace.of({"batch_size": [1, 8, 64], "cpu_cores": [1, 2, 4], "replicas": [1]})

every_optimizer = pytest.mark.parametrize("name", sorted(OPTIMIZERS))
every_prior = pytest.mark.parametrize("informed", [False, True], ids=["no prior", "prior"])
every_objective = pytest.mark.parametrize(
    "objective", [WITHOUT_SLO, WITH_SLO], ids=["no SLO", "SLO"]
)
every_ending = pytest.mark.parametrize("ending", [infeasible, failed])


def make(
    name: str,
    space: ConfigurationSpace,
    objective: Objective = WITHOUT_SLO,
    *,
    seed: int = 0,
    informed: bool = False,
) -> Optimizer:
    prior = true_mixture(space, objective) if informed else None
    return make_optimizer(name, space, objective, usd_per_hour(space), seed=seed, prior=prior)


def measured_without_slo(configuration: Configuration) -> Observation:
    return measured(configuration, WITHOUT_SLO)


def run(optimizer: Optimizer, objective: Objective, n_trials: int) -> list[Configuration]:
    tried: list[Configuration] = []
    for _ in range(n_trials):
        tried.append(suggest(optimizer))
        optimizer.observe(measured(tried[-1], objective))
    return tried


def next_after(
    name: str, observations: Sequence[Observation], objective: Objective, *, informed: bool
) -> object:
    optimizer = make(name, SPACE, objective, seed=3, informed=informed)
    replay(optimizer, observations)
    return optimizer.suggest()


@every_optimizer
@every_prior
@every_objective
@pytest.mark.parametrize("space", [ONE, TWO, NINE], ids=["1", "2", "9"])
def test_each_candidate_is_suggested_once_and_then_none(
    name: str, objective: Objective, space: ConfigurationSpace, *, informed: bool
) -> None:
    optimizer = make(name, space, objective, informed=informed)
    tried: list[Configuration] = []
    for _ in space.candidates:
        assert not optimizer.exhausted
        tried += run(optimizer, objective, 1)
    assert sorted(map(str, tried)) == sorted(map(str, space.candidates))
    assert optimizer.exhausted
    assert optimizer.suggest() is None


@every_optimizer
@every_prior
@every_objective
def test_suggestions_may_all_be_pending_at_once(
    name: str, objective: Objective, *, informed: bool
) -> None:
    optimizer = make(name, NINE, objective, informed=informed)
    pending = [suggest(optimizer) for _ in NINE.candidates]
    assert set(pending) == set(NINE.candidates)
    assert optimizer.exhausted
    assert optimizer.suggest() is None
    assert optimizer.recommend() is None


@every_optimizer
@every_prior
@every_objective
def test_four_at_a_time_never_suggests_a_candidate_twice(
    name: str, objective: Objective, *, informed: bool
) -> None:
    optimizer = make(name, SPACE, objective, informed=informed)
    tried: list[Configuration] = []
    for _ in range(3):
        batch = [suggest(optimizer) for _ in range(4)]
        tried += batch
        for configuration in reversed(batch):  # trials end in any order
            optimizer.observe(measured(configuration, objective))
    assert len(set(tried)) == 12
    assert set(tried) <= set(SPACE.candidates)


@every_optimizer
@every_prior
@every_objective
def test_equal_seeds_and_observations_give_equal_suggestions(
    name: str, objective: Objective, *, informed: bool
) -> None:
    first = run(make(name, SPACE, objective, seed=7, informed=informed), objective, 9)
    again = run(make(name, SPACE, objective, seed=7, informed=informed), objective, 9)
    assert first == again


def test_random_search_differs_by_seed() -> None:
    runs = {tuple(run(make("random", SPACE, seed=seed), WITHOUT_SLO, 3)) for seed in range(5)}
    assert len(runs) == 5


@every_optimizer
@every_prior
@every_objective
@pytest.mark.parametrize("n_trials", [0, 1, 3, 8])
def test_replaying_the_journal_continues_as_the_first_run_would_have(
    name: str, objective: Objective, n_trials: int, *, informed: bool
) -> None:
    original = make(name, SPACE, objective, seed=3, informed=informed)
    observations: list[Observation] = []
    for trial in range(n_trials):
        configuration = suggest(original)
        endings = {2: infeasible(configuration), 3: failed(configuration)}
        observations.append(endings.get(trial % 4, measured(configuration, objective)))
        original.observe(observations[-1])
    lines = [json.dumps(each.to_json()) for each in observations]
    restored = [Observation.from_json(json.loads(line)) for line in lines]
    assert next_after(name, restored, objective, informed=informed) == original.suggest()


@every_optimizer
@every_prior
def test_suggestions_that_were_pending_at_the_end_are_made_again(
    name: str, *, informed: bool
) -> None:
    original = make(name, SPACE, seed=3, informed=informed)
    observation = measured(suggest(original), WITHOUT_SLO)
    original.observe(observation)
    lost = original.suggest()
    assert next_after(name, [observation], WITHOUT_SLO, informed=informed) == lost


@every_optimizer
@every_prior
@every_objective
@every_ending
def test_it_goes_on_when_no_trial_is_ever_measured(
    name: str,
    objective: Objective,
    ending: Callable[[Configuration], Observation],
    *,
    informed: bool,
) -> None:
    optimizer = make(name, NINE, objective, informed=informed)
    tried: set[Configuration] = set()
    while not optimizer.exhausted:
        configuration = suggest(optimizer)
        tried.add(configuration)
        optimizer.observe(ending(configuration))
    assert tried == set(NINE.candidates)
    assert optimizer.recommend() is None


@every_optimizer
@every_prior
def test_a_failed_candidate_is_suggested_once_more_and_after_the_second_failure_never_again(
    name: str, *, informed: bool
) -> None:
    optimizer = make(name, NINE, informed=informed)
    tried: list[Configuration] = []
    while not optimizer.exhausted:
        tried.append(suggest(optimizer))
        optimizer.observe(failed(tried[-1]))
    assert Counter(tried) == dict.fromkeys(NINE.candidates, 2)
    assert optimizer.suggest() is None


@every_optimizer
@every_prior
@pytest.mark.parametrize("ending", [infeasible, measured_without_slo])
def test_a_verdict_is_never_asked_for_again_even_after_a_failure(
    name: str, ending: Callable[[Configuration], Observation], *, informed: bool
) -> None:
    optimizer = make(name, ONE, informed=informed)
    optimizer.observe(failed(suggest(optimizer)))
    assert not optimizer.exhausted
    again = suggest(optimizer)
    assert again == ONE.candidates[0]
    assert optimizer.exhausted  # it is pending
    optimizer.observe(ending(again))
    optimizer.observe(failed(again))
    assert optimizer.exhausted
    assert optimizer.suggest() is None


@every_optimizer
@every_prior
def test_what_was_observed_is_never_suggested(name: str, *, informed: bool) -> None:
    optimizer = make(name, NINE, informed=informed)
    first, second, third = NINE.candidates[:3]
    optimizer.observe(infeasible(first))
    optimizer.observe(measured_without_slo(second))
    for _ in range(2):
        optimizer.observe(failed(third))
    rest = [suggest(optimizer) for _ in range(6)]
    assert set(rest) == set(NINE.candidates[3:])
    assert optimizer.suggest() is None


@every_optimizer
@every_prior
def test_trials_that_were_not_suggested_count_too(name: str, *, informed: bool) -> None:
    optimizer = make(name, TWO, informed=informed)
    optimizer.observe(measured(TWO.candidates[0], WITHOUT_SLO))
    assert suggest(optimizer) == TWO.candidates[1]
    assert optimizer.exhausted


@every_optimizer
@every_prior
def test_a_configuration_may_be_observed_again(name: str, *, informed: bool) -> None:
    optimizer = make(name, TWO, informed=informed)
    configuration = suggest(optimizer)
    for _ in range(3):
        optimizer.observe(failed(configuration))
        optimizer.observe(measured(configuration, WITHOUT_SLO))
    assert suggest(optimizer) != configuration
    assert optimizer.exhausted


@every_optimizer
@every_prior
def test_a_trial_of_another_space_is_refused(name: str, *, informed: bool) -> None:
    optimizer = make(name, TWO, informed=informed)
    with pytest.raises(InputError, match="batch_size=8 is no candidate of this space"):
        optimizer.observe(measured(ONE.candidates[0], WITHOUT_SLO))


@every_optimizer
@every_prior
@every_objective
def test_the_best_measured_feasible_trial_is_recommended(
    name: str, objective: Objective, *, informed: bool
) -> None:
    optimizer = make(name, SPACE, objective, informed=informed)
    assert optimizer.recommend() is None
    rates: dict[Configuration, float] = {}
    for configuration in run(optimizer, objective, 8):
        measurement = measured(configuration, objective).measurement
        assert measurement is not None
        rates[configuration] = measurement.metric(objective.rate_metric) or 0.0
    prices = dict(zip(SPACE.candidates, usd_per_hour(SPACE), strict=True))
    best = max(rates, key=lambda each: rates[each] / prices[each])
    recommended = optimizer.recommend()
    assert recommended is not None
    assert rates[best] > 0
    assert recommended.configuration == best


@every_optimizer
@every_prior
def test_nothing_is_recommended_while_every_trial_breaks_the_slo(
    name: str, *, informed: bool
) -> None:
    optimizer = make(name, SPACE, WITH_SLO, informed=informed)
    slow = SPACE.configuration({"batch_size": 128, "cpu_cores": 1, "dtype": "float32"})
    optimizer.observe(measured(slow, WITH_SLO))
    assert optimizer.recommend() is None
    assert suggest(optimizer) != slow


@every_optimizer
@pytest.mark.parametrize(
    ("prices", "problem"),
    [
        ([1.0], r"for each of the 2 candidates, got the shape \(1,\)"),
        ([1.0, 0.0], "positive and finite, got 0.0 for dtype=int8"),
        ([1.0, np.inf], "positive and finite, got inf for dtype=int8"),
    ],
)
def test_prices_that_do_not_fit_are_refused(name: str, prices: list[float], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        make_optimizer(name, TWO, WITHOUT_SLO, np.array(prices), seed=0)


@every_optimizer
@every_prior
def test_every_suggestion_says_why_in_one_line(name: str, *, informed: bool) -> None:
    optimizer = make(name, SPACE, informed=informed)
    for _ in range(3):
        suggestion = optimizer.suggest()
        assert suggestion is not None
        assert len(suggestion.why) > 10
        assert "\n" not in suggestion.why
        optimizer.observe(measured(suggestion.configuration, WITHOUT_SLO))


def readiness(
    space: ConfigurationSpace, *, unattainable: Sequence[int] = (), ready: Sequence[int] = ()
) -> Readiness:
    """By position; what is neither could have a node at the cost 1."""
    costs = np.ones(len(space))
    costs[list(unattainable)] = np.inf
    is_ready = np.zeros(len(space), dtype=np.bool_)
    is_ready[list(ready)] = True
    return Readiness(is_ready, np.where(is_ready, 0.0, costs))


@every_optimizer
@every_prior
@every_objective
def test_what_cannot_be_had_is_suggested_only_when_nothing_else_is_left(
    name: str, objective: Objective, *, informed: bool
) -> None:
    optimizer = make(name, NINE, objective, informed=informed)
    lost = [0, 1, 4, 8]
    tried: list[int] = []
    for _ in NINE.candidates:
        suggestion = optimizer.suggest(readiness(NINE, unattainable=lost))
        assert suggestion is not None
        tried.append(NINE.index[suggestion.configuration])
        optimizer.observe(measured(suggestion.configuration, objective))
    assert set(tried[5:]) == set(lost)
    assert optimizer.suggest(readiness(NINE, unattainable=lost)) is None


@every_optimizer
@every_prior
@pytest.mark.parametrize("n_trials", [0, 3, 9])
def test_equal_observations_and_readiness_give_equal_suggestions(
    name: str, n_trials: int, *, informed: bool
) -> None:
    now = readiness(SPACE, unattainable=range(0, 120, 7), ready=range(3, 120, 5))
    found: list[object] = []
    for earlier in (None, readiness(SPACE, unattainable=range(60))):
        optimizer = make(name, SPACE, seed=5, informed=informed)
        for configuration in SPACE.candidates[:n_trials]:
            optimizer.observe(measured(configuration, WITHOUT_SLO))
        taken_back = optimizer.suggest(earlier)  # what was ready before leaves no trace
        assert taken_back is not None
        optimizer.withdraw(taken_back.configuration)
        found.append(optimizer.suggest(now))
    assert found[0] == found[1]


@every_optimizer
@every_prior
def test_where_all_is_ready_readiness_changes_nothing(name: str, *, informed: bool) -> None:
    plain, told = (make(name, SPACE, seed=5, informed=informed) for _ in range(2))
    for _ in range(5):
        suggestion = plain.suggest()
        assert told.suggest(readiness(SPACE, ready=range(len(SPACE)))) == suggestion
        assert suggestion is not None
        for each in (plain, told):
            each.observe(measured(suggestion.configuration, WITHOUT_SLO))


@every_optimizer
@every_prior
def test_a_withdrawn_suggestion_is_as_if_it_had_never_been_made(
    name: str, *, informed: bool
) -> None:
    optimizer = make(name, NINE, seed=2, informed=informed)
    run(optimizer, WITHOUT_SLO, 3)
    first = optimizer.suggest()
    assert first is not None
    for _ in range(3):  # unlike a failure, it may be taken back any number of times
        optimizer.withdraw(first.configuration)
        assert optimizer.suggest() == first


@every_optimizer
@every_prior
def test_only_a_pending_suggestion_can_be_withdrawn(name: str, *, informed: bool) -> None:
    optimizer = make(name, NINE, informed=informed)
    configuration = run(optimizer, WITHOUT_SLO, 1)[0]
    with pytest.raises(InputError, match="is not pending"):
        optimizer.withdraw(configuration)


@every_optimizer
@every_prior
def test_readiness_of_another_space_is_refused(name: str, *, informed: bool) -> None:
    optimizer = make(name, NINE, informed=informed)
    with pytest.raises(InputError, match="speaks of 2 candidates, the space has 9"):
        optimizer.suggest(readiness(TWO))


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("bayes", "no optimizer 'bayes'; did you mean 'bayesian'"),
        ("Random", "no optimizer 'Random'; did you mean 'random'"),
        ("xyz", "no optimizer 'xyz'; known are bayesian, mcts, random"),
    ],
)
def test_an_unknown_optimizer_is_refused_with_the_nearest_name(asked: str, answer: str) -> None:
    with pytest.raises(InputError, match=answer):
        make(asked, TWO)
