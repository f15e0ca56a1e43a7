"""A batching queue whose batches are formed when the model is free to take them.

Serve's own `@serve.batch` forms the next batch when the last one starts, from the few requests that
have come by then, and what comes while the model computes waits for the batch after that. This
one forms a batch once the last one has ended, from all that have come until then.

It knows items and a function of a batch. It does not know models, nor Serve.
"""

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

ARRIVAL_STEPS = 12
"""Turns of the event loop in which a request that came while the model computed reaches the queue:
it is a callback, then a task, and the method that it calls, before it is an item."""


class BatchQueue(Generic[ItemT, ResultT]):
    """Calls a function with batches of the items that are submitted.

    A plain function computes in the event loop on purpose: there is nothing to do meanwhile but to
    receive requests, which another thread does. One that is awaited leaves the loop to others.

    Args:
        compute: From a batch of 1 to `max_batch_size` items to as many results, or to what gives
            them when it is awaited. One batch is computed at a time.
        max_batch_size: Items that it takes at most.
        wait_s: How long the first item of a batch may wait for the others.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[ItemT]], Sequence[ResultT] | Awaitable[Sequence[ResultT]]],
        *,
        max_batch_size: int,
        wait_s: float = 0.0,
    ) -> None:
        self._compute = compute
        self._max_batch_size = max_batch_size
        self._wait_s = wait_s
        self._waiting: deque[tuple[ItemT, asyncio.Future[ResultT]]] = deque()
        self._came = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None

    async def submit(self, item: ItemT) -> ResultT:
        """The result for one item.

        Raises:
            Exception: What the function raised for its batch.
        """
        loop = asyncio.get_running_loop()
        result: asyncio.Future[ResultT] = loop.create_future()
        self._waiting.append((item, result))
        self._came.set()
        if self._runner is None or self._runner.done():
            self._runner = loop.create_task(self._run())
        return await result

    async def _run(self) -> None:
        """Until nothing waits."""
        while self._waiting:
            batch = await self._next_batch()
            if batch:
                await self._answer(batch)
                for _ in range(ARRIVAL_STEPS):
                    await asyncio.sleep(0)

    async def _next_batch(self) -> list[tuple[ItemT, asyncio.Future[ResultT]]]:
        """The oldest items, without those that nobody waits for any more."""
        if self._wait_s > 0 and len(self._waiting) < self._max_batch_size:
            await self._wait_for_more()
        batch: list[tuple[ItemT, asyncio.Future[ResultT]]] = []
        while self._waiting and len(batch) < self._max_batch_size:
            item, result = self._waiting.popleft()
            if not result.done():
                batch.append((item, result))
        return batch

    async def _wait_for_more(self) -> None:
        try:
            async with asyncio.timeout(self._wait_s):
                while len(self._waiting) < self._max_batch_size:
                    self._came.clear()
                    await self._came.wait()
        except TimeoutError:
            pass

    async def _answer(self, batch: list[tuple[ItemT, asyncio.Future[ResultT]]]) -> None:
        try:
            computed = self._compute([item for item, _ in batch])
            results = await computed if inspect.isawaitable(computed) else computed
        except Exception as error:  # noqa: BLE001 - it may raise anything, and each item gets it
            for _, result in batch:
                if not result.done():  # nobody may wait any more for what was awaited
                    result.set_exception(error)
            return
        for (_, result), value in zip(batch, results, strict=True):
            if not result.done():
                result.set_result(value)
