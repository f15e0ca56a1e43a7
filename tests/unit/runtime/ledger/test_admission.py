from collections.abc import Iterable

import pytest

from falcon_ray.runtime.ledger.admission import LEASE_S, Admission
from falcon_ray.runtime.ledger.contract import Answer, Ask, AskState, LedgerNode, NodeType
from falcon_ray.runtime.ledger.line import MAX_OVERTAKEN, LineCounts
from falcon_ray.space.defaults import NodeShape
from falcon_ray.space.demand import Demand

TWO_CORES = NodeShape(cpus=2, ram_gib=8.0, gpu_type=None, n_gpus=0)
EIGHT_CORES = NodeShape(cpus=8, ram_gib=32.0, gpu_type=None, n_gpus=0)
T4 = NodeShape(cpus=4, ram_gib=16.0, gpu_type="T4", n_gpus=1)
L4 = NodeShape(cpus=8, ram_gib=32.0, gpu_type="L4", n_gpus=1)
T4_TYPE = NodeType(name="t4", shape=T4, max_nodes=2)

WHOLE_T4 = Demand(cpu_cores=1, n_gpus=1, gpu_type="T4")


def ask(
    lease_id: str,
    demand: Demand | None = None,
    *,
    search_id: str = "s",
    exclusive: bool = False,
    provision_timeout_s: float = 600.0,
) -> Ask:
    return Ask(
        lease_id=lease_id,
        search_id=search_id,
        demand=demand or Demand(),
        exclusive=exclusive,
        provision_timeout_s=provision_timeout_s,
    )


class Ledger:
    """An `Admission` on a clock of its own, whose trials are alive unless they are said to be."""

    def __init__(self, *shapes: NodeShape, types: Iterable[NodeType] = ()) -> None:
        self.now_s = 0.0
        self.admission = Admission()
        self.silent: set[str] = set()
        self.granted: list[str] = []
        self.types = tuple(types)
        self.nodes(*shapes)

    def nodes(self, *shapes: NodeShape, used_cpus: float = 0.0) -> None:
        """Let the cluster have these nodes now, named n0, n1 and so on."""
        nodes = [
            LedgerNode(node_id=f"n{i}", shape=shape, used_cpus=used_cpus)
            for i, shape in enumerate(shapes)
        ]
        self.admission.nodes_changed(nodes, self.types, self.now_s)

    def ask(self, *asks: Ask) -> None:
        for each in asks:
            self.admission.ask(each, self.now_s)
        self.tick()

    def give_back(self, *lease_ids: str) -> None:
        for lease_id in lease_ids:
            self.admission.give_back(lease_id, self.now_s)
        self.tick()

    def tick(self, seconds: float = 0.0) -> None:
        """Let time pass in steps that no trial takes for silence."""
        end_s = self.now_s + seconds
        while True:
            self.now_s = min(end_s, self.now_s + LEASE_S / 3)
            for lease_id in self.admission.known() - self.silent:
                self.admission.alive(lease_id, self.now_s)
            self.granted += self.admission.tick(self.now_s).granted
            if self.now_s >= end_s:
                return

    def state(self, lease_id: str) -> AskState:
        return self.admission.answer(lease_id).state

    def holders(self) -> set[str]:
        known = self.admission.known()
        return {each for each in known if self.state(each) is AskState.GRANTED}


def test_what_fits_is_granted_with_a_node_for_each_replica() -> None:
    ledger = Ledger(TWO_CORES, TWO_CORES)
    ledger.ask(ask("a", Demand(cpu_cores=2, replicas=2)))
    answer = ledger.admission.answer("a")
    assert answer == Answer(state=AskState.GRANTED, node_ids=("n0", "n1"))


def test_a_trial_gets_all_its_replicas_or_none() -> None:
    ledger = Ledger(TWO_CORES, TWO_CORES)
    ledger.ask(ask("small"), ask("large", Demand(cpu_cores=2, replicas=2)))
    assert ledger.state("large") is AskState.WAITING
    assert ledger.admission.answer("large").node_ids == ()
    ledger.give_back("small")
    assert ledger.state("large") is AskState.GRANTED


