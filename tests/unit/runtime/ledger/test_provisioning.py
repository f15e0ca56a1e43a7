from collections.abc import Iterable, Mapping, Sequence

from falcon_ray.runtime.ledger.provisioning import PlacementGroups
from falcon_ray.space.demand import Demand

T4 = Demand(cpu_cores=2, n_gpus=1, gpu_type="T4", replicas=2)
BUNDLE = {"CPU": 2, "GPU": 1, "accelerator_type:T4": 0.001}


class FakeGroups:
    """The placement groups of a cluster; those that `placed` names have their places."""

    def __init__(self, *names: str) -> None:
        self.bundles: dict[str, Sequence[Mapping[str, float]]] = dict.fromkeys(names, ())
        self.placed: set[str] = set()

    def names(self) -> Iterable[str]:
        return tuple(self.bundles)

    def add(self, name: str, bundles: Sequence[Mapping[str, float]]) -> None:
        self.bundles[name] = bundles

    def is_placed(self, name: str) -> bool:
        return name in self.placed

    def remove(self, name: str) -> None:
        del self.bundles[name]


def test_a_group_asks_for_all_replicas_of_a_lease_until_it_is_wanted_no_more() -> None:
    groups = FakeGroups()
    ours = PlacementGroups(groups)
    ours.want({"app/1": T4})
    assert groups.bundles == {"falcon:app/1": [BUNDLE, BUNDLE]}
    ours.want({})
    assert groups.bundles == {}


def test_a_group_that_has_its_places_gives_them_to_whoever_is_next() -> None:
    groups = FakeGroups()
    ours = PlacementGroups(groups)
    ours.want({"app/1": T4})
    groups.placed.add("falcon:app/1")
    ours.want({"app/1": T4})
    assert groups.bundles == {}


def test_a_ledger_that_is_started_again_removes_the_groups_of_the_one_before() -> None:
    groups = FakeGroups("falcon:app/1", "another's")
    again = PlacementGroups(groups)
    again.want({})
    assert groups.names() == ("another's",)
    again.want({"app/2": T4})
    again.want({"app/2": T4})
    assert groups.names() == ("another's", "falcon:app/2")
