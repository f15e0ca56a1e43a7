"""Emulated GPUs of several types on this machine, and listed trials on them through the real path.

Ray's raylets, the ledger, Tune, Serve, the load and the statistics are the real ones; what a batch
takes is a table. The fleet knows how to run trials and where they ran. It does not know what a
study wants to see.
"""

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from falcon_ray.optimizers.optimizer import Suggestion
from falcon_ray.optimizers.readiness import Readiness
from falcon_ray.runtime import serve_apps
from falcon_ray.runtime.cluster_nodes import ledger_nodes
from falcon_ray.runtime.emulated.cluster import emulated_cluster
from falcon_ray.runtime.emulated.replica import EMULATED_REQUEST
from falcon_ray.runtime.emulated.target import EmulatedTarget
from falcon_ray.runtime.emulated.times import TimedBatch, tabled_times
from falcon_ray.runtime.ledger.client import LeaseTerms
from falcon_ray.runtime.model_reference import ModelReference
from falcon_ray.runtime.progress import SilentDisplay
from falcon_ray.runtime.ray_session import Cluster, ray_session
from falcon_ray.runtime.references import Reference
from falcon_ray.runtime.request_records import RequestFolder
from falcon_ray.runtime.searcher import FalconSearch
from falcon_ray.runtime.serve_trial import TrialSetup, put_request
from falcon_ray.runtime.target import ModelTarget
from falcon_ray.runtime.testbed import faulty_targets
from falcon_ray.runtime.testbed.leftovers import Inventory, inventory, left_behind
from falcon_ray.runtime.tune_trials import NAME_KEY, run_trials
from falcon_ray.space.configuration import Configuration, ConfigurationSpace
from falcon_ray.space.observation import Observation, TrialStatus
from falcon_ray.trial.plan import MeasurementPlan
from falcon_ray.trial.steady_state import PrecisionRule, WarmUpRule

SIX: tuple[str, ...] = ("T4", "T4", "L4", "A10G", "V100", "A100")
"""One GPU each."""
BATCH_MS: Mapping[str, float] = {
    "T4": 400.0,
    "L4": 320.0,
    "A10G": 260.0,
    "V100": 220.0,
    "A100": 150.0,
}
"""What a batch of 4 takes; half of it is there for a batch of one. Made up, and slow, so that the
load of many trials at once is none for this machine."""
BATCH_SIZES = (1, 2, 4, 8)
SETTLE_S = 60.0
"""What trials used may take so long to be gone."""
CLEAN_UP_S = 20.0


def plan_of(measured_s: float, *, warm_up_s: float = 2.0) -> MeasurementPlan:
    """A plan whose warm-up and measurement take so many seconds together, no more and no less."""
    measure_s = measured_s - warm_up_s
    return MeasurementPlan(
        warm_up=WarmUpRule(min_s=warm_up_s, max_s=warm_up_s),
        precision=PrecisionRule(min_s=measure_s, max_s=measure_s),
        model_s=0.0,
        max_attempts=3,
    )


