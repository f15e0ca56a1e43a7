import numpy as np
import pytest

from falcon_ray.optimizers.coordinates import Coordinates, IndexArray
from falcon_ray.optimizers.gaussian_process import (
    MIN_OBSERVATIONS_TO_FIT,
    NOISE_SD,
    Evidence,
    Expectation,
    Hyperparameters,
    LogProcess,
    fitted,
)
from falcon_ray.space.configuration import ConfigurationSpace, FloatArray
from tests.unit.optimizers.synthetic_serving import SPACE, service_time_ms

COORDINATES = Coordinates(SPACE)
ALL = np.arange(len(SPACE))
TRUTH = np.log(np.array([service_time_ms(each) for each in SPACE.candidates]))
NONE: IndexArray = np.array([], dtype=np.intp)
# Two candidates 2 length scales apart, where Matern-5/2 is 0.138661.
PAIR = Coordinates(ConfigurationSpace.of({"batch_wait_ms": [0, 10]}))
BOTH = np.arange(2)


def some(n: int) -> IndexArray:
    return np.random.default_rng(0).permutation(len(SPACE))[:n]


def expectation(
    mean: FloatArray | None = None, *, offset_sd: float = 0.5, residual_sd: float = 1.0
) -> Expectation:
    """Of one metric of `SPACE`."""
    return Expectation(
        mean=np.zeros((1, len(SPACE))) if mean is None else mean[None, :],
        offset_sd=np.array([offset_sd]),
        residual_sd=np.array([[residual_sd]]),
        correlation=np.ones((1, 1)),
    )


def two_metrics() -> Expectation:
    """Of the pair: every number differs."""
    return Expectation(
        mean=np.array([[0.0, 0.1], [1.0, 1.2]]),
        offset_sd=np.array([0.5, 0.4]),
        residual_sd=np.array([[0.25, 0.5], [0.3, 0.6]]),
        correlation=np.array([[1.0, -0.5], [-0.5, 1.0]]),
    )


def evidence(rows: IndexArray, logs: FloatArray, metric: IndexArray | None = None) -> Evidence:
    which = np.zeros(rows.size, dtype=np.intp) if metric is None else metric
    return Evidence(rows=rows, metric=which, logs=logs)


NOTHING = evidence(NONE, np.array([]))


def process(
    seen: Evidence,
    expected: Expectation | None = None,
    *,
    pending: IndexArray = NONE,
    hyperparameters: Hyperparameters | None = None,
) -> LogProcess:
    """Of `SPACE`."""
    return LogProcess(
        COORDINATES,
        expected or expectation(),
        seen,
        pending=pending,
        hyperparameters=hyperparameters,
    )


def pair(seen: Evidence, *, pending: IndexArray = NONE) -> LogProcess:
    return LogProcess(PAIR, two_metrics(), seen, pending=pending)


def first_is_1() -> Evidence:
    """The first metric of the first candidate was 1 where 0 was expected."""
    return evidence(np.array([0]), np.array([1.0]))


def test_nothing_observed_leaves_what_was_expected() -> None:
    posterior = pair(NOTHING).at(BOTH)
    assert posterior.mean.tolist() == two_metrics().mean.tolist()
    # Offset and deviation: 0.25 + 0.0625, 0.25 + 0.25; 0.16 + 0.09, 0.16 + 0.36
    assert posterior.sd**2 == pytest.approx(np.array([[0.3125, 0.5], [0.25, 0.52]]))
    # Between the metrics of either: -0.5 (0.5 * 0.4 + 0.25 * 0.3), -0.5 (0.5 * 0.4 + 0.5 * 0.6)
    assert posterior.covariance[:, 0, 1] == pytest.approx([-0.1375, -0.25])


