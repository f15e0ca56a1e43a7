"""Trial deployments on Ray Serve: one application per trial, gone when the trial ends.

The backend decides what a failed deployment means: a fact about the configuration, or one
about the cluster. It does not know what is measured once the application runs.
"""

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from falcon_ray.errors import InfeasibleCause, InfeasibleError, InputError, TrialFailedError
from falcon_ray.runtime import serve_apps
from falcon_ray.runtime.faults import ray_failures
from falcon_ray.runtime.memory_kills import memory_kills_by_node
from falcon_ray.runtime.node_health import alive_nodes, lost_nodes
from falcon_ray.runtime.placement import batching, why_no_node_fits
from falcon_ray.runtime.serve_messages import cause, died_silently
from falcon_ray.runtime.target import Target
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.defaults import NodeShape
from falcon_ray.trial.causes import cause_of
from falcon_ray.trial.protocols import EndpointFacts

logger = logging.getLogger(__name__)

DELETE_TIMEOUT_S = 30.0
CALL_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class AppEndpoint:
    """A running Serve application."""

    app_name: str
    target: Target
    configuration: Configuration

    @property
    def method(self) -> str:
        """Method of the ingress that answers a request through a handle."""
        return self.target.method

    @property
    def url(self) -> str:
        """Where it answers HTTP; it has to be deployed for that."""
        return serve_apps.http_url(self.app_name)

    @property
    def granularity(self) -> int:
        """See `Endpoint.granularity`."""
        n_replicas = self.configuration.count("replicas", 1)
        return n_replicas * batching(self.configuration).max_batch_size

    @property
    def concurrency(self) -> int:
        """See `Endpoint.concurrency`."""
        return self.target.concurrency(self.configuration)

    def replicas(self) -> frozenset[str]:
        """See `Endpoint.replicas`."""
        with ray_failures("asking Serve for the replicas"):
            state = serve_apps.app_state(self.app_name)
        if state is None:
            return frozenset()
        return frozenset(each.identity for each in state.replicas if each.running)

    def processes(self) -> Sequence[tuple[str, int]]:
        """Ray node and process id of every replica."""
        with ray_failures("asking Serve for the replicas"):
            state = serve_apps.app_state(self.app_name)
        replicas = () if state is None else state.replicas
        return [(each.node_id, each.pid) for each in replicas if each.pid is not None]

    def replica_actors(self) -> Sequence[str]:
        """Name of the actor of every replica that serves now."""
        with ray_failures("asking Serve for the replicas"):
            state = serve_apps.app_state(self.app_name)
        return [] if state is None else [each.actor_name for each in state.replicas if each.running]

    def facts(self) -> EndpointFacts:
        """See `Endpoint.facts`."""
        versions = {"ray": ray.__version__}
        if not self.target.reports_facts:
            return EndpointFacts(environment=versions, enforcement={"cpu": "logical"})
        said = self._said()
        return EndpointFacts(
            service_time_ms=said["service_time_ms"],
            output_error=said["output_error"],
            enforcement=said["enforcement"],
            environment={**said["environment"], **versions},
        )

    def _said(self) -> dict[str, Any]:
        with ray_failures("asking the replica for its facts"):
            call: Any = serve.get_app_handle(self.app_name).facts.remote()
            return call.result(timeout_s=CALL_TIMEOUT_S)


