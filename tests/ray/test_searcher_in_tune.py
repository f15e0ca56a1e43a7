"""`falcon_ray.FalconSearch` in a user's own Tuner, with a trainable that serves nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray import tune
from ray.tune.search import ConcurrencyLimiter

from falcon_ray import FalconSearch
from falcon_ray.space.observation import TrialStatus

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_address")]

SPACE = {"cpu_cores": [1, 2], "batch_size": [1, 2, 4]}  # 6 configurations


def _serve(config: dict[str, Any]) -> None:
    tune.report({"saturation_rps": 100.0 * config.get("cpu_cores", 1) + config["batch_size"]})


def _fit(
    trainable: Callable[[dict[str, Any]], None],
    searcher: FalconSearch,
    directory: Path,
    *,
    num_samples: int,
) -> tune.ResultGrid:
    return tune.Tuner(
        tune.with_resources(trainable, {"cpu": 0.01}),
        tune_config=tune.TuneConfig(
            search_alg=ConcurrencyLimiter(searcher, max_concurrent=1),
            num_samples=num_samples,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(storage_path=str(directory), verbose=0),
    ).fit()


def test_a_users_tuner_runs_as_many_trials_as_it_asked_for(tmp_path: Path) -> None:
    searcher = FalconSearch(SPACE, seed=1)
    results = _fit(_serve, searcher, tmp_path, num_samples=4)
    assert [each.error for each in results] == [None] * 4
    tried = [each.configuration for each in searcher.observations]
    assert len(set(tried)) == 4
    assert {each["cpu_cores"] for each in tried} <= {1, 2}
    for observation in searcher.observations:
        assert observation.measurement is not None
        expected = 100 * observation.configuration.number("cpu_cores", 0) + (
            observation.configuration.number("batch_size", 0)
        )
        assert observation.measurement.saturation_rps == pytest.approx(expected)


def test_a_trial_that_crashed_teaches_nothing_and_the_others_go_on(tmp_path: Path) -> None:
    marker = tmp_path / "crashed"

    def crash_once(config: dict[str, Any]) -> None:
        if not marker.exists():
            marker.touch()
            raise RuntimeError("the first trial crashes")
        _serve(config)

    searcher = FalconSearch(SPACE, seed=1)
    _fit(crash_once, searcher, tmp_path, num_samples=3)
    statuses = [each.status for each in searcher.observations]
    assert statuses == [TrialStatus.FAILED, TrialStatus.MEASURED, TrialStatus.MEASURED]
    crashed, *measured = [each.configuration for each in searcher.observations]
    assert len(set(measured)) == 2
    assert crashed in measured  # what the infrastructure broke once is tried once more


def test_a_space_without_untried_configurations_ends_the_run(tmp_path: Path) -> None:
    searcher = FalconSearch({"batch_size": [1, 2, 4]})
    results = _fit(_serve, searcher, tmp_path, num_samples=-1)
    assert len(results) == 3
    assert {each.configuration["batch_size"] for each in searcher.observations} == {1, 2, 4}
    assert searcher.end_reason == "every configuration was tried"