def test_one_observation_moves_both_metrics_of_both_candidates_by_hand() -> None:
    posterior = pair(first_is_1()).at(BOTH)
    # Variance of what was observed: 0.25 + 0.0625 + noise 0.0025 = 0.315. Covariances with it:
    #   first metric:  0.3125,  0.25 + 0.25 * 0.5 * 0.138661 = 0.267333
    #   second metric: -0.1375, -0.5 (0.5 * 0.4 + 0.25 * 0.6 * 0.138661) = -0.110400
    # Means: 0.3125 / 0.315, 0.1 + 0.267333 / 0.315; 1 - 0.1375 / 0.315, 1.2 - 0.1104 / 0.315
    by_hand = np.array([[0.992063, 0.948675], [0.563492, 0.849525]])
    assert posterior.mean == pytest.approx(by_hand, abs=1e-5)
    # Variances: 0.3125 - 0.3125^2 / 0.315, 0.5 - 0.267333^2 / 0.315;
    #            0.25 - 0.1375^2 / 0.315, 0.52 - 0.1104^2 / 0.315
    by_hand = np.array([[0.002480, 0.273121], [0.189980, 0.481308]])
    assert posterior.sd**2 == pytest.approx(by_hand, abs=1e-5)
    # Between metrics: -0.1375 + 0.3125 * 0.1375 / 0.315, -0.25 + 0.267333 * 0.1104 / 0.315
    assert posterior.covariance[:, 0, 1] == pytest.approx([-0.001091, -0.156306], abs=1e-5)


def test_the_marginal_likelihood_of_one_observation_by_hand() -> None:
    # -(1 / 0.315 + ln(0.315) + ln(2 pi)) / 2 = -(3.174603 - 1.155183 + 1.837877) / 2
    likelihood = pair(first_is_1()).log_marginal_likelihood
    assert likelihood == pytest.approx(-1.928649, abs=1e-5)
    assert pair(NOTHING).log_marginal_likelihood == 0.0


def test_the_order_of_values_does_not_matter() -> None:
    rows, logs, metric = np.array([0, 1, 1]), np.array([1.0, 0.3, 1.9]), np.array([0, 1, 0])
    one = pair(evidence(rows, logs, metric))
    other = pair(evidence(rows[::-1], logs[::-1], metric[::-1]))
    assert one.at(BOTH).mean == pytest.approx(other.at(BOTH).mean)
    assert one.log_marginal_likelihood == pytest.approx(other.log_marginal_likelihood)


def test_one_residual_error_in_all_is_the_same_one_for_each() -> None:
    each = Expectation(
        mean=np.zeros((1, len(SPACE))),
        offset_sd=np.array([0.5]),
        residual_sd=np.ones((1, len(SPACE))),
        correlation=np.ones((1, 1)),
    )
    seen = evidence(some(5), TRUTH[some(5)])
    one, other = process(seen).at(ALL), process(seen, each).at(ALL)
    assert one.mean == pytest.approx(other.mean)
    assert one.covariance == pytest.approx(other.covariance)


def test_the_part_that_is_asked_for_is_that_of_the_whole() -> None:
    seen = evidence(some(5), TRUTH[some(5)])
    whole, part = process(seen).at(ALL), process(seen).at(np.array([90, 3]))
    assert part.mean == pytest.approx(whole.mean[:, [90, 3]])
    assert part.covariance == pytest.approx(whole.covariance[[90, 3]])


def test_a_smooth_log_metric_is_recovered_from_a_fifth_of_the_candidates() -> None:
    observed = some(24)
    level = np.full(len(SPACE), TRUTH[observed].mean())
    posterior = process(evidence(observed, TRUTH[observed]), expectation(level)).at(ALL)
    unseen = np.setdiff1d(ALL, observed)
    errors = (posterior.mean[0] - TRUTH)[unseen]
    assert np.sqrt((errors**2).mean()) < 0.15 * TRUTH.std()
    assert np.mean(np.abs(errors) < 2 * posterior.sd[0, unseen] + 2 * NOISE_SD) > 0.9


