import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from falcon_ray.runtime.batch_queue import BatchQueue
from tests.unit.runtime.virtual_time import VirtualTimeLoop
from tests.unit.runtime.virtual_time import run as run_work


def run(work: Callable[[VirtualTimeLoop], Awaitable[None]]) -> None:
    """Run it, and let the queue come to rest: it looks for what comes after its last batch."""

    async def whole(loop: VirtualTimeLoop) -> None:
        await work(loop)
        await asyncio.sleep(1.0)

    run_work(whole)


class Model:
    """Doubles numbers, notes its batches, and may fail."""

    def __init__(self, *, fails: bool = False) -> None:
        self.batches = list[list[int]]()
        self.fails = fails

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        if self.fails:
            raise ValueError("no such kernel")
        return [2 * item for item in items]


def test_every_item_gets_its_own_result() -> None:
    async def work(loop: VirtualTimeLoop) -> None:  # noqa: ARG001
        queue = BatchQueue(Model(), max_batch_size=3)
        assert await asyncio.gather(*(queue.submit(i) for i in range(7))) == [0, 2, 4, 6, 8, 10, 12]

    run(work)


def test_what_waits_is_taken_in_order_and_in_full_batches() -> None:
    async def work(loop: VirtualTimeLoop) -> None:  # noqa: ARG001
        model = Model()
        queue = BatchQueue(model, max_batch_size=3)
        await asyncio.gather(*(queue.submit(i) for i in range(7)))
        assert model.batches == [[0, 1, 2], [3, 4, 5], [6]]

    run(work)


def test_requests_that_arrive_while_the_model_computes_join_the_next_batch() -> None:
    async def work(loop: VirtualTimeLoop) -> None:
        batches = list[list[int]]()
        others = list[asyncio.Task[int]]()

        async def arrive(item: int) -> int:
            for _ in range(5):  # a request takes some turns of the loop to become an item
                await asyncio.sleep(0)
            return await queue.submit(item)

        def compute(items: Sequence[int]) -> list[int]:
            batches.append(list(items))
            if len(batches) == 1:
                # As from another thread: they come while this computes.
                for item in (1, 2, 3):
                    loop.call_soon(lambda i=item: others.append(loop.create_task(arrive(i))))
            return list(items)

        queue = BatchQueue(compute, max_batch_size=3)
        await queue.submit(0)
        await asyncio.sleep(1.0)
        await asyncio.gather(*others)
        assert batches == [[0], [1, 2, 3]]

    run(work)


@pytest.mark.parametrize(("second_after_s", "batches"), [(0.01, [[0, 1]]), (0.03, [[0], [1]])])
def test_the_first_item_waits_for_others_as_long_as_it_may(
    second_after_s: float, batches: list[list[int]]
) -> None:
    async def work(loop: VirtualTimeLoop) -> None:  # noqa: ARG001
        model = Model()
        queue = BatchQueue(model, max_batch_size=2, wait_s=0.02)
        first = asyncio.ensure_future(queue.submit(0))
        await asyncio.sleep(second_after_s)
        await queue.submit(1)
        await first
        assert model.batches == batches

    run(work)


def test_a_full_batch_does_not_wait() -> None:
    async def work(loop: VirtualTimeLoop) -> None:
        queue = BatchQueue(Model(), max_batch_size=2, wait_s=60.0)
        await asyncio.gather(queue.submit(0), queue.submit(1))
        assert loop.time() < 1.0

    run(work)


def test_an_error_reaches_every_item_of_its_batch_and_the_queue_goes_on() -> None:
    async def work(loop: VirtualTimeLoop) -> None:  # noqa: ARG001
        model = Model(fails=True)
        queue = BatchQueue(model, max_batch_size=2)
        said = await asyncio.gather(queue.submit(0), queue.submit(1), return_exceptions=True)
        assert [str(each) for each in said] == ["no such kernel", "no such kernel"]
        model.fails = False
        assert await queue.submit(3) == 6

    run(work)


class Sleeper:
    """Takes a second for each batch, and leaves the loop to others meanwhile."""

    def __init__(self, *, fails: bool = False) -> None:
        self.batches = list[list[int]]()
        self.fails = fails

    async def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        await asyncio.sleep(1.0)
        if self.fails:
            raise ValueError("no such kernel")
        return [2 * item for item in items]


def test_what_comes_while_a_batch_is_awaited_waits_for_the_next_one() -> None:
    async def work(loop: VirtualTimeLoop) -> None:
        sleeper = Sleeper()
        queue = BatchQueue(sleeper, max_batch_size=2)
        first = asyncio.ensure_future(queue.submit(0))
        await asyncio.sleep(0.5)
        assert await asyncio.gather(first, *(queue.submit(i) for i in (1, 2, 3))) == [0, 2, 4, 6]
        assert sleeper.batches == [[0], [1, 2], [3]]
        assert loop.time() == pytest.approx(3.0)  # one batch at a time

    run(work)


@pytest.mark.parametrize("fails", [False, True])
def test_a_batch_outlives_whoever_stops_waiting_for_it(*, fails: bool) -> None:
    async def work(loop: VirtualTimeLoop) -> None:  # noqa: ARG001
        sleeper = Sleeper(fails=fails)
        queue = BatchQueue(sleeper, max_batch_size=2)
        gone, stays = (asyncio.ensure_future(queue.submit(i)) for i in (1, 2))
        await asyncio.sleep(0.5)
        gone.cancel()
        said = await asyncio.gather(stays, return_exceptions=True)
        assert [str(each) for each in said] == ["no such kernel" if fails else "4"]
        sleeper.fails = False
        assert await queue.submit(3) == 6

    run(work)


def test_an_item_that_nobody_waits_for_any_more_is_not_computed() -> None:
    async def work(loop: VirtualTimeLoop) -> None:  # noqa: ARG001
        model = Model()
        queue = BatchQueue(model, max_batch_size=1)
        waiting = [asyncio.ensure_future(queue.submit(i)) for i in range(3)]
        await asyncio.sleep(0)
        waiting[1].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert model.batches == [[0], [2]]

    run(work)
