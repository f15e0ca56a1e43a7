import numpy as np
import pytest

from falcon_ray.space.configuration import FloatArray
from falcon_ray.trial.settling import settle

BATCH = 8
BATCH_S = 0.05


def batches(n: int, *, late_share: float = 0.0, tau_s: float = 1.0, seed: int = 0) -> FloatArray:
    """Completions of batches with 3 % noise that take longer by `late_share` at first."""
    rng = np.random.default_rng(seed)
    now_s, done_s = 0.0, list[float]()
    for _ in range(n):
        late = 1 + late_share * np.exp(-now_s / tau_s)
        now_s += BATCH_S * late * (1 + 0.03 * rng.standard_normal())
        done_s.append(now_s)
    return np.repeat(np.array(done_s, np.float64), BATCH)


def test_regular_batches_settle_at_their_exact_rate() -> None:
    settled = settle(np.repeat(np.cumsum(np.full(30, 0.5)), BATCH), granularity=BATCH)
    assert settled is not None
    assert settled.rate.mean == pytest.approx(16.0)  # 8 requests every 0.5 s
    assert settled.rate.relative_half_width == 0.0
    assert settled.unsettled == 0.0


def test_a_service_that_was_slow_at_first_settles_faster_than_it_ran() -> None:
    done_s = batches(100, late_share=0.4, tau_s=2.0)
    settled = settle(done_s, granularity=BATCH)
    assert settled is not None
    true_rps = BATCH / BATCH_S
    assert done_s.size / done_s[-1] < 0.9 * true_rps  # over all of the load
    assert settled.rate.mean == pytest.approx(true_rps, rel=0.03)
    assert settled.rate.ci_low <= true_rps <= settled.rate.ci_high


def test_what_is_left_of_a_transient_is_told() -> None:
    # After about 2.4 s of a transient of 40 % that lasts for 2 s, 40 % * exp(-1.2) = 12 % is left.
    settled = settle(batches(40, late_share=0.4, tau_s=2.0), granularity=BATCH)
    assert settled is not None
    assert 0.05 < settled.unsettled < 0.2
    level = settle(batches(40), granularity=BATCH)
    assert level is not None
    assert abs(level.unsettled) < 0.01


def test_fewer_than_nine_rounds_say_nothing() -> None:
    done_s = batches(9)
    assert settle(done_s, granularity=BATCH) is not None
    assert settle(done_s[: 8 * BATCH], granularity=BATCH) is None
