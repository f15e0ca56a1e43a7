from dataclasses import replace

import pytest

from falcon_ray.runtime.ledger.contract import Ask, LedgerNode
from falcon_ray.runtime.ledger.packing import (
    Place,
    Room,
    find_places,
    find_places_on,
    have_room,
    rooms_of,
)
from falcon_ray.space.defaults import NodeShape
from falcon_ray.space.demand import Demand

SMALL = NodeShape(cpus=2, ram_gib=8.0, gpu_type=None, n_gpus=0)
LARGE = NodeShape(cpus=16, ram_gib=64.0, gpu_type=None, n_gpus=0)
ONE_T4 = NodeShape(cpus=4, ram_gib=16.0, gpu_type="T4", n_gpus=1)
FOUR_T4 = NodeShape(cpus=48, ram_gib=192.0, gpu_type="T4", n_gpus=4)
ONE_L4 = NodeShape(cpus=8, ram_gib=32.0, gpu_type="L4", n_gpus=1)


def ask(
    lease_id: str = "a",
    *,
    cpus: float = 1.0,
    gpus: float = 0.0,
    gpu_type: str | None = None,
    replicas: int = 1,
    exclusive: bool = False,
) -> Ask:
    demand = Demand(cpu_cores=cpus, n_gpus=gpus, gpu_type=gpu_type, replicas=replicas)
    return Ask(lease_id=lease_id, search_id="s", demand=demand, exclusive=exclusive)


def rooms(**shapes: NodeShape) -> list[Room]:
    return [Room(node_id, shape) for node_id, shape in shapes.items()]


def nodes_of(places: tuple[Place, ...] | None) -> list[str] | None:
    return None if places is None else [place.node_id for place in places]


def gpus_of(places: tuple[Place, ...] | None) -> list[tuple[int, ...]]:
    return [tuple(number for number, _ in place.gpus) for place in places or ()]


def test_the_cores_of_a_node_add_up_and_no_more_are_given_than_it_has() -> None:
    free = rooms(n=SMALL)
    assert nodes_of(find_places(ask("a", cpus=1.5), free)) == ["n"]
    assert find_places(ask("b", cpus=1), free) is None
    assert nodes_of(find_places(ask("c", cpus=0.5), free)) == ["n"]


def test_ten_tenths_of_a_core_are_a_core() -> None:
    """10 * 0.1 is a little less than 1 in binary fractions, and 1 // 0.1 is 9."""
    one_core = replace(SMALL, cpus=1)
    assert find_places(ask(cpus=0.1, replicas=10), rooms(n=one_core)) is not None


def test_a_share_fits_on_one_gpu_or_not_at_all() -> None:
    # Three shares of 0.6 take three GPUs: 0.4 + 0.2 on two GPUs are no share.
    places = find_places(ask(gpus=0.6, replicas=4), rooms(n=FOUR_T4))
    assert gpus_of(places) == [(0,), (1,), (2,), (3,)]
    assert find_places(ask(gpus=0.6, replicas=5), rooms(n=FOUR_T4)) is None


def test_shares_of_one_trial_pack_on_one_gpu() -> None:
    places = find_places(ask(gpus=0.25, replicas=5, exclusive=True), rooms(n=FOUR_T4))
    assert gpus_of(places) == [(0,), (0,), (0,), (0,), (1,)]


def test_whole_gpus_are_entirely_free_ones_of_one_node() -> None:
    free = rooms(n=FOUR_T4)
    assert gpus_of(find_places(ask("a", gpus=0.5), free)) == [(0,)]
    assert gpus_of(find_places(ask("b", gpus=2), free)) == [(1, 2)]
    assert find_places(ask("c", gpus=2), free) is None
    assert find_places(ask("d", gpus=2), rooms(m=ONE_T4, n=ONE_T4)) is None


def test_a_type_is_taken_at_its_word_and_without_one_any_gpu_will_do() -> None:
    assert find_places(ask(gpus=1, gpu_type="A100"), rooms(n=ONE_T4, m=ONE_L4)) is None
    assert nodes_of(find_places(ask(gpus=1, gpu_type="L4"), rooms(n=ONE_T4, m=ONE_L4))) == ["m"]
    assert nodes_of(find_places(ask(gpus=1, cpus=8), rooms(n=ONE_T4, m=ONE_L4))) == ["m"]


def test_a_demand_without_gpus_leaves_nodes_with_gpus_alone_where_it_can() -> None:
    free = rooms(gpu=ONE_T4, plain=LARGE)
    assert nodes_of(find_places(ask("a", cpus=4), free)) == ["plain"]
    assert nodes_of(find_places(ask("b", cpus=12), free)) == ["plain"]
    assert nodes_of(find_places(ask("c", cpus=4), free)) == ["gpu"]


def test_the_tightest_node_is_taken_so_that_large_holes_stay() -> None:
    assert nodes_of(find_places(ask(cpus=2), rooms(large=LARGE, small=SMALL))) == ["small"]
    assert nodes_of(find_places(ask(gpus=1), rooms(four=FOUR_T4, one=ONE_T4))) == ["one"]


def test_replicas_go_to_one_node_where_it_holds_all_and_to_few_where_none_does() -> None:
    free = rooms(a=SMALL, b=SMALL, large=LARGE)
    assert nodes_of(find_places(ask(replicas=4), free)) == ["large"] * 4
    # Now 12 are left on the large one, and 2 on each of the small ones: 12 + 2.
    assert nodes_of(find_places(ask("b", replicas=14), free)) == ["large"] * 12 + ["a"] * 2