def test_asking_again_changes_nothing() -> None:
    ledger = Ledger(TWO_CORES)
    ledger.ask(ask("a"), ask("a"), ask("b"), ask("a"), ask("c"))
    assert ledger.granted == ["a", "b"]
    ledger.ask(ask("a"))
    assert ledger.granted == ["a", "b"]
    ledger.give_back("a")
    assert ledger.granted == ["a", "b", "c"]


def test_giving_back_twice_or_what_is_unknown_is_no_error() -> None:
    ledger = Ledger(TWO_CORES)
    ledger.ask(ask("a"))
    ledger.give_back("a", "a", "never")
    assert ledger.state("a") is AskState.UNKNOWN
    ledger.ask(ask("b", Demand(cpu_cores=2)))
    assert ledger.state("b") is AskState.GRANTED


@pytest.mark.parametrize(
    ("demand", "words"),
    [
        (Demand(cpu_cores=3), "no node can hold a replica with 3 CPU cores; they have 2 cores"),
        (Demand(replicas=5), "5 replicas do not fit: the nodes hold 4; they have 2 cores"),
        (WHOLE_T4, "no node can hold a replica with 1 CPU cores and 1 GPUs of type T4; they"),
    ],
)
def test_what_no_node_could_ever_hold_is_refused_at_once(demand: Demand, words: str) -> None:
    ledger = Ledger(TWO_CORES, TWO_CORES)
    answer = ledger.admission.ask(ask("a", demand), ledger.now_s)
    assert answer.state is AskState.INFEASIBLE
    assert answer.reason.startswith(words)


def test_before_the_cluster_was_looked_at_nothing_is_refused_or_granted() -> None:
    admission = Admission()
    assert admission.ask(ask("a", WHOLE_T4), 0.0).state is AskState.WAITING
    admission.tick(1.0)
    assert admission.answer("a").state is AskState.WAITING
    admission.nodes_changed([LedgerNode(node_id="n0", shape=T4)], [], 2.0)
    admission.tick(2.0)
    assert admission.answer("a").state is AskState.GRANTED


def test_what_waits_for_an_added_node_is_wanted_and_gets_it() -> None:
    ledger = Ledger(TWO_CORES, types=[T4_TYPE])
    ledger.ask(ask("a", WHOLE_T4), ask("b"))
    assert ledger.state("a") is AskState.PROVISIONING
    assert [each.lease_id for each in ledger.admission.wanted()] == ["a"]
    assert ledger.admission.answer("a").is_adding
    ledger.nodes(TWO_CORES, T4)
    ledger.tick()
    assert ledger.admission.wanted() == ()
    answer = ledger.admission.answer("a")
    assert (answer.node_ids, answer.is_adding) == (("n1",), False)


def test_what_waits_for_others_leases_is_wanted_where_more_nodes_can_be_added() -> None:
    ledger = Ledger(T4, types=[T4_TYPE])
    ledger.ask(ask("a", WHOLE_T4), ask("b", WHOLE_T4))
    assert ledger.state("b") is AskState.WAITING
    assert ledger.admission.answer("b").is_adding
    assert [each.lease_id for each in ledger.admission.wanted()] == ["b"]


def test_what_waits_for_others_leases_waits_where_no_more_nodes_can_be_added() -> None:
    ledger = Ledger(T4)
    ledger.ask(ask("a", WHOLE_T4), ask("b", WHOLE_T4))
    assert ledger.state("b") is AskState.WAITING
    assert not ledger.admission.answer("b").is_adding
    assert ledger.admission.wanted() == ()


def test_more_than_can_ever_be_added_is_refused_at_once() -> None:
    ledger = Ledger(TWO_CORES, types=[T4_TYPE])
    three = Demand(cpu_cores=1, n_gpus=1, gpu_type="T4", replicas=3)
    assert ledger.admission.ask(ask("a", three), 0.0).state is AskState.INFEASIBLE


def test_nodes_that_do_not_come_in_time_are_unavailable() -> None:
    ledger = Ledger(types=[T4_TYPE])
    ledger.ask(ask("a", WHOLE_T4, provision_timeout_s=100.0))
    ledger.tick(99.0)
    assert ledger.state("a") is AskState.PROVISIONING
    ledger.tick(1.0)
    answer = ledger.admission.answer("a")
    assert answer.state is AskState.UNAVAILABLE
    assert answer.reason.startswith(
        "the autoscaler brought no room for 1 CPU cores and 1 GPUs of type T4 within 100 s"
    )
    ledger.nodes(T4)
    ledger.tick()
    assert ledger.state("a") is AskState.UNAVAILABLE