def test_an_expected_shape_holds_where_nothing_was_observed() -> None:
    observed = some(4)
    seen = evidence(observed, TRUTH[observed])
    biased = TRUTH + 0.3  # right but for a constant factor, which the offset takes up
    informed = process(seen, expectation(biased, residual_sd=0.25)).at(ALL).mean[0]
    level = np.full(len(SPACE), TRUTH[observed].mean())
    plain = process(seen, expectation(level)).at(ALL).mean[0]
    assert np.abs(informed - TRUTH).max() < 0.3
    assert np.abs(informed - TRUTH).mean() < 0.2 * np.abs(plain - TRUTH).mean()


@pytest.mark.parametrize("n", [0, 3, 12])
def test_pending_candidates_are_believed_at_the_mean_and_narrow_the_sd(n: int) -> None:
    observed, pending = some(n), some(n + 2)[n:]
    seen = evidence(observed, TRUTH[observed])
    without, believed = process(seen).at(ALL), process(seen, pending=pending).at(ALL)
    assert believed.mean.tolist() == without.mean.tolist()
    assert (believed.sd[0, pending] < 0.5 * without.sd[0, pending]).all()
    assert (believed.sd <= without.sd + 1e-9).all()


def test_a_pending_candidate_is_as_certain_as_if_both_its_metrics_were_measured() -> None:
    measured = evidence(np.array([1, 1]), np.array([0.0, 0.0]), np.array([0, 1]))
    believed, known = pair(NOTHING, pending=np.array([1])).at(BOTH), pair(measured).at(BOTH)
    assert believed.covariance == pytest.approx(known.covariance)
    assert believed.mean.tolist() == two_metrics().mean.tolist()


def test_a_wild_value_among_many_does_not_move_far_predictions_much() -> None:
    # Ten values as expected around 0, and one 20 times as high as its neighbours say.
    line = Coordinates(ConfigurationSpace.of({"batch_wait_ms": range(21)}))
    expected = Expectation(
        mean=np.zeros((1, 21)),
        offset_sd=np.array([0.5]),
        residual_sd=np.array([[0.25]]),
        correlation=np.ones((1, 1)),
    )
    rows, logs = np.arange(0, 11), 0.02 * np.cos(np.arange(11.0))

    def mean(values: FloatArray) -> FloatArray:
        return (
            LogProcess(line, expected, evidence(rows, values), pending=NONE)
            .at(np.arange(21))
            .mean[0]
        )

    wild = logs.copy()
    wild[5] = 3.0
    mild = logs.copy()
    mild[5] = 0.06  # what noise may do is believed as it is
    assert np.abs(mean(wild) - mean(logs))[11:].max() < 0.05
    assert np.abs(mean(wild) - mean(logs)).max() < 0.1
    assert mean(mild)[5] - mean(logs)[5] > 0.01


def test_of_two_values_that_contradict_each_other_neither_is_the_outlier() -> None:
    expected = expectation(residual_sd=0.1, offset_sd=0.1)
    two = process(evidence(np.array([5, 5]), np.array([-1.0, 1.0])), expected).at(ALL)
    assert two.mean == pytest.approx(0.0)
    assert two.sd[0, 5] < NOISE_SD


def test_draws_have_the_mean_and_the_covariance_of_the_posterior() -> None:
    d = 4  # two metrics of two candidates
    # These have exactly mean 0 and covariance 1: so have the draws theirs.
    normals = np.sqrt(d) * np.concatenate([np.eye(d), -np.eye(d)])
    for seen, pending in ((NOTHING, NONE), (first_is_1(), NONE), (first_is_1(), np.array([1]))):
        posterior = pair(seen, pending=pending)
        logs = posterior.draw(BOTH, normals)
        assert logs.shape == (2 * d, 2, 2)
        assert logs.mean(axis=0) == pytest.approx(posterior.at(BOTH).mean)
        off = logs - logs.mean(axis=0)
        of_each = np.einsum("sar,sbr->rab", off, off) / (2 * d)
        assert of_each == pytest.approx(posterior.at(BOTH).covariance, abs=1e-8)


