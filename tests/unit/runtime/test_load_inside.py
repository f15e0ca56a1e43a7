import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from falcon_ray.runtime.load.inside import (
    JOIN_TIMEOUT_S,
    REPORT_S,
    Collector,
    Order,
    Share,
    describe_loss,
    load_from_inside,
    telling,
)
from tests.unit.runtime.virtual_time import VirtualTimeLoop, run

ANSWER_S = 0.1
TRIP_S = 0.001
DEATH = "a replica died under load (ConnectionError: the process is gone)"


@dataclass
class Method:
    """A method of an actor: its calls take a while to arrive."""

    call: Callable[..., Awaitable[Any]]

    async def remote(self, session: str, *arguments: Any) -> Any:  # noqa: ANN401 - any method
        assert session == "this"
        await asyncio.sleep(TRIP_S)
        return await self.call(*arguments)


@dataclass
class Service:
    """Replicas by the number of the call that each takes.

    Attributes:
        ahead_s: By replica, how far its node's clock is ahead; a replica's node has its name.
        late_s: By replica, how long it takes to come to its call.
        silent: Replicas that join and are never heard of again.
        dies_s: When a call that loads the first replica ends with its death.
    """

    loop: VirtualTimeLoop
    replicas: list[str]
    late_s: Mapping[str, float] = field(default_factory=dict[str, float])
    ahead_s: dict[str, float] = field(default_factory=dict[str, float])
    silent: frozenset[str] = frozenset()
    dies_s: float | None = None
    n_calls: int = 0
    sent_to: list[str] = field(default_factory=list[str])

    def collector(
        self, shares: list[Share], *, is_loss: Callable[[Exception], bool] = lambda _: False
    ) -> Collector:
        offsets_s = self.ahead_s
        self.made = Collector(
            self.call, shares, offsets_s=offsets_s, clock=self.loop.time, is_loss=is_loss
        )
        return self.made

    async def call(self, number: int, share: Share) -> None:
        replica = self.replicas[number]
        self.n_calls += 1
        await asyncio.sleep(self.late_s.get(replica, 0.0))
        order = Order(session="this", call=number, share=share, collector=self)
        loading = self.load(replica, order)
        if self.dies_s is None:
            await loading
            return
        with_end = asyncio.ensure_future(loading)
        await asyncio.wait([with_end], timeout=self.dies_s)
        with_end.cancel()
        raise ConnectionError("the process is gone")

    async def load(self, replica: str, order: Order) -> None:
        async def send() -> None:
            self.sent_to.append(replica)
            await asyncio.sleep(ANSWER_S)

        if replica in self.silent:
            await self.made.join(order.call, replica, replica)
            await asyncio.Event().wait()
        ahead_s = self.ahead_s.get(replica, 0.0)
        await load_from_inside(
            send, order, replica=replica, node=replica, clock=lambda: self.loop.time() + ahead_s
        )

    @property
    def join(self) -> Method:
        return Method(self.made.join)

    @property
    def deliver(self) -> Method:
        return Method(self.made.deliver)


def test_every_replica_is_loaded_with_its_share_and_all_begin_at_once() -> None:
    async def work(loop: VirtualTimeLoop) -> None:
        service = Service(loop, ["a", "b"])
        collector = service.collector([Share(concurrency=2), Share(concurrency=1)])
        assert await collector.start() == ""
        await collector.wait(1.0)
        rows = collector.take()
        assert sorted(set(service.sent_to)) == ["a", "b"]
        assert service.sent_to.count("a") == 2 * service.sent_to.count("b")
        assert np.sum(rows[:, 0] == rows[:, 0].min()) == 3  # as many as there are clients
        np.testing.assert_allclose(rows[:, 2] - rows[:, 0], ANSWER_S)
        assert [each.in_flight for each in collector.efforts()] == [2, 1]
        await collector.stop()
        assert service.n_calls == 2

    run(work)


def test_all_wait_for_the_last_replica_to_join() -> None:
    async def work(loop: VirtualTimeLoop) -> None:
        service = Service(loop, ["a", "b"], late_s={"b": 3.0})
        collector = service.collector([Share(concurrency=1), Share(concurrency=1)])
        assert await collector.start() == ""
        assert loop.time() == pytest.approx(3.0, abs=0.1)
        assert service.sent_to == []
        await collector.wait(1.0)
        assert service.sent_to.count("a") == service.sent_to.count("b") > 5
        await collector.stop()

    run(work)


