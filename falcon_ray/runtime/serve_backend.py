"""Trial deployments on Ray Serve: one application per trial, gone when the trial ends.

The backend decides what a failed deployment means: a fact about the configuration, or one
about the cluster. It does not know what is measured once the application runs.
"""

import logging
import math
import statistics
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from falcon_ray.errors import (
    InfeasibleCause,
    InfeasibleError,
    InputError,
    ReplicaLostError,
    TrialFailedError,
)
from falcon_ray.runtime import serve_apps
from falcon_ray.runtime.cluster_ledger import cluster_ledger
from falcon_ray.runtime.faults import ray_failures
from falcon_ray.runtime.ledger.client import LeaseTerms, LedgerClient, leased
from falcon_ray.runtime.ledger.contract import AskState
from falcon_ray.runtime.limits.cpu_affinity import CpuEnforcement
from falcon_ray.runtime.limits.gpu_limits import ComputeEnforcement, MemoryEnforcement
from falcon_ray.runtime.monitors.worker_kills import Reading, WorkerKills
from falcon_ray.runtime.node_health import alive_nodes, lost_nodes
from falcon_ray.runtime.placement import batching, why_no_node_fits
from falcon_ray.runtime.serve_start import DiedSilentlyError, lost_words, wait_until_running
from falcon_ray.runtime.target import Target
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.defaults import NodeShape
from falcon_ray.space.demand import Demand
from falcon_ray.trial.protocols import EndpointFacts, Reservation

logger = logging.getLogger(__name__)

DELETE_TIMEOUT_S = 30.0
CALL_TIMEOUT_S = 30.0

WAITING_PHASES = {
    AskState.WAITING: "waiting for resources",
    AskState.PROVISIONING: "provisioning a node",
}
"""What a trial is said to do that has not got its resources yet."""

FROM_WEAKEST = (
    "none",
    "logical",
    CpuEnforcement.THREADS.value,
    MemoryEnforcement.TORCH.value,
    ComputeEnforcement.MPS.value,
    ComputeEnforcement.GREEN_CONTEXT.value,
    CpuEnforcement.AFFINITY.value,
)
"""Ways to enforce limits; only those of one limit are ever compared."""


@dataclass(frozen=True)
class AppEndpoint:
    """A running Serve application.

    Attributes:
        app_name: Its name.
        target: What it is.
        configuration: In which configuration.
        nodes: Ray nodes that had its replicas when it was deployed.
    """

    app_name: str
    target: Target
    configuration: Configuration
    nodes: frozenset[str] = frozenset()
    _retired: set[str] = field(default_factory=set[str], compare=False, repr=False)

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
        """See `Endpoint.replicas`; each is asked whether it is there.

        One that autoscaling was seen to end still counts: it was not lost.

        Raises:
            TrialFailedError: A node is gone, and its replicas with it, or Serve has lost the app.
        """
        with ray_failures("asking Serve for the replicas"):
            state = serve_apps.app_state(self.app_name)
            there = [
                each for each in serve_apps.replicas_of(state) if each.running or each.retiring
            ]
            dead = serve_apps.dead_replicas(there)
            lost = lost_nodes(self.nodes)
        if lost:
            raise TrialFailedError(f"{lost_words(lost)} during the trial")
        if state is None:
            raise TrialFailedError(f"Serve does not know the application {self.app_name} any more")
        alive = [each for each in there if each.identity not in dead]
        self._retired.update(each.identity for each in alive if each.retiring)
        return frozenset(each.identity for each in alive) | self._retired

    def processes(self) -> Sequence[tuple[str, int]]:
        """Ray node and process id of every replica."""
        return [(each.node_id, each.pid) for each in self._known() if each.pid is not None]

    def replica_actors(self) -> Sequence[str]:
        """Name of the actor of every replica that serves now."""
        return [each.actor_name for each in self._known() if each.running]

    def _known(self) -> tuple[serve_apps.ReplicaState, ...]:
        with ray_failures("asking Serve for the replicas"):
            return serve_apps.replicas_of(serve_apps.app_state(self.app_name))

    def facts(self) -> EndpointFacts:
        """See `Endpoint.facts`."""
        versions = {"ray": ray.__version__, "nodes": ",".join(sorted(self.nodes))}
        if not self.target.reports_facts:
            nothing = {"cpu": "logical", "compute": "none", "memory": "none"}
            return EndpointFacts(environment=versions, enforcement=nothing)
        return facts_of(self._said(), versions)

    def _said(self) -> list[Mapping[str, Any]]:
        """What each replica says of itself.

        Raises:
            InfeasibleError: One hangs.
            TrialFailedError: One is lost, or none is there.
        """
        running = {each.identity: each.actor_name for each in self._known() if each.running}
        if not running:
            raise TrialFailedError("no replica is there to be asked for its facts")
        try:
            with ray_failures("asking the replicas for their facts"):
                calls = [serve_apps.call_replica(name, "facts") for name in running.values()]
                return ray.get(calls, timeout=CALL_TIMEOUT_S)
        except TrialFailedError as error:
            if isinstance(error.__cause__, TimeoutError) and set(running) <= self.replicas():
                raise InfeasibleError(
                    f"a replica did not answer for {CALL_TIMEOUT_S:g} s: its model hangs",
                    cause=InfeasibleCause.TIMEOUT,
                ) from error
            raise


