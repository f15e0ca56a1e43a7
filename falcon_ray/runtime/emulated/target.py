"""A model on GPUs that are not there, as trials deploy it.

Its replicas hold the real batching queue and are placed as the model's would be: they take GPUs of
that type as Ray counts them. A batch takes the time that it is predicted to take, asleep, and
the answer is the request itself, a small one: what requests weigh on their way is not emulated. For
tests, demonstrations and planning; everything that stems from it says that it is emulated.
"""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from falcon_ray.runtime.batch_queue import BatchQueue
from falcon_ray.runtime.emulated.marks import emulated_enforcement, emulated_environment
from falcon_ray.runtime.emulated.service import (
    BATCH_NOISE_SD,
    DEPLOYMENT_NOISE_SD,
    EmulatedService,
    NoisyTimes,
    PacedSleep,
    emulated_service,
)
from falcon_ray.runtime.emulated.times import EmulatedTimes
from falcon_ray.runtime.load.inside import Order, load_from_inside
from falcon_ray.runtime.load.transport import HttpBody
from falcon_ray.runtime.placement import actor_options, batching
from falcon_ray.runtime.references import Reference
from falcon_ray.runtime.target import TRIAL_SHUTDOWN_S, ModelTarget
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


@dataclass(frozen=True, slots=True)
class EmulatedTarget:
    """A model whose batches take the times that they are predicted to take.

    Attributes:
        model: What is emulated, and what an export deploys.
        times: Of its batches.
        seed: Of the noise.
        app_prefix: What the names of this search's applications begin with: two searches with one
            seed see the same noise where the rest of the names is the same.
        batch_noise_sd: See `EmulatedService`.
        deployment_noise_sd: Likewise.
    """

    model: ModelTarget
    times: EmulatedTimes
    seed: int
    app_prefix: str = ""
    batch_noise_sd: float = BATCH_NOISE_SD
    deployment_noise_sd: float = DEPLOYMENT_NOISE_SD
    method: str = "predict"
    reports_facts: bool = True
    response_metrics: Reference | None = None

    @property
    def name(self) -> str:
        """The model's."""
        return self.model.name

    def concurrency(self, configuration: Configuration) -> int:
        """See `Target.concurrency`."""
        return self.model.concurrency(configuration)

    def http_body(self, request: Any) -> HttpBody:  # noqa: ANN401 - the target's own
        """See `Target.http_body`."""
        return HttpBody(str(request).encode(), "application/json")

    @property
    def import_path(self) -> str:
        """See `Target.import_path`; a Serve config file deploys the real model."""
        return self.model.import_path

    def arguments(self) -> dict[str, Any]:
        """See `Target.arguments`; those of the real model."""
        return self.model.arguments()

    def application(
        self, configuration: Configuration, node_ids: Sequence[str] = ()
    ) -> serve.Application:
        """See `Target.application`.

        Args:
            configuration: What is emulated.
            node_ids: Ray nodes that replicas may be on; any where there are none.

        Raises:
            InputError: Nothing says how long batches take there.
        """
        service = emulated_service(
            self.times,
            configuration,
            batch_noise_sd=self.batch_noise_sd,
            deployment_noise_sd=self.deployment_noise_sd,
        )
        queue = batching(configuration)
        deployment: serve.Deployment = serve.deployment(  # pyright: ignore[reportAssignmentType]
            EmulatedReplica,
            name="EmulatedReplica",
            num_replicas=configuration.count("replicas", 1),
            ray_actor_options=actor_options(configuration, node_ids),
            max_ongoing_requests=queue.max_ongoing_requests,
            max_constructor_retry_count=1,
            graceful_shutdown_wait_loop_s=TRIAL_SHUTDOWN_S,
            graceful_shutdown_timeout_s=TRIAL_SHUTDOWN_S,
        )
        return deployment.bind(
            service,
            dict(configuration),
            queue.wait_s,
            seed=self.seed,
            app_prefix=self.app_prefix,
        )