class ServeBackend:
    """Deploys a target's configurations, each as an application of its own name.

    Args:
        target: What to deploy.
        app_name: Name of the next application.
        nodes: What the cluster has; a configuration that no node can hold is refused at once.
        timeout_s: Longest time from the request to a running application.
        http: Whether it has to answer HTTP.
    """

    def __init__(
        self,
        target: Target,
        *,
        app_name: str,
        nodes: Sequence[NodeShape],
        timeout_s: float,
        http: bool = False,
    ) -> None:
        self._target = target
        self._app_name = app_name
        self._nodes = tuple(nodes)
        self._timeout_s = timeout_s
        self._http = http

    @contextmanager
    def deploy(self, configuration: Configuration) -> Iterator[AppEndpoint]:
        """See `ServingBackend.deploy`."""
        if reason := why_no_node_fits(configuration, self._nodes):
            raise InfeasibleError(reason)
        try:
            app = self._target.application(configuration)
        except InputError as error:
            raise InfeasibleError(str(error)) from error
        try:
            self._start(app, configuration.count("replicas", 1))
            yield AppEndpoint(self._app_name, self._target, configuration)
        finally:
            self._remove()

    def _start(self, app: serve.Application, n_replicas: int) -> None:
        """Deploy, and once more where a process died without a word.

        What killed it may have come from outside; what kills it again is the configuration.
        """
        try:
            self._start_once(app, n_replicas)
        except _DiedSilentlyError as first:
            logger.warning("%s: %s; starting it again", self._app_name, first)
            self._remove()
            before = memory_kills_by_node()
            try:
                self._start_once(app, n_replicas)
            except _DiedSilentlyError as second:
                after = memory_kills_by_node()
                if any(after[node] > before.get(node, after[node]) for node in after):
                    raise InfeasibleError(
                        "the replica did not start: out of memory (the kernel killed its process)",
                        cause=InfeasibleCause.MEMORY,
                    ) from second
                raise InfeasibleError(f"the replica did not start, twice: {second}") from second

    def _start_once(self, app: serve.Application, n_replicas: int) -> None:
        with ray_failures("deploying"):
            nodes = alive_nodes()
            try:
                serve_apps.deploy(app, self._app_name, http=self._http)
            except (RayServeException, TypeError, ValueError) as error:
                raise InfeasibleError(f"Serve refuses the application: {error}") from error
            try:
                self._wait_until_running(n_replicas)
            except (InfeasibleError, _DiedSilentlyError) as error:
                if lost := lost_nodes(nodes):
                    raise TrialFailedError(
                        f"{_lost(lost)} while the replica started: {error}"
                    ) from error
                raise

    def _wait_until_running(self, n_replicas: int) -> None:
        deadline = time.monotonic() + self._timeout_s
        while True:
            state = serve_apps.app_state(self._app_name)
            if state is not None and state.status == "RUNNING":
                return
            if state is not None and state.status in {"DEPLOY_FAILED", "UNHEALTHY"}:
                if died_silently(state.message):
                    raise _DiedSilentlyError(cause(state.message))
                raise InfeasibleError(
                    f"the replica did not start: {cause(state.message)}",
                    cause=cause_of(state.message),
                )
            if time.monotonic() > deadline:
                raise self._too_late(state, n_replicas)
            time.sleep(serve_apps.POLL_S)

    def _too_late(
        self, state: serve_apps.AppState | None, n_replicas: int
    ) -> InfeasibleError | TrialFailedError:
        """A replica that has a process hangs; one that has none was never given its resources."""
        replicas = () if state is None else state.replicas
        placed = sum(each.pid is not None for each in replicas)
        if placed < n_replicas:
            return TrialFailedError(
                f"the cluster gave {placed} of {n_replicas} replicas a place within "
                f"{math.ceil(self._timeout_s)} s; its resources are taken by others"
            )
        return InfeasibleError(
            f"the replica was still starting after {math.ceil(self._timeout_s)} s; "
            "give --deploy-timeout-s more time if the model loads slowly",
            cause=InfeasibleCause.TIMEOUT,
        )

    def _remove(self) -> None:
        try:
            gone = serve_apps.delete(self._app_name, timeout_s=DELETE_TIMEOUT_S)
        except (RayError, RayServeException) as error:
            logger.warning("deleting the Serve app %s failed: %s", self._app_name, error)
            return
        if not gone:
            logger.warning("the Serve app %s is still shutting down", self._app_name)


class _DiedSilentlyError(Exception):
    """A replica's process ended while it started, and nothing says why."""


def _lost(nodes: frozenset[str]) -> str:
    names = ", ".join(sorted(each[:8] for each in nodes))
    return f"node {names} was lost" if len(nodes) == 1 else f"nodes {names} were lost"
