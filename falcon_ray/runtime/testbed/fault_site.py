"""A local Ray on which trials of faulty targets are run, one after the other.

It knows how such a trial is set up and what it may not leave behind. It does not know which
fault should end in what.
"""

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import ray

from falcon_ray.errors import InputError
from falcon_ray.runtime import serve_apps
from falcon_ray.runtime.model_reference import ModelReference
from falcon_ray.runtime.ray_session import live_nodes, ray_session
from falcon_ray.runtime.references import Reference
from falcon_ray.runtime.serve_trial import TrialSetup, run_serve_trial
from falcon_ray.runtime.target import AppTarget, ModelTarget, Target
from falcon_ray.runtime.testbed import faulty_targets
from falcon_ray.runtime.testbed.leftovers import Inventory, inventory, left_behind
from falcon_ray.runtime.torch_model import example_inputs
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.dimension import Value
from falcon_ray.space.observation import Observation
from falcon_ray.trial.plan import MeasurementPlan
from falcon_ray.trial.steady_state import PrecisionRule, WarmUpRule

APP_PREFIX = "falcon-fault-"
CLEAN_UP_S = 10.0
SETTLE_S = 15.0
"""What a trial used may take so long to be gone."""

_TARGETS = faulty_targets.__name__
_VALUES: Mapping[str, Value] = {
    "cpu_cores": 1,
    "batch_size": 2,
    "batch_wait_ms": 0,
    "dtype": "float32",
    "replicas": 1,
}
PLAN = MeasurementPlan(
    warm_up=WarmUpRule(min_s=0.4, max_s=0.8),
    precision=PrecisionRule(min_s=2.0, max_s=3.0),
    poll_s=0.2,
    model_s=0.5,
    stall_s=3.0,
    max_attempts=1,
)
"""Short, and without a second attempt: a fault that goes away would be a measurement then."""


@dataclass(frozen=True, slots=True)
class FaultSite:
    """Runs trials on the connected Ray.

    Attributes:
        address: Of the Ray.
        directory: Of temporary files of ours, or None where they are not watched.
        numbers: Of the applications, which never share a name.
    """

    address: str
    directory: Path | None = None
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def new_app_name(self) -> str:
        """For one trial."""
        return f"{APP_PREFIX}{next(self.numbers)}"

    def run(
        self,
        target: str,
        *,
        app_name: str | None = None,
        timeout_s: float = 60.0,
        plan: MeasurementPlan = PLAN,
        on_phase: Callable[[str], None] = lambda _: None,
        **values: Value,
    ) -> Observation:
        """Deploy, measure and remove one of `faulty_targets`.

        Args:
            target: Name of the factory, or of the builder of an application.
            app_name: Of the application, for whoever acts on it meanwhile.
            timeout_s: Longest time for it to start.
            plan: How long and how exactly to measure.
            on_phase: Told what is going on.
            values: That differ from those of a small replica.
        """
        made, request = _target(Reference(f"{_TARGETS}:{target}"))
        return run_serve_trial(
            TrialSetup(
                target=made,
                request=ray.put(request),
                nodes=live_nodes(),
                plan=plan,
                deploy_timeout_s=timeout_s,
            ),
            Configuration({**_VALUES, **values}),
            app_name=app_name or self.new_app_name(),
            on_phase=on_phase,
        )

    def inventory(self) -> Inventory:
        """What is there now that a trial could leave behind."""
        return inventory(self.directory)

    def left_behind(self, before: Inventory) -> tuple[str, ...]:
        """What a trial has left, once it had time to go."""
        return left_behind(before, directory=self.directory, timeout_s=SETTLE_S)


def _target(reference: Reference) -> tuple[Target, object]:
    if reference.name == "autoscaled":
        return AppTarget(reference), faulty_targets.autoscaled_request()
    model = ModelReference(reference)
    return ModelTarget(model), example_inputs(model, 1).samples()[0]


@contextmanager
def fault_site() -> Iterator[FaultSite]:
    """Start a Ray on this machine, with a directory of its own for what is written meanwhile.

    Raises:
        InputError: A cluster is connected already, or named by RAY_ADDRESS.
        ClusterError: Ray cannot be started.
    """
    directory = Path(tempfile.mkdtemp(prefix="falcon-faults-"))
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(directory)  # for the processes that Ray starts
    try:
        with ray_session(None) as cluster:
            if not cluster.is_local:
                raise InputError(
                    "faults are made on a Ray of their own, never on a cluster that others may "
                    "use; unset RAY_ADDRESS"
                )
            serve_apps.start_serve()
            try:
                yield FaultSite(ray.get_runtime_context().gcs_address, directory)
            finally:
                serve_apps.delete_all(APP_PREFIX, timeout_s=CLEAN_UP_S)
                serve_apps.end_serve()
    finally:
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before
        shutil.rmtree(directory, ignore_errors=True)
