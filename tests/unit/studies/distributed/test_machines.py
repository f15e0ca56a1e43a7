import math

import pytest

from falcon_ray.runtime.ledger.admission import Admission
from falcon_ray.space.configuration import Configuration, ConfigurationSpace
from falcon_ray.space.defaults import NodeShape
from falcon_ray.studies.distributed.machines import NODE_KINDS, SPACE, case_figures, cluster
from falcon_ray.studies.distributed.virtual_search import (
    STUCK_S,
    SearchOutcome,
    VirtualSearch,
    n_overfull,
)

T4 = NodeShape(cpus=4, ram_gib=16.0, gpu_type="T4", n_gpus=1)
L4 = NodeShape(cpus=8, ram_gib=32.0, gpu_type="L4", n_gpus=1)
SMALL_SPACE = ConfigurationSpace.of(
    {"gpu_type": ("T4", "L4"), "gpu_share": (0.5, 1.0), "batch_size": (1, 2, 4), "replicas": (1, 2)}
)


def small_search(**nodes: NodeShape) -> SearchOutcome:
    search = VirtualSearch(SMALL_SPACE, nodes, parallel=6, trials=24, seed=1, optimizer="random")
    return search.run()


def test_every_trial_of_a_virtual_search_ends_once_and_all_is_given_back() -> None:
    outcome = small_search(a=T4, b=L4)
    assert outcome.n_suggested >= 24
    assert set(outcome.ended.values()) == {1}
    assert outcome.ended.total() == outcome.n_suggested
    assert set(outcome.granted.values()) == {1}
    assert outcome.granted.total() + outcome.n_refused == outcome.n_suggested
    assert (outcome.is_stuck, outcome.n_left, outcome.n_overfull) == (False, 0, 0)
    # Two replicas of a whole GPU each fit on no node that has one.
    assert outcome.n_refused == 6
    assert outcome.most_holding == 2


def test_the_default_optimizer_goes_through_the_same_machines() -> None:
    search = VirtualSearch(SMALL_SPACE, {"a": T4, "b": L4}, parallel=3, trials=4)
    outcome = search.run()
    assert outcome.ended.total() == outcome.n_suggested
    assert outcome.n_left == 0


def test_a_hundred_trials_at_once_end_once_each_on_a_part_of_the_nodes_they_want() -> None:
    search = VirtualSearch(
        SPACE, cluster(100), parallel=100, trials=300, optimizer="random", seed=3
    )
    outcome = search.run()
    assert outcome.most_at_once == 100
    assert set(outcome.ended.values()) == {1}
    assert outcome.ended.total() == outcome.n_suggested
    assert outcome.n_silent > 0
    assert (outcome.is_stuck, outcome.n_left, outcome.n_overfull) == (False, 0, 0)


def test_figures_tell_a_lost_trial_from_a_doubled_one() -> None:
    good = {each.name: each for each in case_figures(small_search(a=T4, b=L4), parallel=6)}
    assert all(each.is_met is not False for each in good.values())
    outcome = small_search(a=T4, b=L4)
    outcome.suggestion_s = [0.0] * 6 + [0.25, 0.5, 0.75]
    del outcome.ended["trial0"]
    outcome.granted["trial1"] += 1
    outcome.is_stuck, outcome.n_left = True, 1
    bad = {each.name: each.value for each in case_figures(outcome, parallel=6)}
    assert bad["6 at once: trials lost"] == 1
    assert bad["6 at once: trials granted or ended twice"] == 1
    # The first six came before anything was measured.
    assert bad["6 at once: suggestion, median"] == 0.5
    assert bad["6 at once: deadlocks, and leases left"] == 2


@pytest.mark.parametrize(
    ("values", "node_ids", "n"),
    [
        ({"gpu_type": "T4", "cpu_cores": 2, "gpu_share": 0.5, "replicas": 2}, ["a", "a"], 0),
        ({"gpu_type": "T4", "cpu_cores": 3, "gpu_share": 0.5, "replicas": 2}, ["a", "a"], 1),
        ({"gpu_type": "T4", "gpu_share": 0.6, "replicas": 2}, ["a", "a"], 1),
        ({"gpu_type": "T4"}, ["b"], 1),
    ],
)
def test_a_node_that_gives_more_than_it_has_is_seen(
    values: dict[str, str | int | float], node_ids: list[str], n: int
) -> None:
    assert n_overfull({"a": T4, "b": L4}, [(Configuration(values), node_ids)]) == n


def test_trials_that_wait_for_ever_are_told_as_stuck() -> None:
    search = VirtualSearch(
        SMALL_SPACE,
        {"a": T4, "b": L4},
        parallel=2,
        trials=4,
        admission=Admission(grants_from_s=math.inf),
    )
    outcome = search.run()
    assert outcome.is_stuck
    assert outcome.end_s >= STUCK_S


def test_the_space_of_the_study_has_six_types_of_gpu_and_a_node_for_each() -> None:
    assert len(SPACE) >= 1000
    types = {each["gpu_type"] for each in SPACE.candidates}
    assert types == {shape.gpu_type for shape in NODE_KINDS}
    assert len(types) == 6
    assert len(cluster(64)) == 12
