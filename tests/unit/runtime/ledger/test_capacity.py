from collections import Counter

import pytest

from falcon_ray.runtime.ledger.capacity import (
    KnownNodes,
    are_held,
    what_it_takes,
    why_never_held,
)
from falcon_ray.runtime.ledger.contract import LedgerNode, NodeType
from falcon_ray.space.defaults import NodeShape
from falcon_ray.space.demand import Demand

SMALL = NodeShape(cpus=2, ram_gib=0.0, gpu_type=None, n_gpus=0)
LARGE = NodeShape(cpus=16, ram_gib=0.0, gpu_type=None, n_gpus=0)
WITH_T4 = NodeShape(cpus=4, ram_gib=0.0, gpu_type="T4", n_gpus=1)
TWO_T4 = NodeShape(cpus=8, ram_gib=0.0, gpu_type="T4", n_gpus=2)


def node(node_id: str, shape: NodeShape, node_type: str | None = None) -> LedgerNode:
    return LedgerNode(node_id=node_id, shape=shape, node_type=node_type)


@pytest.mark.parametrize(
    ("demand", "shapes"),
    [
        (Demand(), [SMALL]),
        (Demand(cpu_cores=16), [SMALL, LARGE]),
        (Demand(cpu_cores=4, n_gpus=1, gpu_type="T4"), [LARGE, WITH_T4]),
        (Demand(n_gpus=0.5), [WITH_T4]),
        (Demand(n_gpus=0.1, cpu_cores=0.1, replicas=10), [WITH_T4]),
        # 2 // 2 + 16 // 2 = 9.
        (Demand(cpu_cores=2, replicas=9), [SMALL, LARGE]),
        (Demand(cpu_cores=0, replicas=64), [SMALL]),
    ],
)
def test_what_empty_nodes_hold_is_not_refused(demand: Demand, shapes: list[NodeShape]) -> None:
    assert why_never_held(demand, Counter(shapes)) is None
    assert are_held(demand, Counter(shapes))


@pytest.mark.parametrize(
    ("demand", "shapes", "reason"),
    [
        (
            Demand(cpu_cores=17),
            [SMALL, LARGE],
            "no node can hold a replica with 17 CPU cores; they have 2 cores, 16 cores",
        ),
        (
            Demand(cpu_cores=16, n_gpus=1, gpu_type="T4"),
            [LARGE, WITH_T4],
            (
                "no node can hold a replica with 16 CPU cores and 1 GPUs of type T4; they have "
                "16 cores, 4 cores and 1 T4"
            ),
        ),
        (Demand(), [], "no node can hold a replica with 1 CPU cores; they have nothing"),
        (
            Demand(cpu_cores=2, replicas=10),
            [SMALL, LARGE],
            "10 replicas do not fit: the nodes hold 9; they have 2 cores, 16 cores",
        ),
        # Each GPU holds one share of 0.6, though 2 / 0.6 is more than 3.
        (
            Demand(n_gpus=0.6, replicas=3),
            [TWO_T4],
            "3 replicas do not fit: the nodes hold 2; they have 8 cores and 2 T4",
        ),
    ],
)
def test_what_no_empty_nodes_hold_is_refused_with_what_it_wanted(
    demand: Demand, shapes: list[NodeShape], reason: str
) -> None:
    assert why_never_held(demand, Counter(shapes)) == reason


def test_all_that_a_trial_takes_is_said_in_words() -> None:
    demand = Demand(cpu_cores=2, n_gpus=0.5, gpu_type="L4", replicas=3)
    assert what_it_takes(demand) == "3 replicas of 2 CPU cores and 0.5 GPUs of type L4"
    assert what_it_takes(Demand(cpu_cores=0)) == "next to nothing"


def test_the_most_nodes_that_were_there_at_once_are_remembered() -> None:
    known = KnownNodes()
    known.learn([node("a", SMALL), node("b", SMALL)], [])
    known.learn([node("c", SMALL), node("d", WITH_T4)], [])
    assert known.ever == {SMALL: 2, WITH_T4: 1}
    assert known.live == {SMALL: 1, WITH_T4: 1}


def test_nodes_that_came_back_with_other_memory_are_no_more_nodes() -> None:
    known = KnownNodes()
    for ram_gib in (7.6, 7.7):
        shape = NodeShape(cpus=2, ram_gib=ram_gib, gpu_type=None, n_gpus=0)
        known.learn([node("a", shape)], [])
    assert known.ever == {SMALL: 1}


def test_nodes_of_a_type_count_once_as_there_and_as_what_can_be_added() -> None:
    types = [NodeType(name="t4", shape=WITH_T4, max_nodes=3)]
    known = KnownNodes()
    known.learn([node("head", WITH_T4), node("a", WITH_T4, "t4")], types)
    assert known.ever == {WITH_T4: 4}
    assert known.with_added == {WITH_T4: 4}
    known.learn([], types)
    assert known.with_added == {WITH_T4: 3}
