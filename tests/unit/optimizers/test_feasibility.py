import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from falcon_ray.optimizers.coordinates import Coordinates, IndexArray, matern
from falcon_ray.optimizers.feasibility import Feasibility, Verdicts, probability_of_running
from falcon_ray.space.configuration import ConfigurationSpace, FloatArray

# Waits are no need of memory: a line of 2 length scales, its ends 2 apart.
LINE_SPACE = ConfigurationSpace.of({"batch_wait_ms": [0, 1, 2, 3, 4]})
LINE = Coordinates(LINE_SPACE)
SPACE = ConfigurationSpace.of({"batch_size": [1, 2, 4, 8], "gpu_type": ["T4", "L4"]})
ALL = np.arange(8)


def rows(*indices: int) -> IndexArray:
    return np.array(indices, dtype=np.intp)


def verdicts(
    *,
    ran: tuple[int, ...] = (),
    out_of_memory: tuple[int, ...] = (),
    other: tuple[int, ...] = (),
) -> Verdicts:
    return Verdicts(ran=rows(*ran), out_of_memory=rows(*out_of_memory), other=rows(*other))


def feasibility(share: list[float] | None, space: ConfigurationSpace = LINE_SPACE) -> Feasibility:
    log_share = None if share is None else np.array(share)
    return Feasibility(space, Coordinates(space), log_share)


def fits_by_integration(share: float, *, ran: list[float], out: list[float]) -> float:
    """P(share + offset + rest < 0) given trials, over the offset ~ N(0, 0.35^2), rest 0.2."""

    def weight(offset: float) -> float:
        density = float(norm.pdf(offset, scale=0.35))
        for each in ran:
            density *= float(norm.cdf(-(each + offset) / 0.2))
        for each in out:
            density *= float(norm.cdf((each + offset) / 0.2))
        return density

    def joint(offset: float) -> float:
        return weight(offset) * float(norm.cdf(-(share + offset) / 0.2))

    return quad(joint, -1.4, 1.4)[0] / quad(weight, -1.4, 1.4)[0]


def test_everything_runs_while_nothing_is_known_and_nothing_failed() -> None:
    assert feasibility(None).probability(np.arange(5), verdicts()).tolist() == [1.0] * 5
    assert feasibility(None).probability(rows(2), verdicts(ran=(1, 3))).tolist() == [1.0]


def test_before_any_trial_needs_of_memory_are_off_by_both_errors() -> None:
    probability = feasibility([0.0, -0.4, 0.4, -2.0, -3.9]).probability(np.arange(5), verdicts())
    # Together the errors have the sd sqrt(0.35^2 + 0.2^2) = 0.403113: Phi(0.4 / 0.403113) = 0.8395
    assert probability == pytest.approx([0.5, 0.8395, 0.1605, 1.0, 1.0], abs=1e-3)


@pytest.mark.parametrize("share", [-0.5, 0.0, 0.3])
def test_trials_move_the_threshold_as_the_posterior_says(share: float) -> None:
    known = feasibility([share, 0.2, -0.1, 0.0, 0.0])
    both = known.probability(rows(0), verdicts(ran=(1,), out_of_memory=(2,)))
    assert both == pytest.approx(fits_by_integration(share, ran=[0.2], out=[-0.1]), abs=2e-3)


def test_running_out_of_memory_warns_of_equal_needs_and_running_assures_of_them() -> None:
    known = feasibility([0.0, 0.0, 0.0, 0.0, -1.5])
    before = known.probability(rows(0, 4), verdicts())
    after_out = known.probability(rows(0, 4), verdicts(out_of_memory=(1,)))
    after_run = known.probability(rows(0, 4), verdicts(ran=(1,)))
    assert after_out[0] == pytest.approx(fits_by_integration(0, ran=[], out=[0.0]), abs=2e-3)
    assert after_out[0] < 0.25 < before[0] < 0.75 < after_run[0]
    assert after_out[1] > 0.95  # what needs a fifth of the memory still fits


def test_memory_that_is_known_is_not_learnt_from_neighbours_as_well() -> None:
    # Candidate 1 is next to the one that did not fit, but needs next to nothing.
    known = feasibility([0.5, -3.0, 0.0, 0.0, -3.0])
    near, far = known.probability(rows(1, 4), verdicts(out_of_memory=(0,)))
    assert near == pytest.approx(far)
    assert near > 0.99


def test_memory_that_is_unknown_is_learnt_from_neighbours() -> None:
    near, far = feasibility(None).probability(rows(1, 4), verdicts(out_of_memory=(0,)))
    assert near < far < 1


