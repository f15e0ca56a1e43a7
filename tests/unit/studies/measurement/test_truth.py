"""True answers where they are known in closed form."""

import pytest

from falcon_ray.space.objective import Slo
from falcon_ray.studies.measurement.truth import (
    capacity_rps,
    offered_percentile_ms,
    saturated_percentile_ms,
)
from falcon_ray.trial.known_service import KnownService

N = 20_000
NOISELESS = KnownService(batch_size=8, service_s=0.1)


def test_three_noiseless_batches_in_flight_take_three_times_a_batch() -> None:
    assert saturated_percentile_ms(NOISELESS, n=N) == pytest.approx(300.0)


def test_warm_up_is_no_part_of_the_truth() -> None:
    warming = KnownService(batch_size=8, service_s=0.1, warm_up_depth=0.5, warm_up_batches=1000)
    assert saturated_percentile_ms(warming, n=N) == pytest.approx(300.0)


def test_hardly_any_load_waits_for_one_batch_at_most() -> None:
    # At 1 request in 100 s, two meet in a batch of 0.1 s once in a thousand.
    found = offered_percentile_ms(NOISELESS, 0.01, n=N)
    assert found == pytest.approx(100.0)


def test_half_of_the_requests_find_a_server_idle_that_is_busy_half_of_the_time() -> None:
    # M/D/1 at load 0.5 with 0.1 s: P(no wait) = 0.5, so the 50th percentile is the service time.
    lone = KnownService(batch_size=1, service_s=0.1)
    assert offered_percentile_ms(lone, 5.0, 49.0, n=N) == pytest.approx(100.0)
    assert offered_percentile_ms(lone, 5.0, 55.0, n=N) > 100.5


def test_the_limit_holds_at_the_capacity_and_not_above_it() -> None:
    service = KnownService(batch_size=8, service_s=0.1, noise_cv=0.05)
    limit = Slo(latency_budget_ms=250.0)
    capacity = capacity_rps(service, limit, n=N)
    assert offered_percentile_ms(service, capacity, n=N) <= 250.0
    assert offered_percentile_ms(service, 1.1 * capacity, n=N) > 250.0


def test_there_is_no_capacity_where_one_batch_breaks_the_limit() -> None:
    assert capacity_rps(NOISELESS, Slo(latency_budget_ms=90.0), n=N) == 0.0
