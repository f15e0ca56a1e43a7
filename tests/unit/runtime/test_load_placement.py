import pytest

from falcon_ray.runtime.load.placement import clock_offset_s, drivers_by_node
from tests.fakes import VirtualClock

TWO_CPUS = {"a": 2.0, "b": 2.0}


@pytest.mark.parametrize(
    ("n_clients", "factor", "drivers"),
    [(1, 1, 1), (128, 1, 1), (129, 1, 2), (129, 2, 4), (10_000, 1, 8), (1, 64, 8)],
)
def test_a_node_gets_a_driver_per_128_clients_and_four_per_cpu_at_most(
    n_clients: int, factor: int, drivers: int
) -> None:
    wanted = drivers_by_node(["a"], n_clients=n_clients, factor=factor, cpus=TWO_CPUS)
    assert wanted == {"a": drivers}


def test_there_are_sixteen_drivers_at_most_however_many_cpus() -> None:
    cpus = {"a": 64.0, "b": 64.0}
    assert drivers_by_node(["a"], n_clients=10_000, factor=4, cpus=cpus) == {"a": 16}
    assert drivers_by_node(["a", "b"], n_clients=10_000, factor=4, cpus=cpus) == {"a": 8, "b": 8}


def test_every_node_with_a_replica_has_a_driver() -> None:
    nodes = [f"node-{i}" for i in range(20)]
    assert set(drivers_by_node(nodes, n_clients=1, factor=1, cpus={}).values()) == {1}
    # Two replicas on one node are no reason for a second driver there.
    assert drivers_by_node(["a", "b", "a"], n_clients=16, factor=1, cpus=TWO_CPUS) == {
        "a": 1,
        "b": 1,
    }


def test_the_offset_of_a_clock_is_read_in_the_middle_of_the_quickest_round_trip() -> None:
    clock = VirtualClock()
    # Seconds there and back of each round trip: only the third is short on both ways.
    trips = iter([(0.5, 0.0), (0.0, 0.3), (0.01, 0.01), (0.2, 0.2)])

    def ask() -> float:
        there_s, back_s = next(trips)
        clock.advance(there_s)
        told = clock() + 100.0
        clock.advance(back_s)
        return told

    assert clock_offset_s(ask, clock=clock, round_trips=4) == pytest.approx(100.0)