def test_what_needs_far_too_much_is_very_unlikely_and_not_impossible() -> None:
    probability = feasibility([3.0, 30.0, 0.0, 0.0, 0.0]).probability(rows(0, 1), verdicts())
    assert probability.tolist() == [1e-3, 1e-3]


@pytest.mark.parametrize("share", [None, [-3.0] * 8], ids=["unknown", "known"])
def test_larger_batches_of_what_did_not_fit_are_ruled_out_and_other_gpus_are_not(
    share: list[float] | None,
) -> None:
    batch_4_on_a_t4 = SPACE.position({"batch_size": 4, "gpu_type": "T4"})
    assert batch_4_on_a_t4 is not None
    probability = feasibility(share, SPACE).probability(
        ALL, verdicts(out_of_memory=(batch_4_on_a_t4,))
    )
    ruled_out = [SPACE.candidate(int(i)) for i in np.flatnonzero(probability == 1e-3)]
    assert [dict(each) for each in ruled_out] == [
        {"batch_size": 4, "gpu_type": "T4"},
        {"batch_size": 8, "gpu_type": "T4"},
    ]


def test_all_that_grows_must_be_at_least_as_large_to_be_ruled_out() -> None:
    space = ConfigurationSpace.of({"batch_size": [1, 2], "concurrency": [8, 16]})
    known = feasibility([-3.0] * 4, space)
    probability = known.probability(np.arange(4), verdicts(out_of_memory=(1,)))
    # (1, 16) did not fit: (2, 16) does not either, (1, 8) and (2, 8) may.
    assert (probability == 1e-3).tolist() == [False, True, False, True]


def test_other_failures_rule_out_nothing_but_warn_of_neighbours() -> None:
    probability = feasibility(None, SPACE).probability(ALL, verdicts(other=(4,)))
    assert (probability > 1e-3).all()
    assert probability.argmin() == 4
    by_distance = np.argsort(Coordinates(SPACE).squared_distance(rows(4), ALL)[0], kind="stable")
    assert (np.diff(probability[by_distance]) >= -1e-12).all()


def test_other_failures_count_beside_memory_that_is_known() -> None:
    known = feasibility([-0.4] * 5)
    fits = known.probability(rows(1), verdicts())
    runs = known.probability(rows(1), verdicts(other=(0,)))
    learnt = probability_of_running(LINE, rows(1), rows(), rows(0))
    assert runs == pytest.approx(fits * learnt)


def test_an_infeasible_candidate_is_shunned_and_the_far_ones_are_less() -> None:
    probability = probability_of_running(LINE, rows(0, 4), rows(), rows(0))
    # The label is -2 where 1.3 was expected; variances: offset 0.25, signal 2.25, noise 0.25;
    # Matern-5/2 at 2 is 0.138661 and the covariance 0.25 + 2.25 * 0.138661 = 0.561987.
    # At 0: mean 1.3 - 3.3 * 2.5 / 2.75 = -1.7, variance 2.5 - 2.5^2 / 2.75 = 0.227273,
    #       Phi(-1.7 / sqrt(1.227273)) = Phi(-1.534537) = 0.062449
    # At 4: mean 1.3 - 3.3 * 0.561987 / 2.75 = 0.625616, variance 2.5 - 0.114847 = 2.385153,
    #       Phi(0.625616 / sqrt(3.385153)) = Phi(0.340031) = 0.633084
    assert matern(np.array([4.0])) == pytest.approx([0.138661], abs=1e-6)
    assert probability == pytest.approx([0.062449, 0.633084], abs=1e-5)


def test_a_trial_that_ran_speaks_for_its_neighbours() -> None:
    alone = probability_of_running(LINE, np.arange(5), rows(), rows(0))
    beside_one_that_ran = probability_of_running(LINE, np.arange(5), rows(3), rows(0))
    assert beside_one_that_ran[3] > 0.85
    assert (beside_one_that_ran > alone).all()


def test_a_boundary_is_carried_on_beyond_the_trials() -> None:
    probability = probability_of_running(LINE, np.arange(5), rows(0, 1), rows(2))
    assert probability[3] < probability[2] + 0.2
    assert probability[3] < 0.35
    assert probability[0] > 0.8


def test_only_the_rows_that_are_asked_for_are_answered() -> None:
    share: FloatArray = np.linspace(-1.0, 0.5, 8)
    known = Feasibility(SPACE, Coordinates(SPACE), share)
    trials = verdicts(ran=(0, 1), out_of_memory=(6,), other=(3,))
    whole = known.probability(ALL, trials)
    assert known.probability(rows(5, 2), trials) == pytest.approx(whole[[5, 2]])
