"""Where a search stands: what it told so far, added up.

Each event gives a new state, so that whoever draws one in another thread sees it whole. It
knows no terminal, no metric and no clock.
"""

from collections import Counter
from dataclasses import dataclass, replace
from enum import Enum
from typing import Self

from falcon_ray.report.record import SearchHeader
from falcon_ray.report.valuation import Valuation, value
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.demand import Demand
from falcon_ray.space.observation import Observation, TrialStatus


class Stage(Enum):
    """What a trial that has not ended is about; a phase that begins with such a word says so."""

    RUNNING = "running"
    """It has its resources, or needs none from others."""
    WAITING = "waiting"
    """Others have what it needs."""
    PROVISIONING = "provisioning"
    """It waits for nodes that the autoscaler can add."""


def stage_of(phase: str) -> Stage:
    """The stage that a phase belongs to: `waiting` and `waiting for an L4` are both waiting."""
    word = phase.partition(" ")[0].rstrip(":,;")
    return next((each for each in Stage if each.value == word), Stage.RUNNING)


def accelerator(configuration: Configuration) -> str:
    """What a configuration runs on: its GPU type, `GPU` where any will do, else `CPU`."""
    demand = Demand.of(configuration)
    return demand.gpu_type or ("GPU" if demand.n_gpus else "CPU")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningTrial:
    """One trial that started and has not ended.

    Attributes:
        label: Names it.
        configuration: What is deployed.
        start_s: When it started, by the clock of whoever shows it.
        phase: What it does, in a few words.
        stage: What that amounts to.
    """

    label: str
    configuration: Configuration
    start_s: float
    phase: str = "starting"
    stage: Stage = Stage.RUNNING


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceleratorCounts:
    """How many trials of one accelerator type are at what.

    Attributes:
        name: As `accelerator` gives it.
        stages: Of those that have not ended.
        statuses: Of those that ended.
    """

    name: str
    stages: Counter[Stage]
    statuses: Counter[TrialStatus]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchProgress:
    """What a search told so far.

    Attributes:
        header: What was asked; None before the search has started.
        max_trials: Trials in all.
        n_before: Of these, how many ended before this process.
        running: In the order in which they started.
        ended: Accelerator and status of every trial that ended in this process, without what was
            measured again at the end.
        best: The highest score, wherever it was measured first.
        best_label: The trial that has it; empty where it ended before this process.
        usd: Spent so far.
        max_cost_usd: What may be spent; None without a limit.
    """

    header: SearchHeader | None = None
    max_trials: int = 0
    n_before: int = 0
    running: tuple[RunningTrial, ...] = ()
    ended: tuple[tuple[str, TrialStatus], ...] = ()
    best: Valuation | None = None
    best_label: str = ""
    usd: float = 0.0
    max_cost_usd: float | None = None

    @property
    def best_score(self) -> float | None:
        """Requests per dollar of the best; None where nothing has a score yet."""
        return None if self.best is None else self.best.score

    @property
    def n_ended(self) -> int:
        """Trials that ended, before this process or in it."""
        return self.n_before + len(self.ended)

    def counts(self) -> tuple[AcceleratorCounts, ...]:
        """How many trials are at what, by accelerator type, in the order of the names."""
        running = [(accelerator(each.configuration), each.stage) for each in self.running]
        names = sorted({name for name, _ in (*running, *self.ended)})
        return tuple(
            AcceleratorCounts(
                name=name,
                stages=Counter(stage for each, stage in running if each == name),
                statuses=Counter(status for each, status in self.ended if each == name),
            )
            for name in names
        )

    def started(self, label: str, configuration: Configuration, *, now_s: float) -> Self:
        """With one more trial that runs."""
        trial = RunningTrial(label=label, configuration=configuration, start_s=now_s)
        return replace(self, running=(*self.running, trial))

    def at_phase(self, label: str, text: str) -> Self:
        """With a trial in another phase; as it was where no such trial runs."""
        return replace(
            self,
            running=tuple(
                replace(each, phase=text, stage=stage_of(text)) if each.label == label else each
                for each in self.running
            ),
        )

    def with_end(
        self, label: str, observation: Observation, *, usd: float | None, is_fresh: bool
    ) -> Self:
        """With a trial that ended; one that only measured again is no better than its first."""
        finished = replace(
            self,
            running=tuple(each for each in self.running if each.label != label),
            usd=self.usd + (usd or 0.0),
        )
        if is_fresh:
            return finished
        at = (accelerator(observation.configuration), observation.status)
        finished = replace(finished, ended=(*self.ended, at))
        valued = self.valued(observation)
        if valued is None or valued.score is None or valued.score <= (self.best_score or 0.0):
            return finished
        return replace(finished, best=valued, best_label=label)

    def stopped(self) -> Self:
        """With nothing that runs: what was interrupted has no end."""
        return replace(self, running=())

    def valued(self, observation: Observation) -> Valuation | None:
        """What a measurement is worth; None where there is none, or no search to ask."""
        if self.header is None or observation.measurement is None:
            return None
        return value(observation, self.header.objective, self.header.pricing)
