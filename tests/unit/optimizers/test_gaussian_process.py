import numpy as np
import pytest

from falcon_ray.optimizers.gaussian_process import (
    MIN_OBSERVATIONS_TO_FIT,
    NOISE_SD,
    OFFSET_SD,
    SIGNAL_SD,
    kernel_coordinates,
    log_posterior,
)
from falcon_ray.optimizers.history import IndexArray
from falcon_ray.space.configuration import ConfigurationSpace
from tests.unit.optimizers.synthetic_serving import SPACE, service_time_ms

COORDINATES = kernel_coordinates(SPACE)
TRUTH = np.log([service_time_ms(each) for each in SPACE.candidates])
NONE: IndexArray = np.array([], dtype=np.intp)


def some(n: int) -> IndexArray:
    return np.random.default_rng(0).permutation(len(SPACE))[:n]


def test_ordinals_span_two_length_scales_and_categories_are_1_over_1_6_apart() -> None:
    space = ConfigurationSpace.of(
        {"batch_size": [1, 2, 16], "dtype": ["a", "b", "c"], "replicas": [1]}
    )
    coordinates = kernel_coordinates(space)
    assert coordinates.shape == (9, 4)  # one ordinal column, three of the categories
    distance = {
        (str(a), str(b)): float(np.linalg.norm(x - y))
        for a, x in zip(space.candidates, coordinates, strict=True)
        for b, y in zip(space.candidates, coordinates, strict=True)
    }
    first = "batch_size=1 dtype=a replicas=1"
    assert distance[first, "batch_size=16 dtype=a replicas=1"] == pytest.approx(2.0)
    assert distance[first, "batch_size=2 dtype=a replicas=1"] == pytest.approx(0.5)  # 2 * 1/4
    assert distance[first, "batch_size=1 dtype=b replicas=1"] == pytest.approx(0.625)  # 1 / 1.6
    assert distance[first, "batch_size=1 dtype=c replicas=1"] == pytest.approx(0.625)


def test_a_smooth_log_metric_is_recovered_from_a_fifth_of_the_candidates() -> None:
    observed = some(24)
    posterior = log_posterior(COORDINATES, observed, TRUTH[observed], pending=NONE)
    unseen = np.setdiff1d(np.arange(len(SPACE)), observed)
    errors = (posterior.mean - TRUTH)[unseen]
    assert np.sqrt((errors**2).mean()) < 0.1 * TRUTH.std()
    assert np.mean(np.abs(errors) < 2 * posterior.sd[unseen] + 2 * NOISE_SD) > 0.9


def test_nothing_observed_leaves_the_prior() -> None:
    nothing = log_posterior(COORDINATES, NONE, np.array([]), pending=NONE)
    assert nothing.mean.tolist() == [0.0] * len(SPACE)
    assert nothing.sd == pytest.approx(np.hypot(OFFSET_SD, SIGNAL_SD))
    predicted = log_posterior(COORDINATES, NONE, np.array([]), pending=NONE, prior_mean=TRUTH)
    assert predicted.mean.tolist() == TRUTH.tolist()


def test_one_observation_without_a_prior_is_the_mean_everywhere() -> None:
    posterior = log_posterior(COORDINATES, np.array([5]), np.array([1.5]), pending=NONE)
    assert posterior.mean == pytest.approx(1.5)
    assert posterior.sd.argmin() == 5


def test_one_observation_by_hand() -> None:
    # Two candidates 2 apart; the prior says 0, the first shows 1.
    # Covariances: offset 0.25, signal 1, noise 0.0025; Matern-5/2 at r = 2:
    # (1 + 2 sqrt(5) + 20/3) exp(-2 sqrt(5)) = 12.138803 * 0.011423 = 0.138661.
    posterior = log_posterior(
        np.array([[0.0], [2.0]]),
        np.array([0]),
        np.array([1.0]),
        pending=NONE,
        prior_mean=np.zeros(2),
    )
    # mean: 1.25 / 1.2525 = 0.998004 and (0.25 + 0.138661) / 1.2525 = 0.310308
    assert posterior.mean == pytest.approx([0.998004, 0.310308], abs=1e-6)
    # variance: 1.25 - 1.25^2 / 1.2525 = 0.002495 and 1.25 - 0.388661^2 / 1.2525 = 1.129395
    assert posterior.sd**2 == pytest.approx([0.002495, 1.129395], abs=1e-6)


def test_a_prior_mean_shapes_the_prediction_where_nothing_was_observed() -> None:
    observed = some(4)
    biased = TRUTH + 0.3  # right but for a constant factor, which the offset takes up
    posterior = log_posterior(
        COORDINATES, observed, TRUTH[observed], pending=NONE, prior_mean=biased
    )
    plain = log_posterior(COORDINATES, observed, TRUTH[observed], pending=NONE)
    assert np.abs(posterior.mean - TRUTH).max() < 0.3
    assert np.abs(posterior.mean - TRUTH).mean() < 0.2 * np.abs(plain.mean - TRUTH).mean()


@pytest.mark.parametrize("n", [3, 12])
def test_pending_candidates_are_believed_at_the_mean_and_narrow_the_sd(n: int) -> None:
    observed, pending = some(n), some(n + 2)[n:]
    without = log_posterior(COORDINATES, observed, TRUTH[observed], pending=NONE)
    believed = log_posterior(COORDINATES, observed, TRUTH[observed], pending=pending)
    assert believed.mean.tolist() == without.mean.tolist()
    assert (believed.sd[pending] < 0.5 * without.sd[pending]).all()
    assert (believed.sd <= without.sd + 1e-9).all()


def test_pending_candidates_narrow_a_prior_without_observations() -> None:
    pending = np.array([7])
    posterior = log_posterior(COORDINATES, NONE, np.array([]), pending=pending, prior_mean=TRUTH)
    assert posterior.mean.tolist() == TRUTH.tolist()
    assert posterior.sd.argmin() == 7


def test_fewer_than_eight_observations_fit_no_hyperparameter() -> None:
    # With fixed hyperparameters the sd does not depend on the values; fitted ones make it.
    for n, depends in ((MIN_OBSERVATIONS_TO_FIT - 1, False), (MIN_OBSERVATIONS_TO_FIT, True)):
        observed = some(n)
        mild = log_posterior(COORDINATES, observed, TRUTH[observed], pending=NONE)
        wild = log_posterior(COORDINATES, observed, 5 * TRUTH[observed], pending=NONE)
        assert np.allclose(mild.sd, wild.sd) is not depends


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
    observed: IndexArray, logs: np.ndarray
) -> None:
    posterior = log_posterior(COORDINATES, observed, logs, pending=np.array([100]))
    assert np.isfinite(posterior.mean).all()
    assert np.isfinite(posterior.sd).all()
    assert (posterior.sd >= 0).all()