def test_a_trial_that_waits_for_a_node_that_dies_is_unavailable_and_not_infeasible() -> None:
    ledger = Ledger(T4, TWO_CORES)
    ledger.ask(ask("a", WHOLE_T4), ask("b", WHOLE_T4, provision_timeout_s=60.0))
    ledger.tick(1000.0)
    assert ledger.state("b") is AskState.WAITING
    ledger.nodes(TWO_CORES)
    assert ledger.state("b") is AskState.PROVISIONING
    assert ledger.admission.wanted() == ()
    ledger.tick(60.0)
    assert ledger.state("b") is AskState.UNAVAILABLE
    assert "have been gone for 60 s" in ledger.admission.answer("b").reason


def test_a_trial_that_waits_for_a_node_that_dies_waits_for_one_that_can_be_added() -> None:
    ledger = Ledger(T4, types=[T4_TYPE])
    ledger.ask(ask("a", WHOLE_T4), ask("b", WHOLE_T4))
    ledger.nodes()
    assert [each.lease_id for each in ledger.admission.wanted()] == ["b"]


def test_a_node_that_is_back_in_time_starts_the_wait_anew() -> None:
    ledger = Ledger(T4)
    ledger.ask(ask("a", WHOLE_T4), ask("b", WHOLE_T4, provision_timeout_s=60.0))
    ledger.nodes()
    ledger.tick(50.0)
    ledger.nodes(T4)
    ledger.nodes()
    ledger.tick(50.0)
    assert ledger.state("b") is AskState.PROVISIONING


def test_a_lease_whose_node_died_is_held_until_its_trial_gives_it_back() -> None:
    ledger = Ledger(TWO_CORES)
    ledger.ask(ask("a"))
    ledger.nodes()
    ledger.tick(1000.0)
    assert ledger.state("a") is AskState.GRANTED


def test_others_that_use_everything_make_a_trial_wait_and_then_give_up() -> None:
    ledger = Ledger(TWO_CORES)
    ledger.nodes(TWO_CORES, used_cpus=2.0)
    ledger.ask(ask("a", provision_timeout_s=60.0))
    assert ledger.state("a") is AskState.WAITING
    ledger.tick(60.0)
    answer = ledger.admission.answer("a")
    assert answer.state is AskState.UNAVAILABLE
    assert answer.reason.startswith("others that are no trials of falcon_ray")


def test_what_a_lease_gave_back_and_ray_still_counts_is_no_reason_to_give_up() -> None:
    ledger = Ledger(TWO_CORES)
    ledger.ask(ask("a", Demand(cpu_cores=2)), ask("b", provision_timeout_s=0.0))
    ledger.nodes(TWO_CORES, used_cpus=2.0)
    ledger.give_back("a")
    assert ledger.state("b") is AskState.WAITING
    ledger.tick(LEASE_S / 2)
    ledger.nodes(TWO_CORES)
    ledger.tick()
    assert ledger.state("b") is AskState.GRANTED


@pytest.mark.parametrize("waits", [False, True])
def test_who_is_silent_for_too_long_is_forgotten(waits: bool) -> None:
    ledger = Ledger(TWO_CORES)
    if waits:
        ledger.ask(ask("holds", Demand(cpu_cores=2)))
    ledger.ask(ask("a"))
    ledger.silent.add("a")
    ledger.tick(LEASE_S - 0.1)
    assert ledger.state("a") is (AskState.WAITING if waits else AskState.GRANTED)
    ledger.tick(0.1)
    assert ledger.state("a") is AskState.UNKNOWN
    assert "a" not in ledger.admission.known()


def test_what_a_silent_trial_held_is_granted_to_the_next() -> None:
    ledger = Ledger(TWO_CORES)
    ledger.ask(ask("a", Demand(cpu_cores=2)), ask("b", Demand(cpu_cores=2)))
    ledger.silent.add("a")
    ledger.tick(LEASE_S)
    assert ledger.holders() == {"b"}


