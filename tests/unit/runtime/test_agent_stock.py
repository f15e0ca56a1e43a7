"""Processes kept from one trial to the next; they are names here, and time is given."""

from collections import Counter

from falcon_ray.runtime.agents.stock import KEEP_S, MAX_IDLE_DRIVERS, AgentStock, Making


class FakeProcesses:
    """Starts processes that are names, and remembers which were ended."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.started: Counter[str] = Counter()
        self.ended: list[str] = []
        self.stock = AgentStock(
            Making(
                driver=lambda node: self._start(f"driver on {node}"),
                watch=lambda node: self._start(f"watch on {node}"),
                end=self.ended.append,
            ),
            lambda: self.now_s,
        )

    def _start(self, kind: str) -> str:
        self.started[kind] += 1
        return f"{kind} #{self.started[kind]}"


def test_what_a_trial_gives_back_serves_the_next_one_on_its_node_alone() -> None:
    fake = FakeProcesses()
    first = fake.stock.drivers("a", "n1", 2)
    fake.stock.give_back("a")
    assert fake.stock.drivers("b", "n2", 1) == ["driver on n2 #1"]
    assert set(fake.stock.drivers("c", "n1", 3)) == {*first, "driver on n1 #3"}
    assert fake.ended == []


def test_what_one_trial_has_no_other_gets() -> None:
    fake = FakeProcesses()
    mine = fake.stock.drivers("a", "n1", 1)
    assert fake.stock.drivers("b", "n1", 1) != mine
    assert fake.stock.drivers("a", "n1", 1) == ["driver on n1 #3"], "beyond those that it has"


def test_drivers_of_a_trial_that_broke_are_ended() -> None:
    fake = FakeProcesses()
    fake.stock.drivers("a", "n1", 1)
    fake.stock.forget("a")
    assert fake.ended == ["driver on n1 #1"]
    assert fake.stock.drivers("b", "n1", 1) == ["driver on n1 #2"]


def test_a_driver_that_is_of_no_use_is_ended_and_given_to_nobody() -> None:
    fake = FakeProcesses()
    bad, good = fake.stock.drivers("a", "n1", 2)
    fake.stock.end("a", [bad])
    fake.stock.give_back("a")
    assert fake.ended == [bad]
    assert fake.stock.drivers("b", "n1", 1) == [good]


def test_a_driver_that_another_trial_has_is_not_ended() -> None:
    fake = FakeProcesses()
    (other,) = fake.stock.drivers("b", "n1", 1)
    fake.stock.end("a", [other])
    assert fake.ended == []


def test_only_a_few_drivers_wait() -> None:
    fake = FakeProcesses()
    fake.stock.drivers("a", "n1", MAX_IDLE_DRIVERS + 2)
    fake.stock.give_back("a")
    assert len(fake.ended) == 2


def test_trials_on_a_node_share_its_watch() -> None:
    fake = FakeProcesses()
    assert fake.stock.watch("a", "n1") == fake.stock.watch("b", "n1") == "watch on n1 #1"
    fake.stock.forget("a")
    assert fake.ended == [], "the other one still watches"
    fake.stock.forget("b")
    assert fake.ended == ["watch on n1 #1"]


def test_what_waits_for_long_is_ended_so_that_its_node_can_go() -> None:
    fake = FakeProcesses()
    fake.stock.drivers("a", "n1", 1)
    fake.stock.watch("a", "n1")
    fake.now_s = 5.0
    fake.stock.give_back("a")
    fake.now_s = 5.0 + KEEP_S - 0.1
    fake.stock.sweep()
    assert fake.ended == []
    fake.now_s = 5.0 + KEEP_S
    fake.stock.sweep()
    assert sorted(fake.ended) == ["driver on n1 #1", "watch on n1 #1"]


def test_what_is_in_use_is_never_swept() -> None:
    fake = FakeProcesses()
    fake.stock.drivers("a", "n1", 1)
    fake.stock.watch("b", "n2")
    fake.now_s = 1e6
    fake.stock.sweep()
    assert fake.ended == []


def test_closing_ends_what_waits_and_what_is_borrowed() -> None:
    fake = FakeProcesses()
    fake.stock.drivers("a", "n1", 1)
    fake.stock.give_back("a")
    fake.stock.drivers("b", "n2", 1)
    fake.stock.watch("b", "n2")
    fake.stock.close()
    assert sorted(fake.ended) == ["driver on n1 #1", "driver on n2 #1", "watch on n2 #1"]
