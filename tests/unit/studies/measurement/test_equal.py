import numpy as np
import pytest

from falcon_ray.studies.measurement.equal import figures, simulated_search
from falcon_ray.studies.measurement.options import MeasurementOptions


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_without_noise_between_deployments_a_large_gain_is_named() -> None:
    outcome = simulated_search(rng(0), n_rounds=2, true_gain=0.5, deployment_sd=0.0)
    assert outcome.names_better
    assert outcome.gain == pytest.approx(0.5, abs=0.05)
    assert outcome.naive_gain == pytest.approx(0.5, abs=0.05)


def test_equal_configurations_are_mostly_told_to_be_equal() -> None:
    """Each search errs with probability 5 % at most; 4 or more of 20 would be a 2 % accident."""
    outcomes = [simulated_search(rng(seed), n_rounds=2) for seed in range(20)]
    assert sum(each.shows_difference for each in outcomes) < 4
    # The best of six single measurements is not the baseline in 5 of 6 searches.
    assert sum(each.naive_gain > 0 for each in outcomes) > 10
    assert not any(each.names_better and each.gain == 0 for each in outcomes)


def test_the_same_seed_gives_the_same_search() -> None:
    assert simulated_search(rng(3), n_rounds=1) == simulated_search(rng(3), n_rounds=1)


def test_as_many_searches_are_run_as_are_asked_for() -> None:
    found = figures(MeasurementOptions(runs=1))
    assert {each.unit for each in found} == {"of 1", "%"}
    assert [each.at_least for each in found if each.at_least is not None] == [1, 1]
