"""What holds whatever trials, searches and nodes do, in random histories.

A trial is deployed some time after it is granted; Ray counts it as in use from then on. The model
keeps its own books of what each node gives, and knows nothing of how places are chosen.
"""

from collections import Counter, defaultdict

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from falcon_ray.runtime.ledger.admission import LEASE_S, Admission
from falcon_ray.runtime.ledger.contract import Ask, AskState, LedgerNode, NodeType
from falcon_ray.space.defaults import NodeShape
from falcon_ray.space.demand import Demand

SHAPES = (
    NodeShape(cpus=2, ram_gib=8.0, gpu_type=None, n_gpus=0),
    NodeShape(cpus=16, ram_gib=64.0, gpu_type=None, n_gpus=0),
    NodeShape(cpus=4, ram_gib=16.0, gpu_type="T4", n_gpus=1),
    NodeShape(cpus=48, ram_gib=192.0, gpu_type="T4", n_gpus=4),
    NodeShape(cpus=8, ram_gib=32.0, gpu_type="L4", n_gpus=1),
)
TYPES = tuple(
    NodeType(name=f"type {i}", shape=shape, max_nodes=2) for i, shape in enumerate(SHAPES[2:])
)
IN_LINE = (AskState.WAITING, AskState.PROVISIONING)

demands = st.builds(
    Demand,
    cpu_cores=st.sampled_from([0.0, 0.1, 0.5, 1.0, 2.0, 4.0, 16.0]),
    n_gpus=st.sampled_from([0.0, 0.0, 0.25, 0.5, 0.6, 1.0, 2.0, 4.0]),
    gpu_type=st.sampled_from([None, "T4", "T4", "L4", "A100"]),
    replicas=st.sampled_from([1, 1, 1, 2, 3, 5]),
)
some = st.integers(min_value=0, max_value=10**6)


class Cluster(RuleBasedStateMachine):
    """Searches ask, hold and give back while nodes come and go and the ledger restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.admission = Admission()
        self.nodes: dict[str, NodeShape] = {}
        self.n_nodes = 0
        self.asks: dict[str, Ask] = {}
        self.n_asks = 0
        self.places: dict[str, tuple[str, ...]] = {}
        self.deployed: set[str] = set()
        self.ended: set[str] = set()

    @initialize(shapes=st.lists(st.sampled_from(SHAPES), max_size=5))
    def starts(self, shapes: list[NodeShape]) -> None:
        for shape in shapes:
            self.add(shape)
        self.look()

    @rule(demand=demands, search=st.integers(0, 2), exclusive=st.booleans())
    def asks_for(self, demand: Demand, search: int, exclusive: bool) -> None:
        lease_id = f"lease{self.n_asks}"
        self.n_asks += 1
        self.asks[lease_id] = Ask(
            lease_id=lease_id,
            search_id=f"search{search}",
            demand=demand,
            exclusive=exclusive,
            provision_timeout_s=100.0,
        )
        self.admission.ask(self.asks[lease_id], self.now_s)

    @rule(which=some)
    def gives_back(self, which: int) -> None:
        if self.asks:
            self.end(sorted(self.asks)[which % len(self.asks)])

    @rule(which=some)
    def is_deployed(self, which: int) -> None:
        if self.places:
            self.deployed.add(sorted(self.places)[which % len(self.places)])
        self.look()

    @rule(shape=st.sampled_from(SHAPES))
    def node_comes(self, shape: NodeShape) -> None:
        self.add(shape)
        self.look()

    @rule(which=some)
    def node_dies(self, which: int) -> None:
        if self.nodes:
            del self.nodes[sorted(self.nodes)[which % len(self.nodes)]]
        self.look()

    @rule(seconds=st.sampled_from([0.0, 1.0, 20.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        for _ in range(int(seconds // 10) + 1):
            self.now_s += min(seconds, 10.0)
            self.tick()

    @rule()
    def ledger_restarts(self) -> None:
        """All who hold tell it so before it grants; whose node died has lost its lease."""
        self.admission = Admission(grants_from_s=self.now_s + 5)
        self.look()
        for lease_id, ask in list(self.asks.items()):
            if lease_id in self.places:
                answer = self.admission.restore(ask, self.places[lease_id], self.now_s)
                lost = not set(self.places[lease_id]) <= self.nodes.keys()
                assert (answer.state is AskState.UNKNOWN) == lost
                if lost:
                    self.end(lease_id)
            else:
                self.admission.ask(ask, self.now_s)
        self.now_s += 5
        self.tick()

    def end(self, lease_id: str) -> None:
        self.admission.give_back(lease_id, self.now_s)
        del self.asks[lease_id]
        self.places.pop(lease_id, None)
        self.deployed.discard(lease_id)
        self.ended.add(lease_id)
        self.look()

    def add(self, shape: NodeShape) -> None:
        self.nodes[f"node{self.n_nodes}"] = shape
        self.n_nodes += 1

    def look(self) -> None:
        used: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for lease_id in self.deployed:
            for node_id in self.places[lease_id]:
                used[node_id][0] += self.asks[lease_id].demand.cpu_cores
                used[node_id][1] += self.asks[lease_id].demand.n_gpus
        nodes = [
            LedgerNode(node_id=name, shape=shape, used_cpus=used[name][0], used_gpus=used[name][1])
            for name, shape in self.nodes.items()
        ]
        self.admission.nodes_changed(nodes, TYPES, self.now_s)

    def tick(self) -> None:
        for lease_id in self.asks:
            assert self.admission.alive(lease_id, self.now_s).state is not AskState.UNKNOWN
        changes = self.admission.tick(self.now_s)
        assert not changes.expired
        assert len(set(changes.granted)) == len(changes.granted)
        for lease_id in changes.granted:
            assert lease_id in self.asks
            assert lease_id not in self.places
            self.places[lease_id] = self.admission.answer(lease_id).node_ids
            assert len(self.places[lease_id]) == self.asks[lease_id].demand.replicas

    @invariant()
    def no_lease_is_lost(self) -> None:
        assert self.admission.known() == self.asks.keys()
        for lease_id, node_ids in self.places.items():
            answer = self.admission.answer(lease_id)
            assert (answer.state, answer.node_ids) == (AskState.GRANTED, node_ids)

    @invariant()
    def no_node_gives_more_than_it_has(self) -> None:
        on: dict[str, list[Ask]] = defaultdict(list)
        for lease_id, node_ids in self.places.items():
            for node_id in node_ids:
                on[node_id].append(self.asks[lease_id])
        for node_id, asks in on.items():
            if node_id in self.nodes:
                check_node(self.nodes[node_id], asks)

    def teardown(self) -> None:
        """When all that holds gives back, all that waits is granted or told that it cannot be."""
        for _ in range(10 * len(self.asks) + 20):
            for lease_id in list(self.places):
                self.end(lease_id)
            self.now_s += LEASE_S / 3
            self.tick()
        waiting = [each for each in self.asks if self.admission.answer(each).state in IN_LINE]
        assert not waiting
        super().teardown()


def check_node(shape: NodeShape, asks: list[Ask]) -> None:
    """The replicas on one node fit it, by Ray's rules and those of exclusive leases."""
    assert sum(ask.demand.cpu_cores for ask in asks) <= shape.cpus + 1e-9
    assert {ask.demand.gpu_type for ask in asks} <= {None, shape.gpu_type}
    whole = sum(int(ask.demand.n_gpus) for ask in asks)
    assert packed([ask.demand.n_gpus % 1 for ask in asks if ask.demand.n_gpus % 1]) <= (
        shape.n_gpus - whole
    )
    by_lease = Counter(ask.lease_id for ask in asks)
    if any(ask.exclusive and not ask.demand.n_gpus for ask in asks):
        assert len(by_lease) == 1
    shares = {ask.lease_id: ask for ask in asks if 0 < ask.demand.n_gpus < 1}
    for first in shares.values():
        for second in shares.values():
            if first is not second and (first.exclusive or second.exclusive):
                assert first.demand.n_gpus + second.demand.n_gpus > 1


