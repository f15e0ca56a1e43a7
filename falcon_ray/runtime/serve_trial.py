"""One whole trial against Ray Serve, in the process that runs it.

Wires the recipe to Serve, the driver actors and the monitor; everything it takes can cross
processes, so it runs in a Tune trial, in a plain task or in the caller.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import ray

from falcon_ray.runtime import serve_apps
from falcon_ray.runtime.device_monitor import ProcessMonitor
from falcon_ray.runtime.load import HandleLoadGenerator
from falcon_ray.runtime.serve_backend import ServeBackend
from falcon_ray.runtime.target import Target
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.defaults import NodeShape
from falcon_ray.space.observation import Observation, TrialStatus
from falcon_ray.trial.recipe import MeasurementPlan, TrialRecipe

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSetup:
    """What all trials of a search have in common.

    Attributes:
        target: What is deployed.
        request: The example request in Ray's object store.
        nodes: What the cluster has.
        plan: How long and how exactly to measure.
        deploy_timeout_s: Longest time for an application to start.
    """

    target: Target
    request: ray.ObjectRef
    nodes: tuple[NodeShape, ...]
    plan: MeasurementPlan
    deploy_timeout_s: float


def run_serve_trial(
    setup: TrialSetup,
    configuration: Configuration,
    *,
    app_name: str,
    on_phase: Callable[[str], None],
) -> Observation:
    """Deploy, measure and remove one configuration; see `TrialRecipe.run`."""
    serve_apps.start_serve()
    load = HandleLoadGenerator(
        setup.request,
        concurrency=setup.target.concurrency(configuration),
        response_metrics=setup.target.response_metrics,
    )
    try:
        recipe = TrialRecipe(
            backend=ServeBackend(
                setup.target,
                app_name=app_name,
                nodes=setup.nodes,
                timeout_s=setup.deploy_timeout_s,
            ),
            load=load,
            monitor=ProcessMonitor(),
            plan=setup.plan,
            clock=time.monotonic,
            on_phase=on_phase,
        )
        return recipe.run(configuration)
    except Exception as error:
        # A fault of ours must not count against the configuration, and must not get lost.
        logger.exception("the trial of %s broke", configuration)
        return Observation(
            configuration=configuration,
            status=TrialStatus.FAILED,
            reason=f"unexpected {type(error).__name__}: {error}",
        )
    finally:
        load.close()
