import math

import numpy as np
import pytest

from falcon_ray.trial.arrivals import poisson


def test_arrivals_are_ascending_and_within_the_duration() -> None:
    arrivals_s = poisson(200.0, 5.0, np.random.default_rng(0))
    assert np.all(np.diff(arrivals_s) >= 0)
    assert arrivals_s[0] >= 0
    assert arrivals_s[-1] < 5.0


def test_counts_have_the_mean_and_the_variance_of_a_poisson_process() -> None:
    rng = np.random.default_rng(1)
    counts = [poisson(50.0, 2.0, rng).size for _ in range(1000)]
    # Mean 50/s * 2 s = 100, known to sqrt(100 / 1000) = 0.32. The variance is 100 as well,
    # known to about 100 * sqrt(2 / 1000) = 4.5. Three standard errors each.
    assert np.mean(counts) == pytest.approx(100.0, abs=1.0)
    assert np.var(counts) == pytest.approx(100.0, abs=13.5)


def test_gaps_are_exponential() -> None:
    gaps_s = np.diff(poisson(100.0, 100.0, np.random.default_rng(2)))
    # P(gap > 10 ms) = exp(-100/s * 0.01 s) = 0.368, over about 10,000 gaps known to 0.005.
    assert np.mean(gaps_s > 0.01) == pytest.approx(math.exp(-1), abs=0.015)
    assert np.mean(gaps_s > 0.03) == pytest.approx(math.exp(-3), abs=0.0075)


def test_schedule_follows_from_the_seed() -> None:
    one = poisson(20.0, 3.0, np.random.default_rng(7))
    assert one.tolist() == poisson(20.0, 3.0, np.random.default_rng(7)).tolist()
    assert one.tolist() != poisson(20.0, 3.0, np.random.default_rng(8)).tolist()


@pytest.mark.parametrize(
    ("rate_rps", "duration_s", "name"),
    [(0.0, 1.0, "rate_rps"), (math.nan, 1.0, "rate_rps"), (1.0, -1.0, "duration_s")],
)
def test_a_rate_and_a_duration_must_be_positive(
    rate_rps: float, duration_s: float, name: str
) -> None:
    with pytest.raises(ValueError, match=f"{name} must be positive"):
        poisson(rate_rps, duration_s, np.random.default_rng(0))