def configuration_on(
    gpu_type: str,
    *,
    batch_size: int = 4,
    gpu_share: float = 1.0,
    cpu_cores: int = 1,
    replicas: int = 1,
) -> Configuration:
    """What a trial on this type of GPU deploys."""
    return Configuration(
        {
            "gpu_type": gpu_type,
            "gpu_share": gpu_share,
            "cpu_cores": cpu_cores,
            "batch_size": batch_size,
            "batch_wait_ms": 0,
            "dtype": "float32",
            "replicas": replicas,
        }
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetTrial:
    """One trial that ended.

    Attributes:
        observation: How.
        start_s: When it was suggested, from the first suggestion on.
        end_s: When it was known to have ended.
    """

    observation: Observation
    start_s: float
    end_s: float

    @property
    def nodes(self) -> tuple[str, ...]:
        """The Ray nodes that it was measured on."""
        measured = self.observation.measurement
        said = "" if measured is None else measured.environment.get("nodes", "")
        return tuple(each for each in said.split(",") if each)


@dataclass(frozen=True, slots=True)
class FleetRun:
    """Trials that ran together.

    Attributes:
        trials: In the order in which they ended.
        wall_s: From the first suggestion until the last one had ended.
        most_at_once: How many were measured at the same moment, at most.
    """

    trials: tuple[FleetTrial, ...]
    wall_s: float

    @property
    def measured(self) -> tuple[FleetTrial, ...]:
        """Those with a measurement."""
        return tuple(
            each for each in self.trials if each.observation.status is TrialStatus.MEASURED
        )

    @property
    def why_not_measured(self) -> str:
        """The reasons of the others, to stand behind what was said; empty where there are none."""
        reasons = [
            each.observation.reason
            for each in self.trials
            if each.observation.status is not TrialStatus.MEASURED
        ]
        return f"; not measured: {'; '.join(reasons)}" if reasons else ""

    @property
    def most_at_once(self) -> int:
        """How many had their resources at the same moment, at most."""
        changes = [(each.start_s + each.observation.times.wait_s, 1) for each in self.trials]
        changes += [(each.end_s, -1) for each in self.trials]
        return max(itertools.accumulate(change for _, change in sorted(changes)), default=0)


class Listed:
    """An optimizer that suggests a list from first to last, and learns nothing.

    Args:
        configurations: Each once.
    """

    def __init__(self, configurations: Sequence[Configuration]) -> None:
        self._left = list(reversed(configurations))

    def suggest(self, readiness: Readiness | None = None) -> Suggestion | None:  # noqa: ARG002
        """See `Optimizer.suggest`; what is ready changes nothing."""
        return Suggestion(configuration=self._left.pop(), why="listed") if self._left else None

    def withdraw(self, configuration: Configuration) -> None:
        """See `Optimizer.withdraw`."""
        self._left.append(configuration)

    def observe(self, observation: Observation) -> None:
        """See `Optimizer.observe`; one that failed is listed again."""
        if observation.status is TrialStatus.FAILED:
            self._left.append(observation.configuration)

    def recommend(self) -> Observation | None:
        """See `Optimizer.recommend`."""
        return None

    @property
    def exhausted(self) -> bool:
        """See `Optimizer.exhausted`."""
        return not self._left


@dataclass(frozen=True, slots=True)
class Fleet:
    """A connected cluster of emulated GPUs.

    Attributes:
        cluster: What it has.
        address: Where it answers.
        numbers: Of the runs, which never share a name.
    """

    cluster: Cluster
    address: str
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def run(
        self,
        configurations: Sequence[Configuration],
        *,
        parallel: int,
        plan: MeasurementPlan,
        colocate: bool = False,
        on_phase: Callable[[str, str], None] | None = None,
    ) -> FleetRun:
        """Run a trial of each configuration.

        Args:
            configurations: No two of them equal.
            parallel: Trials at once.
            plan: Of the measurement.
            colocate: Whether trials may share a GPU.
            on_phase: Told of a trial's name and phase.
        """
        search_id = f"{next(self.numbers):06x}"
        clock = _Clock()
        space = _space_of(configurations)
        searcher = FalconSearch(
            space,
            optimizer=Listed(configurations),
            max_trials=len(configurations),
            max_failed_in_a_row=len(configurations),
            annotate=lambda _: {NAME_KEY: f"trial-{len(clock.started_s)}"},
            on_suggestion=lambda trial_id, _: clock.start(trial_id),
            on_observation=clock.end,
        )
        setup = TrialSetup(
            target=emulated_target(self.cluster),
            request=put_request(EMULATED_REQUEST),
            nodes=self.cluster.possible_nodes,
            plan=plan,
            deploy_timeout_s=120.0,
            terms=LeaseTerms(search_id=search_id, exclusive=not colocate),
        )
        with tempfile.TemporaryDirectory(prefix="falcon-fleet-") as directory:
            run_trials(
                searcher,
                setup,
                parallel=parallel,
                requests=RequestFolder.here(Path(directory)),
                app_prefix=f"falcon-{search_id}-",
                scratch=Path(directory) / "tune",
                display=_Phases(on_phase) if on_phase else SilentDisplay(),
                label_of=lambda trial_id: trial_id,
            )
        return FleetRun(tuple(clock.trials), clock.wall_s)

    def gpu_type_by_node(self) -> Mapping[str, str | None]:
        """What each node stands for, by Ray's node id."""
        return {each.node_id: each.shape.gpu_type for each in ledger_nodes()}

    def on_other_gpu(self, trials: Sequence[FleetTrial]) -> list[FleetTrial]:
        """The trials that were measured on a node of another type than was asked for."""
        types = self.gpu_type_by_node()
        return [
            each
            for each in trials
            if not each.nodes
            or {types.get(node) for node in each.nodes}
            != {each.observation.configuration.get("gpu_type")}
        ]

    def inventory(self) -> Inventory:
        """What is there now that trials could leave behind."""
        return inventory()

    def left_behind(self, before: Inventory) -> tuple[str, ...]:
        """What trials have left, once it had time to go."""
        return left_behind(before, timeout_s=SETTLE_S)


@contextmanager
def fleet(gpu_types: Sequence[str] = SIX) -> Iterator[Fleet]:
    """Start a cluster of emulated GPUs, connect to it, and end it on exit."""
    with emulated_cluster(gpu_types) as address, ray_session(address) as cluster:
        serve_apps.start_serve()
        try:
            yield Fleet(cluster, address)
        finally:
            serve_apps.delete_all("falcon-", timeout_s=CLEAN_UP_S)
            serve_apps.end_serve()


def emulated_target(cluster: Cluster) -> EmulatedTarget:
    """The model that the table is about, which nobody ever builds."""
    model = ModelTarget(ModelReference(Reference(f"{faulty_targets.__name__}:healthy")))
    rows = [
        TimedBatch(
            gpu_type=gpu_type,
            dtype="float32",
            batch_size=size,
            latency_ms=BATCH_MS[gpu_type] * (0.5 + size / 8),
        )
        for gpu_type in sorted({each.gpu_type for each in cluster.possible_nodes if each.gpu_type})
        for size in BATCH_SIZES
    ]
    return EmulatedTarget(model, tabled_times(rows, None, source="a made-up table"), seed=0)


def _space_of(configurations: Sequence[Configuration]) -> ConfigurationSpace:
    """The smallest space that holds them all."""
    values: dict[str, dict[object, None]] = {}
    for configuration in configurations:
        for name, value in configuration.items():
            values.setdefault(name, {})[value] = None
    return ConfigurationSpace.of({name: sorted(each, key=str) for name, each in values.items()})  # pyright: ignore[reportArgumentType]


class _Clock:
    """When trials began and ended."""

    def __init__(self) -> None:
        self.started_s: dict[str, float] = {}
        self.trials: list[FleetTrial] = []
        self._first_s = 0.0

    @property
    def wall_s(self) -> float:
        """From the first beginning to the last end."""
        return max((each.end_s for each in self.trials), default=0.0)

    def start(self, trial_id: str) -> None:
        if not self.started_s:
            self._first_s = time.monotonic()
        self.started_s[trial_id] = time.monotonic() - self._first_s

    def end(self, trial_id: str, observation: Observation) -> None:
        self.trials.append(
            FleetTrial(
                observation=observation,
                start_s=self.started_s[trial_id],
                end_s=time.monotonic() - self._first_s,
            )
        )


class _Phases(SilentDisplay):
    """Tells of the phases of trials, and of nothing else."""

    def __init__(self, on_phase: Callable[[str, str], None]) -> None:
        self._on_phase = on_phase

    def phase(self, label: str, text: str) -> None:
        """See `SearchDisplay.phase`."""
        self._on_phase(label, text)
