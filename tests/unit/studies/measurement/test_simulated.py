"""The simulated service behind the protocols of a trial."""

import numpy as np
import pytest

from falcon_ray.space.objective import Slo
from falcon_ray.space.workload import Scenario, Workload
from falcon_ray.studies.measurement.simulated import (
    SimulatedBackend,
    SimulatedEndpoint,
    SimulatedLoad,
    VirtualClock,
)
from falcon_ray.studies.measurement.virtual_trials import CONFIGURATION, virtual_trial
from falcon_ray.trial.known_service import BatchTimes, KnownService
from falcon_ray.trial.plan import MeasurementPlan
from falcon_ray.trial.protocols import Reservation

SERVICE = KnownService(batch_size=2, service_s=0.5)


def _endpoint(service: KnownService = SERVICE) -> SimulatedEndpoint:
    return SimulatedEndpoint(service, BatchTimes(service, np.random.default_rng(0)))


def test_a_closed_loop_hands_out_each_request_once_as_time_passes() -> None:
    clock = VirtualClock()
    with SimulatedLoad(clock).closed_loop(_endpoint(), concurrency=4) as session:
        first, second = session.run_for(1.0), session.run_for(0.6)
    # Batches end at 0.5, 1.0, 1.5; the first run sees two of them, the second run one.
    assert first.done_s.tolist() == [0.5, 0.5, 1.0, 1.0]
    assert second.done_s.tolist() == [1.5, 1.5]
    assert clock() == pytest.approx(1.6)
    assert first.latency_ms.tolist() == [500.0, 500.0, 1000.0, 1000.0]


def test_a_closed_loop_always_has_its_clients_in_flight() -> None:
    clock = VirtualClock()
    with SimulatedLoad(clock).closed_loop(_endpoint(), concurrency=4) as session:
        session.run_for(1.2)
        health = session.health()
    assert health.in_flight == 4
    assert health.oldest_in_flight_s == pytest.approx(0.7)  # those who sent at 0.5


def test_an_open_loop_returns_when_the_last_request_was_answered() -> None:
    clock = VirtualClock()
    clock.advance_to(3.0)
    arrivals_s = np.array([0.0, 0.1, 4.0])
    with SimulatedLoad(clock).open_loop(_endpoint(), arrivals_s=arrivals_s) as session:
        log = session.run_for(100.0)
    assert log.done_s.tolist() == pytest.approx([3.5, 4.0, 7.5])
    assert log.intended_s.tolist() == pytest.approx([3.0, 3.1, 7.0])
    assert clock() == pytest.approx(7.5)


def test_an_open_loop_counts_what_waits() -> None:
    clock = VirtualClock()
    arrivals_s = np.array([0.0, 0.1, 0.2, 4.0])
    with SimulatedLoad(clock).open_loop(_endpoint(), arrivals_s=arrivals_s) as session:
        session.run_for(0.3)
        health = session.health()
    assert health.in_flight == 3
    assert health.oldest_in_flight_s == pytest.approx(0.3)


def test_a_deployment_begins_cold_and_warms_up_from_load_to_load() -> None:
    service = KnownService(batch_size=1, service_s=0.1, warm_up_depth=0.5, warm_up_batches=2)
    clock = VirtualClock()
    load = SimulatedLoad(clock)
    with SimulatedBackend(service, np.random.default_rng(0)).deploy(
        CONFIGURATION, Reservation()
    ) as endpoint:
        with load.open_loop(endpoint, arrivals_s=np.zeros(1)) as session:
            cold = session.run_for(1.0)
        with load.open_loop(endpoint, arrivals_s=np.zeros(1)) as session:
            warmer = session.run_for(1.0)
    assert cold.latency_ms[0] == pytest.approx(200.0)  # 100 ms / (1 - 0.5)
    assert warmer.latency_ms[0] == pytest.approx(100 / (1 - 0.5 * np.exp(-0.5)))


def test_a_trial_under_a_limit_counts_its_loads_and_its_deployments() -> None:
    plan = MeasurementPlan(
        workload=Workload(scenario=Scenario.SERVER), slo=Slo(latency_budget_ms=2000.0), seed=1
    )
    found = virtual_trial(KnownService(batch_size=8, service_s=0.1), plan, seed=1)
    assert found.n_deployments == 1
    assert found.n_offered == found.measurement.n_load_points > 0
    # No load lasts longer than its 30 s and the limit of 2 s, within which the last is answered.
    assert 0 < found.offered_s <= 32.0 * found.n_offered