def test_a_replica_that_never_joins_is_said_and_the_waiting_ends() -> None:
    async def work(loop: VirtualTimeLoop) -> None:
        service = Service(loop, ["a", "b"], late_s={"b": 1000.0})
        collector = service.collector([Share(concurrency=1), Share(concurrency=1)])
        said = await collector.start()
        assert said == "only 1 of 2 replicas came to load themselves within 20 s"
        assert loop.time() == pytest.approx(JOIN_TIMEOUT_S)
        assert service.sent_to == []
        await collector.stop()

    run(work)


def test_records_of_a_node_whose_clock_is_ahead_line_up() -> None:
    async def work(loop: VirtualTimeLoop) -> None:
        service = Service(loop, ["a", "b"], ahead_s={"b": 1000.0})
        arrivals_s = np.array([0.1, 0.3])
        shares = [Share(arrivals_s=arrivals_s), Share(arrivals_s=arrivals_s + 0.1)]
        collector = service.collector(shares)
        assert await collector.start() == ""
        await collector.wait(60.0)
        rows = collector.take()
        due_s = np.sort(rows[:, 0])
        np.testing.assert_allclose(due_s - due_s[0], [0.0, 0.1, 0.2, 0.3], atol=1e-6)
        np.testing.assert_allclose(rows[:, 2] - rows[:, 0], ANSWER_S, atol=1e-6)
        assert collector.is_done
        # The last request is due 0.4 s after a start within the first 0.1 s, and takes 0.1 s.
        assert loop.time() < 0.6 + REPORT_S
        await collector.stop()
        assert collector.trouble == ""

    run(work)


def test_a_replica_that_is_not_heard_of_is_waiting() -> None:
    async def work(loop: VirtualTimeLoop) -> None:
        service = Service(loop, ["a", "b"], silent=frozenset("b"))
        collector = service.collector([Share(concurrency=2), Share(concurrency=3)])
        assert await collector.start() == ""
        await collector.wait(5.0)
        for_a, for_b = sorted(collector.efforts(), key=lambda each: each.oldest_s)
        assert for_a.in_flight == 2
        assert for_a.oldest_s <= ANSWER_S  # as of its latest report
        assert for_b.in_flight == 3
        assert for_b.oldest_s == pytest.approx(5.0, abs=0.01)
        await collector.wait(5.0)
        longest_s = max(each.oldest_s for each in collector.efforts())
        assert longest_s == pytest.approx(10.0, abs=0.01)
        start_s = loop.time()
        await collector.stop()
        assert loop.time() - start_s < 3

    run(work)


def test_a_replica_that_dies_is_a_loss() -> None:
    async def work(loop: VirtualTimeLoop) -> None:
        service = Service(loop, ["a"], dies_s=1.0)
        collector = service.collector(
            [Share(concurrency=1)], is_loss=lambda error: isinstance(error, ConnectionError)
        )
        assert await collector.start() == ""
        await collector.wait(60.0)
        assert loop.time() == pytest.approx(1.0)
        assert collector.loss == collector.trouble == DEATH
        await collector.stop()

    run(work)


def test_a_call_that_comes_again_from_a_replacement_tells_of_a_loss() -> None:
    async def work(loop: VirtualTimeLoop) -> None:
        service = Service(loop, ["a"])
        collector = service.collector([Share(concurrency=1)])
        assert await collector.start() == ""
        assert await collector.join(0, "replacement", "node") is None
        assert collector.loss == "the replica a died under load"
        await collector.stop()

    run(work)


def test_an_application_that_cannot_be_loaded_from_inside_says_why() -> None:
    async def work(loop: VirtualTimeLoop) -> None:
        async def call(number: int, share: Share) -> None:  # noqa: ARG001
            raise AttributeError("no method load")

        collector = Collector(call, [Share(concurrency=1)], offsets_s={}, clock=loop.time)
        said = await collector.start()
        assert said == "loading a replica from inside failed: AttributeError: no method load"
        assert collector.loss == ""
        await collector.stop()

    run(work)


def test_of_a_loss_the_line_that_blames_memory_is_kept() -> None:
    low = RuntimeError("The actor died.\nIts node was running low on memory.\nSee the logs.")
    assert describe_loss(low) == "RuntimeError: Its node was running low on memory."
    assert describe_loss(RuntimeError("It died.\nNobody knows.")) == "RuntimeError: Nobody knows."


def test_of_several_losses_the_one_that_blames_memory_tells() -> None:
    assert telling(["", "it died", "OutOfMemoryError: "]) == "OutOfMemoryError: "
    assert telling(["", "it died", "it died too"]) == "it died"
    assert telling([]) == ""
