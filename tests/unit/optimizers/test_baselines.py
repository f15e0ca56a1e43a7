"""The opponents keep the protocol, and do what their papers say."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from falcon_ray.optimizers.baselines.gp_ei import gp_ei
from falcon_ray.optimizers.baselines.likelihood_gp import fit_gp, probability_of_feasibility
from falcon_ray.optimizers.baselines.pool_search import PoolSearch, Trials
from falcon_ray.optimizers.baselines.popularity import popularity, votes
from falcon_ray.optimizers.baselines.rgpe import RankingSources, ranking_losses, rgpe
from falcon_ray.optimizers.baselines.source_scores import transfer
from falcon_ray.optimizers.baselines.transfer_gp import known_scores, transfer_gp
from falcon_ray.optimizers.replay import ReplayTask, replay
from tests.unit.optimizers.recorded import by_batch, recorded

TASK = by_batch([1.0, 2.0, 5.0, 9.0, 10.0, 4.0, None, None])
ALIKE = by_batch([10.0, 22.0, 50.0, 80.0, 99.0, 35.0, 20.0, None], name="alike", family="other")
OPPOSITE = by_batch([99.0, 60.0, 40.0, 20.0, 10.0, 5.0, 4.0, 3.0], name="opposite", family="third")
SOURCES = [ALIKE, OPPOSITE]


def make(
    name: str, task: ReplayTask, sources: Sequence[ReplayTask] = SOURCES, *, seed: int = 0
) -> PoolSearch:
    arguments = task.space, task.objective, task.usd_per_hour
    makers: dict[str, Callable[[], PoolSearch]] = {
        "popularity": lambda: popularity(*arguments, sources=sources),
        "gp_ei": lambda: gp_ei(*arguments, seed=seed),
        "transfer_gp": lambda: transfer_gp(
            *arguments, seed=seed, known=known_scores(task.space, sources)
        ),
        "rgpe": lambda: rgpe(
            *arguments, seed=seed, sources=RankingSources.fitted(task.space, sources)
        ),
    }
    return makers[name]()


every_baseline = pytest.mark.parametrize("name", ["popularity", "gp_ei", "transfer_gp", "rgpe"])


@every_baseline
@pytest.mark.parametrize("batch_size", [1, 3])
def test_each_candidate_is_tried_once_and_the_best_is_recommended(
    name: str, batch_size: int
) -> None:
    optimizer = make(name, TASK)
    tried = replay(TASK, optimizer, budget=30, batch_size=batch_size)
    assert sorted(tried.tolist()) == list(range(8))
    assert optimizer.exhausted
    assert optimizer.suggest() is None
    assert optimizer.recommend() is TASK.observations[4]


@every_baseline
def test_equal_seeds_give_equal_searches(name: str) -> None:
    first, again = (replay(TASK, make(name, TASK, seed=5), budget=8).tolist() for _ in range(2))
    assert first == again


@every_baseline
def test_it_goes_on_when_nothing_is_feasible_at_first(name: str) -> None:
    task = by_batch([None, None, None, None, None, None, None, 1.0])
    assert 7 in replay(task, make(name, task), budget=8).tolist()


def test_a_vote_is_the_mean_of_normalised_scores() -> None:
    # batch 1: 10/99 and 99/99; batch 64: 20/99 and 4/99; batch 128: out of memory, and 3/99.
    found = votes(TASK.space, SOURCES)
    assert found[0] == pytest.approx((10 / 99 + 1) / 2)
    assert found[6] == pytest.approx((20 / 99 + 4 / 99) / 2)
    assert found[7] == pytest.approx((0 + 3 / 99) / 2)


def test_a_vote_goes_by_values_where_no_source_has_the_configuration() -> None:
    source = recorded(
        {
            (("gpu_type", "L4"), ("batch_size", 1)): 2.0,
            (("gpu_type", "L4"), ("batch_size", 8)): 4.0,
            (("gpu_type", "A100"), ("batch_size", 1)): 1.0,
        },
        family="other",
    )
    task = recorded({(("gpu_type", "A100"), ("batch_size", 8)): 1.0})
    # A100: 1/4; batch 8: 4/4; their mean is 5/8.
    assert votes(task.space, [source]).tolist() == [0.625]


def test_values_and_dimensions_that_a_source_lacks_stand_in_the_middle() -> None:
    source = recorded({(("gpu_type", "L4"),): 1.0}, family="other")
    task = recorded(
        {
            (("gpu_type", "A100"), ("batch_size", 1)): 1.0,
            (("gpu_type", "A100"), ("batch_size", 4)): 1.0,
        }
    )
    known = transfer(task.space, [source], max_configurations=10)
    half = 0.5**0.5  # two values of a categorical dimension are then 1 apart
    assert known.x.tolist() == [[half, 0, 0], [half, 0, 1]]
    assert known.sources[0].x.tolist() == [[0, half, 0.5]]


@pytest.mark.parametrize("name", ["popularity", "transfer_gp", "rgpe"])
def test_a_source_that_is_alike_is_followed_at_once(name: str) -> None:
    # 9 and 10 are the two best; the process also weighs how near out of memory is.
    assert replay(TASK, make(name, TASK, [ALIKE]), budget=1)[0] in (3, 4)


def test_rgpe_drops_a_source_that_ranks_the_trials_wrongly() -> None:
    sources = RankingSources.fitted(TASK.space, SOURCES)
    optimizer = rgpe(TASK.space, TASK.objective, TASK.usd_per_hour, seed=0, sources=sources)
    for index in (0, 2, 3):
        optimizer.observe(TASK.observations[index])
    suggestion = optimizer.suggest()
    assert suggestion is not None
    assert suggestion.configuration == TASK.space.candidate(4)


def test_a_ranking_loss_counts_ordered_pairs() -> None:
    # 1 < 2 < 3 was shown. Said 1 < 3 < 2: the pair (2, 3) is wrong both ways round.
    losses = ranking_losses(
        np.array([[1.0, 2.0, 3.0], [1.0, 3.0, 2.0], [3.0, 2.0, 1.0]]), np.array([1.0, 2.0, 3.0])
    )
    assert losses.tolist() == [0, 2, 6]


def test_what_was_left_out_is_expected_as_by_a_process_without_it() -> None:
    x = np.linspace(0, 1, 6)[:, np.newaxis]
    values = np.sin(5 * x[:, 0])
    gp = fit_gp(x, values, rng=np.random.default_rng(0))
    mean, sd = gp.leave_one_out(values)
    standardised = (values - gp.centre) / gp.scale
    others = np.arange(6) != 2
    kernel: Any = gp.regressor.kernel_
    covariance = np.asarray(kernel(x))
    weights = np.linalg.solve(covariance[np.ix_(others, others)], covariance[others, 2])
    assert mean[2] == pytest.approx(weights @ standardised[others], rel=1e-4)
    variance = covariance[2, 2] - weights @ covariance[others, 2]
    assert sd[2] == pytest.approx(np.sqrt(variance), rel=1e-4)


def test_feasibility_is_likelier_near_what_was_feasible() -> None:
    x = np.array([[0.0], [0.2], [0.9], [1.0]])
    fits = probability_of_feasibility(
        x,
        np.array([True, True, False, False]),
        np.array([[0.1], [0.95]]),
        rng=np.random.default_rng(0),
    )
    assert fits[0] > 0.9
    assert fits[1] < 0.1


def test_what_is_infeasible_counts_as_the_worst_score() -> None:
    trials = Trials(
        tried=np.array([0, 1, 2]),
        log_scores=np.array([2.0, np.nan, -1.0]),
        pending=np.zeros(0, dtype=np.intp),
        available=np.array([3]),
    )
    assert trials.penalised.tolist() == [2.0, -1.0, -1.0]
