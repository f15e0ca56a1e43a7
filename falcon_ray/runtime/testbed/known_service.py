"""A real Serve application whose answer is known: its replica sleeps what a known service takes.

Behind the batching queue of our replicas and loaded by every path like them, so that a whole
trial of it can be held against the truth. What the truth is, others work out.
"""

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from falcon_ray.runtime import serve_apps
from falcon_ray.runtime.batch_queue import BatchQueue
from falcon_ray.runtime.load.inside import Order, load_from_inside
from falcon_ray.runtime.load.transport import HttpBody
from falcon_ray.runtime.placement import actor_options, batching
from falcon_ray.runtime.ray_session import ray_session
from falcon_ray.runtime.references import Reference
from falcon_ray.runtime.serve_trial import TrialSetup, run_serve_trial
from falcon_ray.runtime.target import TRIAL_SHUTDOWN_S
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.defaults import NodeShape
from falcon_ray.space.observation import Observation
from falcon_ray.trial.known_service import BatchTimes, KnownService
from falcon_ray.trial.plan import MeasurementPlan
from falcon_ray.trial.requests import RequestLog

APP_PREFIX = "falcon-known-service-"
DEPLOY_TIMEOUT_S = 60.0
CLEAN_UP_S = 10.0
BATCH_WAIT_MS = 0
REQUEST = 7
"""What one request carries; it comes back as it is."""


class KnownReplica:
    """Answers every request with what it carried, after its batch has been slept.

    Args:
        service: How long that takes.
        seed: Of the noise.
    """

    def __init__(self, service: KnownService, seed: int) -> None:
        self._batch_size = service.batch_size
        self._times = BatchTimes(service, np.random.default_rng(seed))
        self._slept: deque[tuple[int, float]] = deque(maxlen=4096)
        self._queue = BatchQueue(
            self._sleep_batch,
            max_batch_size=service.batch_size,
            wait_s=BATCH_WAIT_MS / 1000,
        )

    def _sleep_batch(self, requests: Sequence[int]) -> Sequence[int]:
        start_s = time.perf_counter()
        if seconds := float(self._times.take(1)[0]):
            time.sleep(seconds)
        self._slept.append((len(requests), time.perf_counter() - start_s))
        return requests

    async def predict(self, request: int) -> int:
        """Answer one request."""
        return await self._queue.submit(request)

    async def load(self, order: Order) -> None:
        """Load the batching queue from inside the replica."""

        async def send() -> None:
            await self._queue.submit(REQUEST)

        await load_from_inside(
            send,
            order,
            replica=serve.get_replica_context().replica_id.unique_id,
            node=ray.get_runtime_context().get_node_id(),
        )

    async def facts(self) -> dict[str, Any]:
        """The median seconds of the full batches since the last asking; nothing else is to say."""
        full = [seconds for n, seconds in self._slept if n == self._batch_size]
        self._slept.clear()
        return {
            "replica": serve.get_replica_context().replica_id.unique_id,
            "service_time_ms": 1000 * float(np.median(full)) if full else None,
            "output_error": None,
            "enforcement": {"cpu": "logical", "compute": "none", "memory": "none"},
            "environment": {"device": "sleep"},
        }

    async def __call__(self, request: Request) -> Response:
        """Answer one HTTP request whose body is JSON."""
        return JSONResponse(await self.predict(await request.json()))


@dataclass(frozen=True, slots=True)
class KnownTarget:
    """A known service, as trials deploy it.

    Attributes:
        service: How long its batches take.
        seed: Of their noise.
    """

    service: KnownService
    seed: int
    method: str = "predict"
    reports_facts: bool = True
    response_metrics: Reference | None = None

    @property
    def name(self) -> str:
        """Short name, for people."""
        return "known service"

    @property
    def configuration(self) -> Configuration:
        """The only one in which it is what it is."""
        return Configuration(
            {"cpu_cores": 1, "batch_size": self.service.batch_size, "batch_wait_ms": BATCH_WAIT_MS}
        )

    def concurrency(self, configuration: Configuration) -> int:
        """See `Target.concurrency`."""
        return batching(configuration).saturating_requests

    def http_body(self, request: Any) -> HttpBody:  # noqa: ANN401 - the target's own
        """See `Target.http_body`."""
        return HttpBody(str(request).encode(), "application/json")

    @property
    def import_path(self) -> str:
        """See `Target.import_path`; no Serve config file is ever written for it."""
        return "falcon_ray.runtime.testbed.known_service:KnownReplica"

    def arguments(self) -> dict[str, Any]:
        """See `Target.arguments`."""
        return {"seed": self.seed}

    def application(
        self, configuration: Configuration, node_ids: Sequence[str] = ()
    ) -> serve.Application:
        """See `Target.application`."""
        deployment: serve.Deployment = serve.deployment(  # pyright: ignore[reportAssignmentType]
            KnownReplica,
            name="KnownReplica",
            num_replicas=1,
            ray_actor_options=actor_options(configuration, node_ids),
            max_ongoing_requests=batching(configuration).max_ongoing_requests,
            max_constructor_retry_count=1,
            graceful_shutdown_wait_loop_s=TRIAL_SHUTDOWN_S,
            graceful_shutdown_timeout_s=TRIAL_SHUTDOWN_S,
        )
        return deployment.bind(self.service, self.seed)


@dataclass(frozen=True, slots=True)
class KnownTrials:
    """Runs trials of known services on the connected Ray.

    Attributes:
        nodes: What it has.
        numbers: Of the applications, which never share a name.
    """

    nodes: tuple[NodeShape, ...]
    numbers: "itertools.count[int]"

    def run(
        self,
        service: KnownService,
        *,
        seed: int,
        plan: MeasurementPlan,
        on_requests: Callable[[str, float | None, RequestLog], None] = lambda *_: None,
    ) -> Observation:
        """Deploy, measure and remove a known service once.

        Args:
            service: How long its batches take.
            seed: Of their noise.
            plan: How to measure.
            on_requests: Told of all requests; see `TrialRecipe`.
        """
        target = KnownTarget(service, seed)
        setup = TrialSetup(
            target=target,
            request=ray.put(REQUEST),
            nodes=self.nodes,
            plan=plan,
            deploy_timeout_s=DEPLOY_TIMEOUT_S,
        )
        return run_serve_trial(
            setup,
            target.configuration,
            app_name=f"{APP_PREFIX}{next(self.numbers)}",
            on_phase=lambda _: None,
            on_requests=on_requests,
        )


@contextmanager
def known_trials() -> Iterator[KnownTrials]:
    """Connect to Ray, or start one of our own; on exit nothing of ours is left there.

    Raises:
        ClusterError: Ray cannot be reached or started.
    """
    with ray_session(None) as cluster:
        is_our_serve = serve_apps.start_serve()
        try:
            yield KnownTrials(cluster.nodes, itertools.count())
        finally:
            serve_apps.delete_all(APP_PREFIX, timeout_s=CLEAN_UP_S)
            if is_our_serve:
                serve_apps.end_serve()
