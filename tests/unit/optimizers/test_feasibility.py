import numpy as np
import pytest

from falcon_ray.optimizers.feasibility import probability_of_running

LINE = np.array([[0.0], [1.0], [9.0]])


def rows(*indices: int) -> np.ndarray:
    return np.array(indices, dtype=np.intp)


def test_everything_runs_until_a_trial_did_not() -> None:
    assert probability_of_running(LINE, rows(0), rows()).tolist() == [1.0, 1.0, 1.0]


def test_an_infeasible_candidate_is_shunned_and_the_far_ones_are_not() -> None:
    probability = probability_of_running(LINE, rows(), rows(0))
    # The label is -2 where 1.3 was expected; variances: offset 0.25, signal 2.25, noise 0.25.
    # At 0: mean 1.3 - 3.3 * 2.5 / 2.75 = -1.7, variance 2.5 - 2.5^2 / 2.75 = 0.227273,
    #       Phi(-1.7 / sqrt(1.227273)) = Phi(-1.534537) = 0.062449
    # At 9: mean 1.3 - 3.3 * 0.25 / 2.75 = 1.0, variance 2.5 - 0.25^2 / 2.75 = 2.477273,
    #       Phi(1.0 / sqrt(3.477273)) = Phi(0.536269) = 0.704115
    assert probability[[0, 2]] == pytest.approx([0.062449, 0.704115], abs=1e-5)
    assert probability[0] < probability[1] < probability[2]


def test_a_trial_that_ran_speaks_for_its_neighbours() -> None:
    alone = probability_of_running(LINE, rows(), rows(0))
    beside_one_that_ran = probability_of_running(LINE, rows(1), rows(0))
    assert beside_one_that_ran[1] > 0.85
    assert (beside_one_that_ran > alone).all()


def test_a_boundary_is_carried_on_beyond_the_trials() -> None:
    line = np.arange(4.0)[:, np.newaxis] / 2
    probability = probability_of_running(line, rows(0, 1), rows(2))
    assert probability[3] < probability[2] + 0.15
    assert probability[3] < 0.35
