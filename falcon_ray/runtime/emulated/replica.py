"""A replica of an emulated deployment: the real batching queue, and time that passes asleep.

Many of them share one machine, so its process imports neither torch nor the knowledge: it is
given plain numbers.
"""

import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from falcon_ray.runtime.batch_queue import BatchQueue
from falcon_ray.runtime.emulated.marks import emulated_enforcement, emulated_environment
from falcon_ray.runtime.emulated.service import EmulatedService, NoisyTimes, PacedSleep
from falcon_ray.runtime.load.inside import Order, load_from_inside
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.dimension import Value

EMULATED_REQUEST = 7
"""What one request carries; it comes back as it is."""


class EmulatedReplica:
    """Answers every request with what it carried, once its batch's time has passed.

    Args:
        service: How long that takes, and what memory it needs.
        values: The configuration.
        wait_s: How long the first request of a batch may wait for the others.
        seed: Of the noise.
        app_prefix: What the application's name begins with that makes no noise.

    Raises:
        MemoryError: The largest batch does not fit.
    """

    def __init__(
        self,
        service: EmulatedService,
        values: dict[str, Value],
        wait_s: float,
        *,
        seed: int,
        app_prefix: str = "",
    ) -> None:
        service.check_memory()
        context = serve.get_replica_context()
        self._replica = context.replica_id.unique_id
        self._service = service
        self._times = NoisyTimes(
            service,
            seed=seed,
            configuration=Configuration(values),
            deployment=context.app_name.removeprefix(app_prefix),
            rank=0 if context.rank is None else context.rank.rank,
        )
        # Not the loop's own clock, which may count in milliseconds.
        self._pace = PacedSleep(time.monotonic)
        self._spent: deque[tuple[int, float]] = deque(maxlen=4096)
        self._queue = BatchQueue(self._pass_time, max_batch_size=service.batch_size, wait_s=wait_s)

    async def _pass_time(self, requests: Sequence[Any]) -> Sequence[Any]:
        n = len(requests)
        self._spent.append((n, await self._pace.spend(self._times.take(n))))
        return requests

    async def predict(self, request: Any) -> Any:  # noqa: ANN401 - whatever it is, it comes back
        """Answer one request."""
        return await self._queue.submit(request)

    async def load(self, order: Order) -> None:
        """Load the batching queue from inside the replica."""

        async def send() -> None:
            await self._queue.submit(EMULATED_REQUEST)

        await load_from_inside(
            send, order, replica=self._replica, node=ray.get_runtime_context().get_node_id()
        )

    async def facts(self) -> dict[str, Any]:
        """The median seconds of the full batches since the last asking, and that it is no GPU."""
        full = [seconds for n, seconds in self._spent if n == self._service.batch_size]
        self._spent.clear()
        return {
            "replica": self._replica,
            "service_time_ms": 1000 * float(np.median(full)) if full else None,
            "output_error": None,
            "enforcement": emulated_enforcement(),
            "environment": emulated_environment(self._service.gpu_type, self._service.dtype),
        }

    async def __call__(self, request: Request) -> Response:
        """Answer one HTTP request whose body is JSON."""
        return JSONResponse(await self.predict(await request.json()))
