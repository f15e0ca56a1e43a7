"""One whole trial against Ray Serve, in the process that runs it.

Wires the recipe to Serve, the load drivers and the monitor; everything it takes can cross
processes, so it runs in a Tune trial, in a plain task or in the caller.
"""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import ray

from falcon_ray.errors import InputError
from falcon_ray.runtime import serve_apps
from falcon_ray.runtime.agents.shared import own_agents
from falcon_ray.runtime.agents.stock import Agents
from falcon_ray.runtime.faults import ray_failures
from falcon_ray.runtime.ledger.client import LeaseTerms
from falcon_ray.runtime.load.generators import DriverLoad, InsideLoad, handle_load, http_load
from falcon_ray.runtime.load.placement import DriverPool
from falcon_ray.runtime.load.transport import HttpBody
from falcon_ray.runtime.monitors.device_monitor import device_monitor
from falcon_ray.runtime.monitors.worker_kills import asking
from falcon_ray.runtime.serve_backend import DELETE_TIMEOUT_S, ServeBackend
from falcon_ray.runtime.target import Target
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.defaults import NodeShape
from falcon_ray.space.observation import Observation, TrialStatus
from falcon_ray.space.workload import LoadPath
from falcon_ray.trial.plan import MeasurementPlan
from falcon_ray.trial.recipe import TrialRecipe
from falcon_ray.trial.requests import RequestLog

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSetup:
    """What all trials of a search have in common.

    Attributes:
        target: What is deployed.
        request: The example request in Ray's object store.
        nodes: What the cluster has.
        plan: How long and how exactly to measure, and where requests enter.
        deploy_timeout_s: Longest time for an application to start.
        terms: How the cluster's ledger is asked for resources; None takes what is free.
        agents: Where load drivers and watches come from; None where the trial has its own.
    """

    target: Target
    request: ray.ObjectRef
    nodes: tuple[NodeShape, ...]
    plan: MeasurementPlan
    deploy_timeout_s: float
    terms: LeaseTerms | None = None
    agents: Agents | None = None


def put_request(request: object) -> ray.ObjectRef:
    """The example request in Ray's object store, for `TrialSetup`."""
    return ray.put(request)


def run_serve_trial(
    setup: TrialSetup,
    configuration: Configuration,
    *,
    app_name: str,
    on_phase: Callable[[str], None],
    rate_to_beat_rps: float | None = None,
    on_requests: Callable[[str, float | None, RequestLog], None] = lambda *_: None,
) -> Observation:
    """Deploy, measure and remove one configuration.

    Args:
        setup: What to deploy and how to measure.
        configuration: In which configuration.
        app_name: Name of the Serve application.
        on_phase: Told what is going on.
        rate_to_beat_rps: What the best trial so far delivers; one that cannot is cut short.
        on_requests: Told of all requests; see `TrialRecipe`.

    Returns:
        What became of it; a fault of ours is a failed trial.

    Raises:
        InputError: The target cannot be loaded by the path that the plan names.
        ClusterError: Serve runs without what that path needs.
    """
    path = setup.plan.workload.path
    if path is LoadPath.REPLICA and not setup.target.reports_facts:
        raise InputError(
            f"{setup.target.name} cannot be loaded from inside its replicas; give load_path "
            "handle or http"
        )
    serve_apps.start_serve(http=path is LoadPath.HTTP)
    try:
        try:
            concurrency = setup.target.concurrency(configuration)
        except InputError as error:
            return Observation(
                configuration=configuration, status=TrialStatus.INFEASIBLE, reason=str(error)
            )
        with nullcontext(setup.agents) if setup.agents else _own_agents(setup) as agents:
            recipe = _recipe(
                setup,
                agents,
                app_name=app_name,
                concurrency=concurrency,
                on_phase=on_phase,
                on_requests=on_requests,
            )
            in_order = False
            try:
                observation = recipe.run(configuration, rate_to_beat_rps=rate_to_beat_rps)
                in_order = observation.status is TrialStatus.MEASURED
                return observation
            finally:
                # Drivers of a trial that broke may still be at work.
                (agents.give_back if in_order else agents.forget)(app_name)
    except Exception as error:
        # A fault of ours must not count against the configuration, and must not get lost.
        logger.exception("the trial of %s broke", configuration)
        return Observation(
            configuration=configuration,
            status=TrialStatus.FAILED,
            reason=f"unexpected {type(error).__name__}: {error}",
        )


def _own_agents(setup: TrialSetup) -> AbstractContextManager[Agents]:
    return own_agents(setup.request, setup.target.response_metrics)


def _recipe(
    setup: TrialSetup,
    agents: Agents,
    *,
    app_name: str,
    concurrency: int,
    on_phase: Callable[[str], None],
    on_requests: Callable[[str, float | None, RequestLog], None],
) -> TrialRecipe:
    path = setup.plan.workload.path
    has_inside = setup.target.reports_facts and path is not LoadPath.REPLICA
    body = _http_body(setup) if path is LoadPath.HTTP else None
    watch_on = partial(agents.watch, app_name)
    drivers = DriverPool(agents, app_name, concurrency=concurrency)
    return TrialRecipe(
        backend=ServeBackend(
            setup.target,
            app_name=app_name,
            nodes=setup.nodes,
            timeout_s=setup.deploy_timeout_s,
            ask_kills=asking(watch_on),
            http=path is LoadPath.HTTP,
            terms=setup.terms,
            on_phase=on_phase,
            on_reserved=drivers.start_on,
        ),
        load=_load(path, drivers, body),
        model_load=InsideLoad(drivers) if has_inside else None,
        monitor=device_monitor(app_name, watch_on),
        plan=setup.plan,
        clock=time.monotonic,
        on_phase=on_phase,
        on_requests=on_requests,
        retry_within_s=setup.plan.retry_within_s(
            deploy_s=setup.deploy_timeout_s, remove_s=DELETE_TIMEOUT_S
        ),
    )


def _http_body(setup: TrialSetup) -> HttpBody:
    with ray_failures("reading the example request"):
        request = ray.get(setup.request)
    return setup.target.http_body(request)


def _load(path: LoadPath, drivers: DriverPool, body: HttpBody | None) -> DriverLoad | InsideLoad:
    if path is LoadPath.REPLICA:
        return InsideLoad(drivers)
    return handle_load(drivers) if body is None else http_load(drivers, body)