def packed(shares: list[float]) -> int:
    """How few GPUs hold these shares at the best: a bound from below, and often exact."""
    large = sum(share > 0.5 for share in shares)
    return max(large, -int(-sum(shares) // 1) if shares else 0)


TestCluster = Cluster.TestCase
TestCluster.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_equal_searches_hold_equal_shares_within_one() -> None:
    """Three searches want more than there is; leases end in an order of their own."""
    shape = NodeShape(cpus=7, ram_gib=8.0, gpu_type=None, n_gpus=0)
    admission = Admission()
    admission.nodes_changed([LedgerNode(node_id="n", shape=shape)], [], 0.0)
    asks = [
        Ask(lease_id=f"{search}{i}", search_id=search, demand=Demand(), exclusive=False)
        for search in "xyz"
        for i in range(40)
    ]
    holders: list[str] = []
    for each in asks:
        admission.ask(each, 0.0)
    for step in range(80):
        holders += admission.tick(0.0).granted
        held = Counter(lease_id[0] for lease_id in holders)
        assert max(held.values()) - min(held[search] for search in "xyz") <= 1
        admission.give_back(holders.pop((7 * step) % len(holders)), 0.0)


@pytest.mark.parametrize("cores", [1, 7])
def test_searches_whose_trials_last_equally_long_are_granted_equally_often(cores: int) -> None:
    """However many of its trials stand in line, and though they came first."""
    shape = NodeShape(cpus=cores, ram_gib=8.0, gpu_type=None, n_gpus=0)
    admission = Admission()
    admission.nodes_changed([LedgerNode(node_id="n", shape=shape)], [], 0.0)
    for search, n in (("x", 60), ("y", 40), ("z", 30)):
        for i in range(n):
            demand = Demand()
            admission.ask(
                Ask(lease_id=f"{search}{i}", search_id=search, demand=demand, exclusive=False), 0.0
            )
    holders: list[str] = []
    served: Counter[str] = Counter()
    while served.total() < 80:
        granted = admission.tick(0.0).granted
        served.update(lease_id[0] for lease_id in granted)
        holders += granted
        assert max(served.values()) - min(served[search] for search in "xyz") <= 1
        admission.give_back(holders.pop(0), 0.0)
