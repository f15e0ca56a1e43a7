"""Summaries count misses, and their intervals resample models."""

import numpy as np
import pandas as pd
import pytest

from falcon_ray.errors import InputError
from falcon_ray.studies.search.summary import saved_trials, summarise


def runs(method: str, trials: dict[str, list[float]]) -> pd.DataFrame:
    """One task per number, by model; NaN is a miss."""
    rows = [
        {
            "method": method,
            "model": model,
            "task": f"{model} {i}",
            "trials_to_5": each,
            "trials_to_10": each,
            "regret_1": 0.5,
            "n_wasted": i,
            "suggestion_ms": 3.0,
        }
        for model, numbers in trials.items()
        for i, each in enumerate(numbers)
    ]
    return pd.DataFrame(rows)


def test_a_miss_counts_31_in_the_mean_and_99_in_quantiles() -> None:
    (found,) = summarise(runs("a", {"m": [1, 2, np.nan]}), budget=30)
    assert found.mean.value == pytest.approx((1 + 2 + 31) / 3)
    assert found.median.value == 2
    assert found.p90.value == pytest.approx(2 + 0.8 * (99 - 2))  # rank 0.9 * 2 = 1.8
    assert found.within_6.value == pytest.approx(2 / 3)
    assert (found.first_regret.value, found.wasted.value, found.suggestion_ms) == (0.5, 1, 3.0)
    assert found.n_runs == 3


def test_one_model_leaves_no_width_because_its_tasks_are_never_split() -> None:
    (found,) = summarise(runs("a", {"m": [1, 2, 10, 20]}), budget=30)
    for each in (found.mean, found.median, found.p90):
        assert each.low == pytest.approx(each.value)
        assert each.high == pytest.approx(each.value)


def test_two_models_are_drawn_as_wholes() -> None:
    (found,) = summarise(runs("a", {"good": [1, 1], "bad": [9, 9]}), budget=30)
    # Both good with probability 1/4, both bad with 1/4.
    assert (found.mean.low, found.mean.value, found.mean.high) == (1, 5, 9)
    assert (found.within_6.low, found.within_6.high) == (0, 1)


def test_a_resampled_quantile_lies_between_its_neighbours() -> None:
    (found,) = summarise(runs("a", {"one": [1, 3], "two": [2, 8]}), budget=30)
    assert found.median.value == 2.5
    # Drawn twice, model one gives 1 1 3 3 with median 2, model two 2 2 8 8 with median 5.
    assert (found.median.low, found.median.high) == (2, 5)


def test_methods_keep_their_order() -> None:
    table = pd.concat([runs("z", {"m": [1]}), runs("a", {"m": [2]})])
    assert [each.method for each in summarise(table, budget=30)] == ["z", "a"]


def test_saved_trials_are_a_share_of_the_opponents_mean() -> None:
    table = pd.concat([runs("ours", {"m": [1, 5, 3, np.nan]}), runs("x", {"m": [20, 20, 20, 20]})])
    # Means 40 / 4 with the miss as 31, and 20.
    assert saved_trials(table, "ours", "x", budget=30).value == pytest.approx(1 - 10 / 20)


def test_a_missing_opponent_is_named() -> None:
    with pytest.raises(InputError, match="there are no runs of z"):
        saved_trials(runs("ours", {"m": [1]}), "ours", "z", budget=30)
