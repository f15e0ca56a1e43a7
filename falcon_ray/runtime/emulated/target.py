"""A model on GPUs that are not there, as trials deploy it.

Its replicas hold the real batching queue and are placed as the model's would be: they take GPUs of
that type as Ray counts them. A batch takes the time that it is predicted to take, asleep, and
the answer is the request itself, a small one: what requests weigh on their way is not emulated. For
tests, demonstrations and planning; everything that stems from it says that it is emulated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ray import serve

from falcon_ray.runtime.emulated.deployment import emulated_service
from falcon_ray.runtime.emulated.replica import EmulatedReplica
from falcon_ray.runtime.emulated.service import BATCH_NOISE_SD, DEPLOYMENT_NOISE_SD
from falcon_ray.runtime.emulated.times import EmulatedTimes
from falcon_ray.runtime.load.transport import HttpBody
from falcon_ray.runtime.placement import actor_options, batching
from falcon_ray.runtime.references import Reference
from falcon_ray.runtime.target import TRIAL_SHUTDOWN_S, ModelTarget
from falcon_ray.space.configuration import Configuration


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