def test_a_tick_tells_what_it_brought() -> None:
    admission = Admission()
    admission.nodes_changed([LedgerNode(node_id="n", shape=TWO_CORES)], [T4_TYPE], 0.0)
    admission.ask(ask("silent", Demand(cpu_cores=2)), 0.0)
    admission.tick(0.0)
    admission.ask(ask("gpu", WHOLE_T4, provision_timeout_s=LEASE_S / 2), LEASE_S / 2)
    admission.ask(ask("next"), LEASE_S / 2)
    changes = admission.tick(LEASE_S)
    assert changes.expired == ("silent",)
    assert changes.unavailable == ("gpu",)
    assert changes.granted == ("next",)


def test_searches_are_served_alike_whoever_asks_more_and_earlier() -> None:
    ledger = Ledger(EIGHT_CORES)
    ledger.ask(*(ask(f"x{i}", search_id="x") for i in range(20)))
    ledger.ask(*(ask(f"y{i}", search_id="y") for i in range(20)))
    assert len(ledger.holders()) == 8
    for i in range(4):
        ledger.give_back(f"x{i}")
    assert ledger.holders() == {*(f"x{i}" for i in range(4, 8)), *(f"y{i}" for i in range(4))}
    # From here on each has four, and what either gives back it gets again.
    ledger.give_back("y0", "y1", "x4")
    assert len([each for each in ledger.holders() if each.startswith("x")]) == 4


def test_within_a_search_who_asked_first_comes_first() -> None:
    ledger = Ledger(TWO_CORES)
    ledger.ask(*(ask(name, Demand(cpu_cores=2)) for name in "abc"))
    ledger.give_back("a")
    ledger.give_back("b")
    assert ledger.granted == ["a", "b", "c"]


def test_who_fits_overtakes_the_head_so_often_and_no_more() -> None:
    ledger = Ledger(EIGHT_CORES)
    ledger.ask(ask("first"), ask("large", Demand(cpu_cores=8)))
    small = [f"small{i}" for i in range(MAX_OVERTAKEN + 5)]
    ledger.ask(*(ask(name) for name in small))
    # Every small one is gone as soon as it came: only the limit stops them.
    for name in small:
        ledger.give_back(name)
    assert ledger.granted == ["first", *small[:MAX_OVERTAKEN]]
    ledger.ask(ask("late"))
    assert ledger.state("late") is AskState.WAITING
    ledger.give_back("first")
    assert ledger.granted[-1] == "large"
    ledger.give_back("large")
    assert ledger.granted[-1] == "late"


def test_other_lines_cannot_starve_the_head_of_one() -> None:
    """Trials without GPUs take the cores of the node whose GPU is waited for, for ever."""
    ledger = Ledger(L4)
    all_of_it = Demand(cpu_cores=8, n_gpus=1, gpu_type="L4")
    ledger.ask(ask("cpu0"), ask("gpu", all_of_it))
    for i in range(100):
        ledger.ask(ask(f"cpu{i + 1}"))
        ledger.give_back(f"cpu{i}")
    assert ledger.state("gpu") is AskState.GRANTED
    assert len(ledger.granted) <= MAX_OVERTAKEN + 2


def test_nodes_that_a_starving_head_would_not_take_stay_open_to_other_lines() -> None:
    ledger = Ledger(L4, EIGHT_CORES)
    all_of_it = Demand(cpu_cores=8, n_gpus=1, gpu_type="L4")
    ledger.ask(ask("holds", Demand(cpu_cores=1, n_gpus=1, gpu_type="L4")), ask("gpu", all_of_it))
    ledger.ask(*(ask(f"s{i}", Demand(cpu_cores=0, n_gpus=0, gpu_type="L4")) for i in range(20)))
    ledger.ask(ask("cpu", Demand(cpu_cores=8)))
    assert ledger.admission.answer("cpu").node_ids == ("n1",)


def test_a_head_that_waits_for_nodes_to_come_keeps_nobody_waiting() -> None:
    ledger = Ledger(T4, types=[NodeType(name="t4", shape=T4, max_nodes=4)])
    ledger.ask(ask("many", Demand(n_gpus=1, gpu_type="T4", replicas=3)))
    assert ledger.state("many") is AskState.PROVISIONING
    for i in range(3 * MAX_OVERTAKEN):
        ledger.ask(ask(f"one{i}", WHOLE_T4))
        assert ledger.state(f"one{i}") is AskState.GRANTED
        ledger.give_back(f"one{i}")