def facts_of(said: Sequence[Mapping[str, Any]], versions: Mapping[str, str]) -> EndpointFacts:
    """What several replicas say, as one: where they differ, what is safe to say of all.

    Args:
        said: `service_time_ms`, `output_error`, `enforcement` and `environment` of each.
        versions: Of the software, added to the environment.
    """
    times_ms = [each["service_time_ms"] for each in said if each["service_time_ms"] is not None]
    errors = [each["output_error"] for each in said if each["output_error"] is not None]
    limits = dict.fromkeys(limit for each in said for limit in each["enforcement"])
    environment: dict[str, str] = {}
    for each in reversed(said):
        environment |= each["environment"]
    return EndpointFacts(
        service_time_ms=statistics.median(times_ms) if times_ms else None,
        # A comparison with NaN, which says that outputs are no numbers, would hide it.
        output_error=max(errors, key=lambda each: (math.isnan(each), each), default=None),
        enforcement={
            limit: min((each["enforcement"].get(limit, "none") for each in said), key=_strength)
            for limit in limits
        },
        environment={**environment, **versions},
    )


def _strength(enforcement: str) -> int:
    return FROM_WEAKEST.index(enforcement) if enforcement in FROM_WEAKEST else 0


class ServeBackend:
    """Deploys a target's configurations, each as an application of its own name.

    Args:
        target: What to deploy.
        app_name: Name of the next application.
        nodes: What the cluster has; a configuration that no node can hold is refused at once.
        terms: How the cluster's ledger is asked for resources; None takes what is free.
        on_phase: Told of the wait for resources.
        on_reserved: Told of the nodes that are reserved, none where any will do, before anything
            is deployed there.
        timeout_s: Longest time from the request to a running application.
        http: Whether it has to answer HTTP.
        ask_kills: Asks a node for what the kernel killed there; see `WorkerKills`.
    """

    def __init__(
        self,
        target: Target,
        *,
        app_name: str,
        nodes: Sequence[NodeShape],
        timeout_s: float,
        ask_kills: Callable[[str], Reading],
        http: bool = False,
        terms: LeaseTerms | None = None,
        on_phase: Callable[[str], None] = lambda _: None,
        on_reserved: Callable[[Sequence[str]], None] = lambda _: None,
    ) -> None:
        self._target = target
        self._app_name = app_name
        self._nodes = tuple(nodes)
        self._timeout_s = timeout_s
        self._http = http
        self._ask_kills = ask_kills
        self._terms = terms
        self._on_phase = on_phase
        self._on_reserved = on_reserved

    @contextmanager
    def reserve(self, configuration: Configuration) -> Iterator[Reservation]:
        """See `ServingBackend.reserve`."""
        if self._terms is None:
            if reason := why_no_node_fits(configuration, self._nodes):
                raise InfeasibleError(reason)
            self._on_reserved(())
            yield Reservation()
            return
        try:
            demand = Demand.of(configuration)
        except InputError as error:
            raise InfeasibleError(str(error)) from error
        ask = self._terms.ask(self._app_name, demand)
        with leased(ask, LedgerClient(cluster_ledger), on_state=self._told) as lease:
            self._on_reserved(lease.node_ids)
            yield Reservation(node_ids=lease.node_ids, provision_s=lease.provision_s)
            lease.check()

    def _told(self, state: AskState) -> None:
        self._on_phase(WAITING_PHASES[state])

    @contextmanager
    def deploy(
        self, configuration: Configuration, reservation: Reservation
    ) -> Iterator[AppEndpoint]:
        """See `ServingBackend.deploy`."""
        try:
            app = self._target.application(configuration, reservation.node_ids)
        except InputError as error:
            raise InfeasibleError(str(error)) from error
        try:
            n_replicas = configuration.count("replicas", 1)
            nodes = self._start(app, n_replicas, reservation.node_ids)
            yield AppEndpoint(self._app_name, self._target, configuration, nodes)
        finally:
            self._remove()

    def _start(
        self, app: serve.Application, n_replicas: int, node_ids: Sequence[str]
    ) -> frozenset[str]:
        """Deploy, and once more where a process died without a word.

        What killed it may have come from outside; what kills it again is the configuration.

        Returns:
            The nodes that its replicas are on.
        """
        with ray_failures("deploying"):
            nodes = alive_nodes()
            kills = WorkerKills(
                node_ids or nodes, self._ask_kills
            )  # a replica may be killed before it is seen
        try:
            return self._start_once(app, n_replicas, node_ids, nodes)
        except DiedSilentlyError as first:
            logger.warning("%s: %s; starting it again", self._app_name, first)
            self._remove()
            try:
                return self._start_once(app, n_replicas, node_ids, nodes)
            except DiedSilentlyError as second:
                if kills.count() > 0:
                    raise InfeasibleError(
                        "the replica did not start: out of memory (the kernel killed its process)",
                        cause=InfeasibleCause.MEMORY,
                    ) from second
                raise InfeasibleError(f"the replica did not start, twice: {second}") from second

    def _start_once(
        self,
        app: serve.Application,
        n_replicas: int,
        node_ids: Sequence[str],
        nodes: Collection[str],
    ) -> frozenset[str]:
        with ray_failures("deploying"):
            try:
                serve_apps.deploy(app, self._app_name, http=self._http)
            except (RayServeException, TypeError, ValueError) as error:
                raise InfeasibleError(f"Serve refuses the application: {error}") from error
            try:
                return wait_until_running(
                    self._app_name,
                    n_replicas=n_replicas,
                    pinned_to=frozenset(node_ids),
                    timeout_s=self._timeout_s,
                )
            except (InfeasibleError, ReplicaLostError, DiedSilentlyError) as error:
                if lost := lost_nodes(nodes):
                    raise TrialFailedError(
                        f"{lost_words(lost)} while the replica started: {error}"
                    ) from error
                raise

    def _remove(self) -> None:
        try:
            gone = serve_apps.delete(self._app_name, timeout_s=DELETE_TIMEOUT_S)
        except (RayError, RayServeException) as error:
            logger.warning("deleting the Serve app %s failed: %s", self._app_name, error)
            return
        if not gone:
            logger.warning("the Serve app %s is still shutting down", self._app_name)
