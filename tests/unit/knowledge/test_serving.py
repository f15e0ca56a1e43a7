import numpy as np
import pytest

from falcon_ray.knowledge.serving import (
    BatchTimes,
    capacity_rps,
    floor_latency_ms,
    latency_at_rate_ms,
    saturation_rps,
)
from falcon_ray.space.objective import Slo

# One group; a batch of 1, 2, 4 takes 10, 12, 16 ms.
TIMES = BatchTimes(np.array([1.0, 2.0, 4.0]), np.array([[0.010, 0.012, 0.016]]))
GROUP = np.zeros(3, dtype=np.int32)
BATCH = np.arange(3, dtype=np.int32)
ONE = np.ones(3)


def test_saturation_is_full_batches_back_to_back_on_every_replica() -> None:
    rates = saturation_rps(TIMES, group=GROUP, batch=BATCH, replicas=np.array([1.0, 1.0, 2.0]))
    assert rates == pytest.approx([1 / 0.010, 2 / 0.012, 2 * 4 / 0.016])


def test_a_lone_request_waits_for_company_unless_batches_are_of_one() -> None:
    latencies = floor_latency_ms(TIMES, group=GROUP, batch=BATCH, batch_wait_ms=np.full(3, 5.0))
    assert latencies == pytest.approx([10, 15, 15])


def test_capacity_is_that_of_the_largest_batch_of_which_two_fit_the_budget() -> None:
    # Two batches of 4 take 32 ms, of 2 take 24 ms.
    loose = capacity_rps(TIMES, Slo(latency_budget_ms=32.1), group=GROUP, batch=BATCH, replicas=ONE)
    tight = capacity_rps(TIMES, Slo(latency_budget_ms=24.1), group=GROUP, batch=BATCH, replicas=ONE)
    assert loose == pytest.approx([0.9 / 0.010, 0.9 * 2 / 0.012, 0.9 * 4 / 0.016])
    # Allowed to form batches of 4, the service still runs at the rate of batches of 2.
    assert tight == pytest.approx([0.9 / 0.010, 0.9 * 2 / 0.012, 0.9 * 2 / 0.012])


def test_a_budget_that_nothing_meets_leaves_a_positive_rate() -> None:
    rates = capacity_rps(TIMES, Slo(latency_budget_ms=1), group=GROUP, batch=BATCH, replicas=ONE)
    assert rates == pytest.approx([90, 90, 90])


@pytest.mark.parametrize(
    ("rate_rps", "replicas", "latencies_ms"),
    [
        # One request at a time keeps up with 0.9 / 10 ms = 90 a second: two of its batches.
        (80.0, 1.0, [20, 20, 20]),
        # 120/s need batches of 2 (0.9 * 2 / 12 ms = 150/s). One at a time serves 90 of 120, and
        # what arrives in 10 s then waits for 10 s * (1 - 90 / 120) = 2,500 ms.
        (120.0, 1.0, [2520, 24, 24]),
        # Two replicas get 120/s each.
        (240.0, 2.0, [2520, 24, 24]),
    ],
)
def test_latency_at_a_rate_is_that_of_the_smallest_batch_that_keeps_up(
    rate_rps: float, replicas: float, latencies_ms: list[float]
) -> None:
    found = latency_at_rate_ms(
        TIMES, rate_rps, group=GROUP, batch=BATCH, replicas=np.full(3, replicas)
    )
    assert found == pytest.approx(latencies_ms)
