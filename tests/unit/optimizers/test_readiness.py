"""What could start at once comes first among nearly equals, and nodes that must come up cost."""

import math

import numpy as np
import pytest

from falcon_ray.errors import InputError
from falcon_ray.knowledge.mixture import ExpertMixture
from falcon_ray.optimizers.mcts import MonteCarloTreeSearch, Parallel
from falcon_ray.optimizers.readiness import INDIFFERENCE, Readiness
from falcon_ray.space.configuration import ConfigurationSpace, FloatArray
from tests.unit.optimizers.synthetic_serving import WITHOUT_SLO, expert, rate

SPACE = ConfigurationSpace.of({"gpu_type": ["T4", "L4"], "batch_size": [1, 8]})
T4 = {"gpu_type": "T4", "batch_size": 1}
L4 = {"gpu_type": "L4", "batch_size": 1}
PAIR = ConfigurationSpace.of({"gpu_type": ["T4", "L4"], "batch_size": [1]})


def search(
    rates: list[float],
    *,
    trial_cost: FloatArray | None = None,
    parallel: Parallel = Parallel.BELIEVER,
) -> MonteCarloTreeSearch:
    """Over `PAIR`; so many requests per dollar are expected, with certainty."""
    prior = ExpertMixture(
        experts=(expert({"saturation_rps": np.log(rates)}, name="a", residual_sd=0.0),)
    )
    return MonteCarloTreeSearch(
        PAIR,
        WITHOUT_SLO,
        np.ones(2),
        seed=0,
        prior=prior,
        trial_cost=trial_cost,
        parallel=parallel,
    )


def tried(optimizer: MonteCarloTreeSearch, readiness: Readiness) -> str:
    suggestion = optimizer.suggest(readiness)
    assert suggestion is not None
    return suggestion.configuration.text("gpu_type", "")


@pytest.mark.parametrize(
    ("rate_of_ready", "expected"),
    [(100 * INDIFFERENCE + 1, "T4"), (100 * INDIFFERENCE - 1, "L4")],
)
def test_what_is_ready_comes_first_where_it_is_worth_nearly_as_much(
    rate_of_ready: float, expected: str
) -> None:
    # The constant expert holds a tenth of the weight and expects the mean of logs of both, which
    # moves either by less than the 1 that the rates are off the tolerance.
    optimizer = search([rate_of_ready, 100.0])
    readiness = Readiness.by_gpu_type(PAIR, {"L4": 0.0}, ready={"T4"})
    assert tried(optimizer, readiness) == expected


@pytest.mark.parametrize(("start_cost", "expected"), [(0.5, "L4"), (2.0, "T4")])
def test_starting_a_node_counts_as_part_of_what_a_trial_costs(
    start_cost: float, expected: str
) -> None:
    # Twice the rate is worth a start that makes the trial 1.5 times as dear, and not one that
    # makes it three times so.
    readiness = Readiness.by_gpu_type(PAIR, {"L4": start_cost}, ready={"T4"})
    assert tried(search([50.0, 100.0], trial_cost=np.ones(2)), readiness) == expected


def test_starting_a_node_does_not_count_where_costs_of_trials_do_not() -> None:
    readiness = Readiness.by_gpu_type(PAIR, {"L4": 1e6}, ready={"T4"})
    assert tried(search([50.0, 100.0]), readiness) == "L4"


@pytest.mark.parametrize("trial_cost", [None, np.ones(2)], ids=["gain", "gain per cost"])
def test_a_type_that_did_not_come_is_left_alone_until_it_can_be_had_again(
    trial_cost: FloatArray | None,
) -> None:
    optimizer = search([1.0, 100.0], trial_cost=trial_cost)
    first = optimizer.suggest(Readiness.by_gpu_type(PAIR, {"T4": 0.0, "L4": 0.0}, ready=()))
    assert first is not None
    assert first.configuration == PAIR.configuration(L4)
    optimizer.withdraw(first.configuration)  # the autoscaler did not deliver
    assert tried(optimizer, Readiness.by_gpu_type(PAIR, {"T4": 0.0}, ready=())) == "T4"
    optimizer.observe(rate(PAIR.configuration(T4), 1.0))
    assert tried(optimizer, Readiness.by_gpu_type(PAIR, {"L4": 0.0}, ready=())) == "L4"


