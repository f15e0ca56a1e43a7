"""Trial deployments on Ray Serve: one application per trial, gone when the trial ends.

The backend decides what a failed deployment means: a fact about the configuration, or one
about the cluster. It does not know what is measured once the application runs.
"""

import logging
import math
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from falcon_ray.errors import InfeasibleCause, InfeasibleError, InputError, TrialFailedError
from falcon_ray.runtime import serve_apps
from falcon_ray.runtime.faults import ray_failures
from falcon_ray.runtime.placement import batching, why_no_node_fits
from falcon_ray.runtime.replica_load import saturate_each
from falcon_ray.runtime.target import Target
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.defaults import NodeShape
from falcon_ray.trial.causes import cause_of
from falcon_ray.trial.protocols import EndpointFacts

logger = logging.getLogger(__name__)

DELETE_TIMEOUT_S = 30.0
CALL_TIMEOUT_S = 30.0
SATURATE_ATTEMPTS = 3

_ERROR_LINE = re.compile(r"[\w.]*(Error|Exception|Exit)(:|$)")


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

    def model_rps(self, seconds: float) -> float | None:
        """See `Endpoint.model_rps`: every replica loads its own queue at the same time."""
        if not self.target.reports_facts:
            return None
        n = self.configuration.count("replicas", 1)
        handle = serve.get_app_handle(self.app_name)
        rates: list[float] = []
        with ray_failures("measuring the model's own capacity"):
            for attempt in range(1, SATURATE_ATTEMPTS + 1):
                # Calls that took too long to find their replicas get more time the next time.
                longer_s, occasion = attempt * seconds, secrets.token_hex(8)
                send = partial(handle.saturate.remote, longer_s, occasion)
                rates = saturate_each(send, n, longer_s)
                if len(rates) == n:
                    return sum(rates)
        logger.info("only %d of %d replicas of %s were loaded", len(rates), n, self.app_name)
        return None


class ServeBackend:
    """Deploys a target's configurations, each as an application of its own name.

    Args:
        target: What to deploy.
        app_name: Name of the next application.
        nodes: What the cluster has; a configuration that no node can hold is refused at once.
        timeout_s: Longest time from the request to a running application.
    """

    def __init__(
        self, target: Target, *, app_name: str, nodes: Sequence[NodeShape], timeout_s: float
    ) -> None:
        self._target = target
        self._app_name = app_name
        self._nodes = tuple(nodes)
        self._timeout_s = timeout_s

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
            with ray_failures("deploying"):
                try:
                    serve_apps.deploy(app, self._app_name)
                except (RayServeException, TypeError, ValueError) as error:
                    raise InfeasibleError(f"Serve refuses the application: {error}") from error
                self._wait_until_running(configuration.count("replicas", 1))
            yield AppEndpoint(self._app_name, self._target, configuration)
        finally:
            self._remove()

    def _wait_until_running(self, n_replicas: int) -> None:
        deadline = time.monotonic() + self._timeout_s
        while True:
            state = serve_apps.app_state(self._app_name)
            if state is not None and state.status == "RUNNING":
                return
            if state is not None and state.status in {"DEPLOY_FAILED", "UNHEALTHY"}:
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


def cause(message: str) -> str:
    """The line of Serve's message that says what went wrong: the last error of its traceback."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    errors = [
        line
        for line in lines
        if _ERROR_LINE.match(line) and not line.endswith("(most recent call last):")
    ]
    if cause_of(message) is InfeasibleCause.MEMORY:
        return f"out of memory ({errors[-1] if errors else lines[-1]})"
    if errors:
        return errors[-1]
    return lines[-1] if lines else "Serve gave no reason"
