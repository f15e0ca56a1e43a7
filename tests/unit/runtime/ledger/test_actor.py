"""The ledger's shell, in an event loop of the test's and on nodes that the test says."""

import asyncio
from collections.abc import Mapping, Sequence

from falcon_ray.runtime.ledger.actor import Ledger, LedgerParts
from falcon_ray.runtime.ledger.contract import Ask, AskState, LedgerNode, NodeType
from falcon_ray.runtime.ledger.janitor import Janitor
from falcon_ray.runtime.ledger.line import LineCounts
from falcon_ray.space.defaults import NodeShape
from falcon_ray.space.demand import Demand

T4 = NodeShape(cpus=4, ram_gib=16.0, gpu_type="T4", n_gpus=1)
WHOLE = Demand(cpu_cores=1, n_gpus=1, gpu_type="T4")


class World:
    """A cluster, and what is done to it."""

    def __init__(self, *nodes: LedgerNode, types: Sequence[NodeType] = ()) -> None:
        self._nodes, self._types = nodes, types
        self.wanted: list[frozenset[str]] = []
        self.counts: list[Mapping[str, LineCounts]] = []
        self.failing_looks = 0
        self.refuses_to_add = False

    def nodes(self) -> Sequence[LedgerNode]:
        if self.failing_looks:
            self.failing_looks -= 1
            raise RuntimeError("the head does not answer")
        return self._nodes

    def types(self) -> Sequence[NodeType]:
        return self._types

    def want(self, demands: Mapping[str, Demand]) -> None:
        if self.refuses_to_add:
            raise RuntimeError("the head does not answer")
        self.wanted.append(frozenset(demands))

    def ledger(self) -> Ledger:
        return Ledger(
            LedgerParts(
                watch=self,
                provisioner=self,
                janitor=Janitor(lambda: (), lambda _: None),
                on_counts=self.counts.append,
            ),
            lease_s=30.0,
        )


def ask(name: str, demand: Demand = WHOLE) -> Ask:
    return Ask(lease_id=f"falcon-0a1b2c-{name}/1", search_id="s", demand=demand)


def test_what_is_given_back_goes_to_whoever_waits_at_once() -> None:
    async def scenario() -> None:
        ledger = World(LedgerNode(node_id="n1", shape=T4)).ledger()
        first = await ledger.alive(ask("a"), ())
        assert first.node_ids == ("n1",)
        # The second call is in the ledger, waiting, when the first lease is given back.
        waiting = asyncio.create_task(ledger.alive(ask("b"), (), wait_s=20.0))
        while not (await ledger.counts())["T4"].waiting:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)
        await ledger.give_back(ask("a").lease_id)
        assert (await waiting).state is AskState.GRANTED

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_a_first_look_that_fails_keeps_a_trial_waiting_for_the_next() -> None:
    async def scenario() -> None:
        world = World(LedgerNode(node_id="n1", shape=T4))
        world.failing_looks = 1
        ledger = world.ledger()
        assert (await ledger.alive(ask("a"), ())).state is AskState.WAITING
        assert (await ledger.alive(ask("a"), (), wait_s=20.0)).state is AskState.GRANTED

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_what_is_given_back_goes_on_where_no_nodes_can_be_asked_for() -> None:
    async def scenario() -> None:
        world = World(LedgerNode(node_id="n1", shape=T4))
        world.refuses_to_add = True
        ledger = world.ledger()
        assert (await ledger.alive(ask("a"), ())).state is AskState.GRANTED
        await ledger.give_back(ask("a").lease_id)
        assert (await ledger.alive(ask("b"), ())).state is AskState.GRANTED

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_a_trial_that_no_node_can_hold_is_told_at_the_first_call() -> None:
    async def scenario() -> None:
        ledger = World(LedgerNode(node_id="n1", shape=T4)).ledger()
        answer = await ledger.alive(ask("a", Demand(cpu_cores=99)), (), wait_s=20.0)
        assert answer.state is AskState.INFEASIBLE

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_nodes_are_asked_for_only_while_a_trial_waits_for_them() -> None:
    async def scenario() -> World:
        world = World(types=[NodeType(name="t4", shape=T4, max_nodes=1)])
        ledger = world.ledger()
        answer = await ledger.alive(ask("a"), ())
        assert answer.state is AskState.PROVISIONING
        await ledger.alive(ask("b", Demand(cpu_cores=99)), ())
        await ledger.end_app("falcon-0a1b2c-b")
        assert world.wanted[-1] == {ask("a").lease_id}
        await ledger.end_app("falcon-0a1b2c-a")
        return world

    world = asyncio.run(asyncio.wait_for(scenario(), 10))
    assert world.wanted[-1] == frozenset()


def test_a_ledger_that_was_started_again_takes_leases_back_from_their_trials() -> None:
    async def scenario() -> None:
        ledger = World(LedgerNode(node_id="n1", shape=T4, used_gpus=1.0)).ledger()
        held = await ledger.alive(ask("a"), ("n1",))
        assert held.state is AskState.GRANTED
        assert (await ledger.alive(ask("b"), ())).state is AskState.WAITING

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_the_last_search_that_leaves_is_told_to_end_serve() -> None:
    async def scenario() -> None:
        ledger = World().ledger()
        await ledger.join("first")
        await ledger.started_serve()
        await ledger.join("second")
        assert not await ledger.leave("first")
        assert await ledger.leave("second")

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_a_search_joins_once_the_one_that_left_has_ended_serve() -> None:
    async def scenario() -> None:
        ledger = World().ledger()
        await ledger.join("first")
        await ledger.started_serve()
        assert await ledger.leave("first")
        joining = asyncio.create_task(ledger.join("second"))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not joining.done()
        await ledger.ended_serve()
        await joining

    asyncio.run(asyncio.wait_for(scenario(), 10))