def test_without_places_for_all_replicas_nothing_is_taken() -> None:
    free = rooms(a=SMALL, b=SMALL)
    assert find_places(ask(cpus=2, replicas=3), free) is None
    assert find_places(ask(cpus=2, replicas=2), free) is not None


@pytest.mark.parametrize(("first", "second"), [(True, False), (False, True), (True, True)])
def test_an_exclusive_lease_without_gpus_has_its_node_to_itself(first: bool, second: bool) -> None:
    free = rooms(n=LARGE)
    assert find_places(ask("a", exclusive=first), free) is not None
    assert find_places(ask("b", exclusive=second), free) is None


def test_leases_that_are_not_exclusive_share_nodes_and_gpus() -> None:
    free = rooms(n=ONE_T4)
    assert gpus_of(find_places(ask("a", gpus=0.5), free)) == [(0,)]
    assert gpus_of(find_places(ask("b", gpus=0.5), free)) == [(0,)]
    assert nodes_of(find_places(ask("c"), free)) == ["n"]


def test_exclusive_leases_with_whole_gpus_share_a_node_and_its_cores() -> None:
    free = rooms(n=FOUR_T4)
    assert find_places(ask("a", gpus=2, exclusive=True), free) is not None
    assert find_places(ask("b", gpus=2, cpus=48, exclusive=True), free) is None
    assert find_places(ask("c", gpus=2, cpus=47, exclusive=True), free) is not None


@pytest.mark.parametrize(("first", "second"), [(True, False), (False, True), (True, True)])
def test_an_exclusive_share_stays_off_nodes_where_ray_could_put_another_beside_it(
    first: bool, second: bool
) -> None:
    free = rooms(n=FOUR_T4)
    assert find_places(ask("a", gpus=0.5, exclusive=first), free) is not None
    assert find_places(ask("b", gpus=0.5, exclusive=second), free) is None
    # 0.5 + 0.75 do not fit on one GPU, so they never meet.
    assert find_places(ask("c", gpus=0.75, exclusive=second), free) is not None
    assert find_places(ask("d", gpus=1, exclusive=True), free) is not None


def use(*, used_cpus: float = 0.0, used_gpus: float = 0.0, shape: NodeShape) -> list[LedgerNode]:
    return [LedgerNode(node_id="n", shape=shape, used_cpus=used_cpus, used_gpus=used_gpus)]


def test_what_others_use_is_what_is_used_beyond_the_leases() -> None:
    held = ask("a", cpus=2)
    places = find_places(held, rooms(n=ONE_T4))
    assert places is not None
    # 3 used - 2 leased = 1 of others; 4 - 2 - 1 = 1 is free.
    free = rooms_of(use(used_cpus=3, shape=ONE_T4), [(held, places)])
    assert have_room(ask("b", cpus=1), free)
    assert not have_room(ask("b", cpus=1.5), free)
    given_back = rooms_of(use(used_cpus=3, shape=ONE_T4), [(held, places)], given_back=True)
    assert have_room(ask("b", cpus=3), given_back)
    assert not have_room(ask("b", cpus=3.5), given_back)


def test_a_lease_that_is_not_deployed_yet_hides_what_others_use() -> None:
    held = ask("a", cpus=2)
    places = find_places(held, rooms(n=ONE_T4))
    assert places is not None
    assert have_room(ask("b", cpus=2), rooms_of(use(used_cpus=2, shape=ONE_T4), [(held, places)]))


def test_gpus_of_others_are_taken_for_whole_ones_and_a_share() -> None:
    free = rooms_of(use(used_gpus=2.5, shape=FOUR_T4), [])
    assert have_room(ask(gpus=1), free)
    assert not have_room(ask(gpus=2), free)
    assert have_room(ask(gpus=0.5, replicas=3), free)
    # Ray would put an exclusive half beside the half of others.
    assert not have_room(ask(gpus=0.5, exclusive=True), free)
    assert have_room(ask(gpus=0.75, exclusive=True), free)


def test_others_that_use_more_than_there_is_leave_nothing() -> None:
    assert not have_room(ask(), rooms_of(use(used_cpus=99, used_gpus=9, shape=ONE_T4), []))
    assert not have_room(ask(), rooms_of(use(used_cpus=2, used_gpus=9, shape=SMALL), []))


def test_a_lease_on_a_node_that_died_takes_nothing_from_the_others() -> None:
    lost = Place(node_id="dead", cpus=20_000)
    assert have_room(ask(cpus=2), rooms_of(use(shape=SMALL), [(ask(), (lost,))]))


def test_places_on_given_nodes_are_as_many_as_replicas_in_their_order() -> None:
    held = ask(cpus=2, replicas=3)
    free = rooms(a=SMALL, b=LARGE)
    assert nodes_of(find_places_on(held, ["b", "a", "b"], free)) == ["b", "a", "b"]


@pytest.mark.parametrize("node_ids", [["a", "a", "b"], ["a", "b"], ["a", "b", "gone"], []])
def test_given_nodes_that_do_not_hold_all_replicas_lose_nothing(node_ids: list[str]) -> None:
    free = rooms(a=SMALL, b=LARGE)
    assert find_places_on(ask(cpus=2, replicas=3), node_ids, free) is None
    assert have_room(ask("b", cpus=2, replicas=9), free)
