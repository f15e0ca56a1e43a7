"""The law of a known service."""

import numpy as np
import pytest

from falcon_ray.errors import InputError
from falcon_ray.space.configuration import FloatArray
from falcon_ray.trial.known_service import BatchTimes, KnownService


def _times(
    n: int, *, noise_cv: float = 0.0, correlation: float = 0.0, depth: float = 0.0
) -> FloatArray:
    service = KnownService(
        batch_size=4,
        service_s=0.1,
        noise_cv=noise_cv,
        noise_correlation=correlation,
        warm_up_depth=depth,
        warm_up_batches=10,
    )
    return BatchTimes(service, np.random.default_rng(3)).take(n)


def test_saturation_is_the_batch_over_its_seconds() -> None:
    assert KnownService(batch_size=4, service_s=0.1).saturation_rps == pytest.approx(40.0)


def test_noise_has_the_mean_and_the_deviation_that_were_asked_for() -> None:
    times = _times(100_000, noise_cv=0.2)
    # The mean of 1e5 times with 20 % noise has a relative sd of 0.2 / sqrt(1e5) = 0.06 %.
    assert times.mean() == pytest.approx(0.1, rel=3e-3)
    assert times.std() / times.mean() == pytest.approx(0.2, rel=0.02)


def test_consecutive_batches_are_as_alike_as_was_asked_for() -> None:
    noise = np.log(_times(100_000, noise_cv=0.1, correlation=0.8))
    assert np.corrcoef(noise[:-1], noise[1:])[0, 1] == pytest.approx(0.8, abs=0.02)


def test_the_first_batch_has_the_whole_depth_and_ten_batches_later_a_share_of_1_over_e() -> None:
    times = _times(200, depth=0.2)
    assert times[0] == pytest.approx(0.1 / 0.8)
    assert times[10] == pytest.approx(0.1 / (1 - 0.2 / np.e))
    assert times[-1] == pytest.approx(0.1)


def test_taking_piece_by_piece_goes_on_with_warm_up_and_noise() -> None:
    service = KnownService(
        batch_size=1, service_s=1.0, noise_cv=0.1, noise_correlation=0.5, warm_up_depth=0.3
    )
    at_once = BatchTimes(service, np.random.default_rng(5)).take(50)
    times = BatchTimes(service, np.random.default_rng(5))
    pieces = np.concatenate([times.take(1), times.take(9), times.take(0), times.take(40)])
    np.testing.assert_allclose(pieces, at_once)


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0},
        {"service_s": -1.0},
        {"noise_cv": float("nan")},
        {"noise_correlation": 1.0},
        {"warm_up_depth": 1.0},
        {"warm_up_batches": 0.0},
    ],
)
def test_a_law_out_of_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        KnownService(**({"batch_size": 1, "service_s": 1.0} | wrong))  # pyright: ignore[reportArgumentType]
