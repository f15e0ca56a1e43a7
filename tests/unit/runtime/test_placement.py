import pytest

from falcon_ray.runtime.placement import (
    Batching,
    actor_options,
    batching,
    why_no_node_fits,
)
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.defaults import NodeShape
from falcon_ray.space.demand import Demand
from falcon_ray.space.dimension import Value

SMALL = NodeShape(cpus=2, ram_gib=8.0, gpu_type=None, n_gpus=0)
LARGE = NodeShape(cpus=16, ram_gib=64.0, gpu_type=None, n_gpus=0)
WITH_T4 = NodeShape(cpus=4, ram_gib=16.0, gpu_type="T4", n_gpus=1)


def of(**values: Value) -> Configuration:
    return Configuration(values)


@pytest.mark.parametrize(
    ("configuration", "options"),
    [
        (of(), {"num_cpus": 1}),
        (of(cpu_cores=4, batch_size=8), {"num_cpus": 4}),
        (of(gpu_type="T4"), {"num_cpus": 1, "num_gpus": 1.0, "accelerator_type": "T4"}),
        (
            of(gpu_type="A10G", gpu_share=0.25, gpu_memory_gib=5.5, cpu_cores=2),
            {"num_cpus": 2, "num_gpus": 0.25, "accelerator_type": "A10G"},
        ),
        (of(gpu_memory_gib=4.0), {"num_cpus": 1, "num_gpus": 1.0}),
        (of(n_gpus=2), {"num_cpus": 1, "num_gpus": 2.0}),
    ],
)
def test_a_replica_asks_ray_for_what_its_configuration_says(
    configuration: Configuration, options: dict[str, object]
) -> None:
    assert actor_options(configuration) == options


@pytest.mark.parametrize(
    ("configuration", "expected"),
    [
        (of(), 0.0),
        (of(gpu_type="T4"), 1.0),
        (of(gpu_share=0.5), 0.5),
        (of(n_gpus=4), 4.0),
        (of(n_gpus=1, gpu_share=0.5), 0.5),
    ],
)
def test_gpus_are_whole_ones_or_a_share_of_one(
    configuration: Configuration, expected: float
) -> None:
    assert Demand.of(configuration).n_gpus == expected


def test_a_replica_stays_on_the_nodes_that_its_trial_was_given() -> None:
    options = actor_options(of(), ["b2", "a1", "b2"])
    assert options["label_selector"] == {"ray.io/node-id": "in(a1,b2)"}


def test_a_batch_is_formed_as_the_configuration_says() -> None:
    queue = batching(of(batch_size=8, batch_wait_ms=5))
    assert queue == Batching(max_batch_size=8, wait_s=0.005)


def test_without_dimensions_of_batching_nothing_is_batched_nor_waited_for() -> None:
    assert batching(of(cpu_cores=2)) == Batching(max_batch_size=1, wait_s=0.0)


@pytest.mark.parametrize(("batch_size", "ongoing"), [(1, 67), (8, 88), (128, 448)])
def test_a_replica_may_hold_three_batches_and_64_requests_that_wait(
    batch_size: int, ongoing: int
) -> None:
    # The batch it computes, the one it forms, the one to come, and room for random arrivals.
    assert batching(of(batch_size=batch_size)).max_ongoing_requests == ongoing


@pytest.mark.parametrize(
    ("configuration", "nodes"),
    [
        (of(), [SMALL]),
        (of(cpu_cores=2), [SMALL]),
        (of(cpu_cores=16), [SMALL, LARGE]),
        (of(gpu_type="T4", cpu_cores=4), [LARGE, WITH_T4]),
        (of(gpu_share=0.5), [WITH_T4]),
    ],
)
def test_a_replica_that_some_node_holds_fits(
    configuration: Configuration, nodes: list[NodeShape]
) -> None:
    assert why_no_node_fits(configuration, nodes) is None


@pytest.mark.parametrize(
    ("configuration", "nodes", "expected"),
    [
        (of(cpu_cores=4), [SMALL], "4 CPU cores; they have 2 cores"),
        (of(cpu_cores=17), [SMALL, LARGE], "17 CPU cores; they have 2 cores, 16 cores"),
        (
            of(gpu_type="A10G"),
            [WITH_T4],
            "1 GPUs of type A10G; they have 4 cores and 1 T4",
        ),
        (of(n_gpus=2), [WITH_T4], "2 GPUs; they have 4 cores and 1 T4"),
        # Enough cores on one node and a GPU on the other are not one place.
        (
            of(gpu_type="T4", cpu_cores=16),
            [LARGE, WITH_T4],
            "16 CPU cores and 1 GPUs of type T4; they have 16 cores, 4 cores and 1 T4",
        ),
        (of(cpu_cores=1), [], "1 CPU cores; they have nothing"),
    ],
)
def test_a_replica_that_no_node_holds_is_refused_with_what_it_wanted(
    configuration: Configuration, nodes: list[NodeShape], expected: str
) -> None:
    reason = why_no_node_fits(configuration, nodes)
    assert reason == f"no node can hold a replica with {expected}"


def test_replicas_that_fit_one_by_one_but_not_together_are_refused() -> None:
    # Two cores and sixteen hold 2 // 2 + 16 // 2 = 9 replicas of two cores.
    assert why_no_node_fits(of(cpu_cores=2, replicas=9), [SMALL, LARGE]) is None
    assert why_no_node_fits(of(cpu_cores=2, replicas=10), [SMALL, LARGE]) == (
        "10 replicas do not fit: the nodes hold 9; they have 2 cores, 16 cores"
    )


def test_cores_that_a_configuration_does_not_name_are_not_judged() -> None:
    assert why_no_node_fits(of(replicas=64), [SMALL]) is None
