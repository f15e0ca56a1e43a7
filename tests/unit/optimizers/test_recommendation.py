"""What is recommended, and what is left to gain."""

import numpy as np

from falcon_ray.knowledge.mixture import ExpertMixture
from falcon_ray.optimizers.experts import CONSTANT
from falcon_ray.optimizers.mcts import MonteCarloTreeSearch
from falcon_ray.optimizers.stopping import why_stop
from falcon_ray.space.configuration import ConfigurationSpace
from falcon_ray.space.objective import Objective
from tests.unit.optimizers.synthetic_serving import (
    SPACE,
    WITH_SLO,
    WITHOUT_SLO,
    expert,
    infeasible,
    measured,
    rate,
    scores,
    suggest,
    true_mixture,
    usd_per_hour,
)

SMALL = ConfigurationSpace.of({"batch_size": [1, 2, 4], "cpu_cores": [1, 2, 4]})


def informed(
    objective: Objective = WITHOUT_SLO, space: ConfigurationSpace = SPACE
) -> MonteCarloTreeSearch:
    """With a prior that is right."""
    prior = true_mixture(space, objective)
    return MonteCarloTreeSearch(space, objective, usd_per_hour(space), seed=0, prior=prior)


def test_of_noisy_trials_the_one_that_is_believed_to_be_best_is_recommended() -> None:
    # Six neighbours agree on 100 requests/s; one of them was lucky by 10 %, which noise of
    # 5 % explains, and a far one that is expected to reach 107 did.
    space = ConfigurationSpace.of({"dtype": ["a", "b"], "batch_wait_ms": range(16)})
    logs = np.repeat(np.log([100.0, 107.0]), 16)
    prior = ExpertMixture(
        experts=(expert({"saturation_rps": logs}, name=CONSTANT, offset_sd=0.02, residual_sd=0.02),)
    )
    optimizer = MonteCarloTreeSearch(space, WITHOUT_SLO, np.ones(32), seed=0, prior=prior)
    for i in range(6):
        optimizer.observe(rate(space.candidate(i), 110.0 if i == 3 else 100.0))
    believed_best = rate(space.candidate(20), 107.0)
    optimizer.observe(believed_best)
    assert optimizer.recommend() == believed_best


def test_only_what_was_tried_and_feasible_is_recommended() -> None:
    optimizer = informed(WITH_SLO)
    assert optimizer.recommend() is None
    best = suggest(optimizer)
    optimizer.observe(infeasible(best))
    assert optimizer.recommend() is None
    meets_it = int(np.flatnonzero(scores(SPACE, WITH_SLO))[0])
    poor = measured(SPACE.candidates[meets_it], WITH_SLO)
    optimizer.observe(poor)
    assert optimizer.recommend() == poor


def test_the_outlook_begins_with_the_first_success_and_ends_with_the_space() -> None:
    optimizer = informed(WITH_SLO, SMALL)
    assert optimizer.outlook() is None
    slow = SMALL.configuration({"batch_size": 4, "cpu_cores": 1})
    optimizer.observe(measured(slow, WITH_SLO))  # breaks the SLO
    assert optimizer.outlook() is None
    while not optimizer.exhausted:
        optimizer.observe(measured(suggest(optimizer), WITH_SLO))
        outlook = optimizer.outlook()
        assert (outlook is None) == optimizer.exhausted
    assert optimizer.outlook() is None


def test_the_outlook_falls_until_the_search_should_stop() -> None:
    optimizer = informed()
    first, last = None, None
    for n_measured in range(1, 7):
        optimizer.observe(measured(suggest(optimizer), WITHOUT_SLO))
        last = optimizer.outlook()
        assert last is not None
        assert last.n_measured == n_measured
        assert 0 <= last.probability_of_better <= 1
        first = first or last
    assert first is not None
    assert last is not None
    assert why_stop(first) == ""
    assert last.expected_gain < first.expected_gain
    assert last.probability_of_better < first.probability_of_better
    assert why_stop(last)


def test_asking_for_the_outlook_or_the_recommendation_changes_nothing() -> None:
    asked, plain = informed(), informed()
    for _ in range(3):
        observation = measured(suggest(plain), WITHOUT_SLO)
        assert suggest(asked) == observation.configuration
        asked.outlook()
        asked.recommend()
        for optimizer in (asked, plain):
            optimizer.observe(observation)
