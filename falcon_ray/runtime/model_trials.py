"""Serve trials of several models on a local Ray, one after the other, outside of any search.

It knows how a model's trials are set up and cleaned up. It does not know which trials are worth
running, nor what becomes of the observations.
"""

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import ray

from falcon_ray.runtime import serve_apps
from falcon_ray.runtime.model_reference import ModelReference
from falcon_ray.runtime.ray_session import ray_session
from falcon_ray.runtime.references import Reference
from falcon_ray.runtime.serve_trial import TrialSetup, run_serve_trial
from falcon_ray.runtime.target import ModelTarget
from falcon_ray.runtime.torch_model import check_model
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.defaults import NodeShape
from falcon_ray.space.observation import Observation
from falcon_ray.space.workload import LoadPath
from falcon_ray.trial.plan import MeasurementPlan

APP_PREFIX = "falcon-model-trial-"
CLEAN_UP_S = 10.0


@dataclass(frozen=True, slots=True)
class ModelTrials:
    """Runs trials on the connected Ray.

    Attributes:
        nodes: What it has.
        setups: By the models' names.
        numbers: Of the applications, which never share a name.
    """

    nodes: tuple[NodeShape, ...]
    setups: Mapping[str, TrialSetup]
    numbers: "itertools.count[int]"

    def run(self, model: str, configuration: Configuration) -> Observation:
        """Deploy, measure and remove one configuration of one model."""
        return run_serve_trial(
            self.setups[model],
            configuration,
            app_name=f"{APP_PREFIX}{next(self.numbers)}",
            on_phase=lambda _: None,
        )


@contextmanager
def model_trials(
    factories: Mapping[str, str], *, plan: MeasurementPlan, deploy_timeout_s: float
) -> Iterator[ModelTrials]:
    """Check the models and connect to Ray; on exit nothing of ours is left there.

    Args:
        factories: `package.module:factory` by the model's name.
        plan: How long and how exactly each trial measures.
        deploy_timeout_s: Longest time for an application to start.

    Raises:
        InputError: A model does not work on its example input.
        ClusterError: Ray cannot be reached or started.
    """
    references = {name: ModelReference(Reference(spec)) for name, spec in factories.items()}
    samples = {name: check_model(each)[0].samples()[0] for name, each in references.items()}
    with ray_session(None) as cluster:
        is_our_serve = serve_apps.start_serve(http=plan.workload.path is LoadPath.HTTP)
        setups = {
            name: TrialSetup(
                target=ModelTarget(reference),
                request=ray.put(samples[name]),
                nodes=cluster.nodes,
                plan=plan,
                deploy_timeout_s=deploy_timeout_s,
            )
            for name, reference in references.items()
        }
        try:
            yield ModelTrials(cluster.nodes, setups, itertools.count())
        finally:
            serve_apps.delete_all(APP_PREFIX, timeout_s=CLEAN_UP_S)
            if is_our_serve:
                serve_apps.end_serve()
