"""Runs are judged by what was recorded, and are the same for any number of processes."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from falcon_ray.errors import InputError
from falcon_ray.optimizers.optimizer import Optimizer
from falcon_ray.optimizers.random_search import RandomSearch
from falcon_ray.optimizers.replay import ReplayTask
from falcon_ray.studies.search.comparison import Maker, Method, compare, regret_columns, regrets
from tests.unit.optimizers.recorded import Listed, by_batch

TASK = by_batch([None, 50.0, 94.0, 96.0, 100.0])
TASKS = [TASK, by_batch([1.0, 2.0, None, 4.0], name="second", family="other", model="other")]


def listed(*order: int) -> Method:
    def prepare(task: ReplayTask, sources: Sequence[ReplayTask]) -> Maker:
        del sources
        return lambda seed: Listed(task, order[seed:])

    return Method(name=f"listed {order}", prepare=prepare)


def drawn(task: ReplayTask, sources: Sequence[ReplayTask]) -> Maker:
    del sources

    def make(seed: int) -> Optimizer:
        return RandomSearch(task.space, task.objective, task.usd_per_hour, seed=seed)

    return make


RANDOM = Method(name="random", prepare=drawn, n_seeds=3)


def test_a_run_is_judged_by_how_soon_it_got_how_good() -> None:
    (run,) = compare([listed(0, 1, 2, 3, 4)], [TASK], budget=6, n_jobs=1).to_dict("records")
    # 0 is out of memory; 94 of 100 is within 10 %; 96 of 100 is within 5 %; 100 ends it.
    assert (run["trials_to_10"], run["trials_to_5"], run["n_trials"]) == (3, 4, 5)
    assert run["n_wasted"] == 1
    assert [run[each] for each in regret_columns(6)] == pytest.approx([1, 0.5, 0.06, 0.04, 0, 0])
    assert (run["task"], run["model"], run["family"], run["seed"]) == ("task", "model", "family", 0)
    assert run["n_candidates"] == 5


def test_a_budget_that_ends_too_early_is_a_miss() -> None:
    (run,) = compare([listed(0, 1)], [TASK], budget=2, n_jobs=1).to_dict("records")
    assert np.isnan(run["trials_to_5"])
    assert run["regret_2"] == 0.5


def test_exactly_five_percent_off_is_within_five_percent() -> None:
    task = by_batch([95.0, 100.0])
    (run,) = compare([listed(0)], [task], budget=2, n_jobs=1).to_dict("records")
    assert run["trials_to_5"] == 1


def test_nothing_feasible_tried_is_all_regret_and_all_waste() -> None:
    (run,) = compare([listed(0)], [TASK], budget=3, n_jobs=1).to_dict("records")
    assert [run[each] for each in regret_columns(3)] == [1, 1, 1]
    assert run["n_wasted"] == 1


def test_regret_stays_after_the_last_trial() -> None:
    assert regrets(TASK, np.array([1]), budget=3).tolist() == [0.5, 0.5, 0.5]


def test_a_task_of_one_candidate_is_solved_at_the_first_trial() -> None:
    (run,) = compare([listed(0)], [by_batch([7.0])], n_jobs=1).to_dict("records")
    assert (run["trials_to_5"], run["regret_1"], run["n_trials"]) == (1, 0, 1)


def test_only_other_families_are_learnt_from() -> None:
    seen: dict[str, list[str]] = {}

    def prepare(task: ReplayTask, sources: Sequence[ReplayTask]) -> Maker:
        seen[task.name] = [each.name for each in sources]
        return lambda seed: Listed(task, [seed])

    sister = by_batch([1.0], name="sister", model="sister")  # of the family "family"
    compare([Method(name="spy", prepare=prepare)], [*TASKS, sister], n_jobs=1)
    assert seen == {"task": ["second"], "second": ["task", "sister"], "sister": ["second"]}


def test_the_number_of_processes_changes_nothing() -> None:
    methods = [RANDOM, listed(3, 2, 1, 0)]
    one, two = (
        compare(methods, TASKS, noise_sd=0.1, n_jobs=n_jobs).drop(columns="suggestion_ms")
        for n_jobs in (1, 2)
    )
    pd.testing.assert_frame_equal(one, two)
    assert len(one) == 2 * (3 + 1)


def test_suggesting_and_observing_are_timed_together() -> None:
    ticks = iter(range(1000))
    runs = compare([listed(1, 2)], [TASK], budget=2, n_jobs=1, clock=lambda: float(next(ticks)))
    assert runs["suggestion_ms"].tolist() == [2000.0]  # one second to suggest, one to observe


@pytest.mark.parametrize(
    ("methods", "tasks", "problem"),
    [
        ([], TASKS, "there is no method to compare"),
        ([RANDOM], [], "there is no task to compare"),
        ([RANDOM, RANDOM], TASKS, "the method 'random' stands twice"),
        ([RANDOM], [TASK, TASK], "the task 'task' stands twice"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    methods: list[Method], tasks: list[ReplayTask], problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        compare(methods, tasks, n_jobs=1)