def test_lines_do_not_wait_for_each_other() -> None:
    ledger = Ledger(T4, L4)
    of_l4 = Demand(n_gpus=1, gpu_type="L4")
    ledger.ask(ask("t1", WHOLE_T4), ask("t2", WHOLE_T4), ask("l1", of_l4))
    assert ledger.holders() == {"t1", "l1"}


def test_any_gpu_will_do_for_a_demand_without_a_type() -> None:
    ledger = Ledger(T4, L4, TWO_CORES)
    any_gpu = Demand(n_gpus=1)
    ledger.ask(ask("a", any_gpu), ask("b", any_gpu), ask("c", any_gpu))
    assert ledger.holders() == {"a", "b"}


def test_trials_are_counted_by_what_they_wait_for() -> None:
    ledger = Ledger(T4, EIGHT_CORES, types=[NodeType(name="l4", shape=L4, max_nodes=1)])
    ledger.ask(
        ask("a", WHOLE_T4),
        ask("b", WHOLE_T4),
        ask("c", Demand(n_gpus=1, gpu_type="L4")),
        ask("d", Demand(n_gpus=0.5)),
        ask("e", Demand(cpu_cores=8)),
        ask("f", Demand(cpu_cores=8)),
        ask("never", Demand(cpu_cores=9)),
    )
    assert ledger.admission.counts() == {
        "CPU": LineCounts(granted=1, waiting=1),
        "L4": LineCounts(provisioning=1),
        "T4": LineCounts(granted=1, waiting=1),
        "any GPU": LineCounts(waiting=1),
    }


def test_a_restarted_ledger_takes_leases_back_and_grants_nothing_of_them() -> None:
    admission = Admission(grants_from_s=10.0)
    admission.nodes_changed([LedgerNode(node_id="n", shape=TWO_CORES)], [], 0.0)
    assert admission.alive("old", 1.0).state is AskState.UNKNOWN
    admission.ask(ask("new", Demand(cpu_cores=2)), 1.0)
    assert admission.tick(1.0).granted == ()
    old = ask("old")
    for _ in range(2):
        answer = admission.restore(old, ["n"], 5.0)
        assert answer == Answer(state=AskState.GRANTED, node_ids=("n",))
    assert admission.tick(10.0).granted == ()
    admission.give_back("old", 11.0)
    assert admission.tick(11.0).granted == ("new",)


@pytest.mark.parametrize("node_ids", [["gone"], ["n", "n"], []])
def test_a_lease_that_cannot_be_right_is_not_taken_back(node_ids: list[str]) -> None:
    admission = Admission()
    admission.nodes_changed([LedgerNode(node_id="n", shape=TWO_CORES)], [], 0.0)
    answer = admission.restore(ask("old"), node_ids, 0.0)
    assert answer.state is AskState.UNKNOWN
    assert answer.reason.startswith("its places on ")
    assert "old" not in admission.known()


def test_of_two_leases_on_the_same_cores_the_first_is_taken_back() -> None:
    admission = Admission()
    admission.nodes_changed([LedgerNode(node_id="n", shape=TWO_CORES)], [], 0.0)
    both = Demand(cpu_cores=2)
    assert admission.restore(ask("a", both), ["n"], 0.0).state is AskState.GRANTED
    assert admission.restore(ask("b", both), ["n"], 0.0).state is AskState.UNKNOWN


def test_what_a_lease_itself_uses_does_not_keep_it_from_being_taken_back() -> None:
    admission = Admission()
    node = LedgerNode(node_id="n", shape=TWO_CORES, used_cpus=2.0)
    admission.nodes_changed([node], [], 0.0)
    both = Demand(cpu_cores=2)
    assert admission.restore(ask("a", both), ["n"], 0.0).state is AskState.GRANTED


def test_leases_that_are_restored_before_the_nodes_are_known_are_judged_with_them() -> None:
    admission = Admission()
    assert admission.restore(ask("a"), ["n"], 0.0).node_ids == ("n",)
    admission.restore(ask("b"), ["gone"], 0.0)
    admission.nodes_changed([LedgerNode(node_id="n", shape=TWO_CORES)], [], 1.0)
    assert admission.answer("a") == Answer(state=AskState.GRANTED, node_ids=("n",))
    assert admission.answer("b").state is AskState.UNKNOWN