def test_the_very_first_trial_of_a_search_that_knows_nothing_is_one_that_is_ready() -> None:
    for ready in ("T4", "L4"):
        optimizer = MonteCarloTreeSearch(SPACE, WITHOUT_SLO, np.ones(4), seed=0)
        readiness = Readiness.by_gpu_type(SPACE, {"T4": 1.0, "L4": 1.0}, ready={ready})
        assert tried(optimizer, readiness) == ready


def test_a_draw_leaves_out_what_cannot_be_had() -> None:
    optimizer = MonteCarloTreeSearch(
        SPACE,
        WITHOUT_SLO,
        np.ones(4),
        seed=0,
        prior=ExpertMixture(experts=(expert({"saturation_rps": np.zeros(4)}),)),
        parallel=Parallel.THOMPSON,
    )
    only = Readiness.by_gpu_type(SPACE, {"T4": 1.0}, ready=())
    assert [tried(optimizer, only) for _ in range(2)] == ["T4", "T4"]


@pytest.mark.parametrize("ready", [{"a"}, set[str]()], ids=["ready", "not ready"])
def test_a_large_space_is_searched_among_what_can_be_had(ready: set[str]) -> None:
    # Only every sixtieth candidate can be had, and the prior likes all the others better.
    space = ConfigurationSpace.of(
        {"gpu_type": ["a", *(f"b{i}" for i in range(59))], "batch_wait_ms": range(100)}
    )
    logs = np.array([0.0 if each["gpu_type"] == "a" else 3.0 for each in space.candidates])
    prior = ExpertMixture(experts=(expert({"saturation_rps": logs}),))
    optimizer = MonteCarloTreeSearch(space, WITHOUT_SLO, np.ones(6000), seed=0, prior=prior)
    readiness = Readiness.by_gpu_type(space, {"a": 1.0}, ready=ready)
    assert [tried(optimizer, readiness) for _ in range(3)] == ["a", "a", "a"]


def test_readiness_by_type_tells_what_is_ready_what_can_be_started_and_what_cannot_be_had() -> None:
    readiness = Readiness.by_gpu_type(SPACE, {"L4": 0.3}, ready=())
    by_type = dict(
        zip([each["gpu_type"] for each in SPACE.candidates], readiness.start_cost, strict=True)
    )
    assert by_type == {"T4": math.inf, "L4": 0.3}
    assert not readiness.ready.any()
    ready = Readiness.by_gpu_type(SPACE, {"L4": 0.3}, ready={"T4", "L4"})
    assert ready.ready.all()
    assert not ready.start_cost.any()


def test_a_space_without_gpu_types_has_one_kind_of_node() -> None:
    space = ConfigurationSpace.of({"batch_size": [1, 8]})
    assert Readiness.by_gpu_type(space, {}, ready={""}).ready.all()
    assert Readiness.by_gpu_type(space, {"": 0.2}, ready=()).start_cost.tolist() == [0.2, 0.2]


def test_what_a_budget_does_not_allow_cannot_be_had() -> None:
    readiness = Readiness.by_gpu_type(SPACE, {}, ready={"T4", "L4"})
    left = readiness.without(np.array([True, False, False, False]))
    assert left.attainable.tolist() == [False, True, True, True]
    assert left.ready.tolist() == [False, True, True, True]


@pytest.mark.parametrize(
    ("costs", "problem"),
    [
        ([0.0], r"got the shapes \(2,\) and \(1,\)"),
        ([0.0, -1.0], "must not be negative, got -1.0"),
        ([0.0, math.nan], "must not be negative, got nan"),
    ],
)
def test_readiness_that_cannot_be_is_refused(costs: list[float], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        Readiness(np.array([True, False]), np.array(costs))