def test_draws_vary_together_over_the_candidates() -> None:
    normals = 2.0 * np.concatenate([np.eye(4), -np.eye(4)])
    logs = pair(first_is_1()).draw(BOTH, normals)
    off = logs[:, 0] - logs[:, 0].mean(axis=0)
    # Of the first metric between the candidates: 0.267333 - 0.3125 * 0.267333 / 0.315
    assert (off[:, 0] * off[:, 1]).mean() == pytest.approx(0.002122, abs=1e-5)


def test_hyperparameters_are_fitted_from_eight_trials_on() -> None:
    rough = 2.0 * np.where(ALL % 2 == 0, 1.0, -1.0)
    for n in (0, 1, MIN_OBSERVATIONS_TO_FIT - 1):
        seen = evidence(some(n), rough[some(n)])
        assert fitted(COORDINATES, expectation(), seen) == Hyperparameters()
    enough = some(MIN_OBSERVATIONS_TO_FIT)
    assert fitted(COORDINATES, expectation(), evidence(enough, rough[enough])) != Hyperparameters()


def test_trials_count_and_not_values() -> None:
    seven = some(MIN_OBSERVATIONS_TO_FIT - 1)
    twice = evidence(np.tile(seven, 2), np.where(np.tile(seven, 2) % 2, 9.0, 0.0))
    assert fitted(COORDINATES, expectation(), twice) == Hyperparameters()


def test_fitted_errors_follow_what_the_residuals_show() -> None:
    observed = some(20)
    small = fitted(COORDINATES, expectation(), evidence(observed, 0.2 * TRUTH[observed] - 0.5))
    large = fitted(COORDINATES, expectation(), evidence(observed, 5.0 * TRUTH[observed] - 12.0))
    assert small.residual < 1 < large.residual


def test_fitting_makes_the_observations_more_probable() -> None:
    observed = some(20)
    seen = evidence(observed, 5.0 * TRUTH[observed] - 12.0)
    found = fitted(COORDINATES, expectation(), seen)
    with_default = process(seen).log_marginal_likelihood
    assert process(seen, hyperparameters=found).log_marginal_likelihood > with_default


def test_what_few_trials_leave_open_is_held_by_the_prior() -> None:
    # Residuals of 0 want no error at all, which is exp(-1.5) = 0.223, 3 sds of 0.5 away; eight of
    # them are not enough to go that far.
    nothing_off = fitted(COORDINATES, expectation(), evidence(some(8), np.zeros(8)))
    assert 0.25 < nothing_off.residual < 1
    assert 0.4 < nothing_off.noise < 1
    assert nothing_off.length_scale < np.exp(1.5)


@pytest.mark.parametrize(
    ("observed", "logs"),
    [
        (np.arange(60), np.full(60, 2.0)),  # all equal: the signal variance wants to be 0
        (np.zeros(60, dtype=np.intp), np.full(60, 2.0)),  # one candidate again and again
        (np.zeros(8, dtype=np.intp), np.arange(8.0)),  # contradictions: noise wants to be large
        (np.arange(60), np.where(np.arange(60) % 2, 9.0, -9.0)),  # far rougher than the prior
        (np.arange(8), 1e3 * np.arange(8.0)),  # far beyond any metric's range
    ],
    ids=["constant", "repeats", "contradictions", "rough", "huge"],
)
def test_degenerate_observations_neither_warn_nor_break(
    observed: IndexArray, logs: FloatArray
) -> None:
    seen = evidence(observed, logs)
    factors = fitted(COORDINATES, expectation(), seen)
    posterior = process(seen, pending=np.array([100]), hyperparameters=factors).at(ALL)
    assert np.isfinite(posterior.mean).all()
    assert np.isfinite(posterior.sd).all()
    assert (posterior.sd >= 0).all()
