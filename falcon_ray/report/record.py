"""A search as its journal tells it: what was asked, what was tried, and how it ended.

The record holds facts as typed objects. It does not know which configuration is best, or
what a report looks like.
"""

import logging
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

from falcon_ray.errors import InputError
from falcon_ray.report.journal import JOURNAL_NAME, Event, read_events
from falcon_ray.space.configuration import Configuration, ConfigurationSpace
from falcon_ray.space.cost import Pricing
from falcon_ray.space.objective import Objective
from falcon_ray.space.observation import Observation

logger = logging.getLogger(__name__)


class Role(Enum):
    """Why a configuration was measured once more at the end."""

    BEST = "best"
    """The optimizer recommended it."""
    RUNNER_UP = "runner_up"
    """Its trial had the highest score of all the others."""
    BASELINE = "baseline"
    """It is what the user has today."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchHeader:
    """What a search was asked to do: everything that a resumed one must not change.

    Attributes:
        search_id: Names the search in Serve applications and messages.
        target: What is served, as the user wrote it.
        settings: The remaining arguments of the search, plain JSON values.
        space: What may be chosen.
        objective: What counts as better.
        pricing: What a configuration costs.
        seed: Of everything that is drawn.
        baseline: What the user has today, or None where nothing is to be compared with.
        versions: Version by package name, e.g. {"ray": "2.60.0"}.
        capacity_step: With an SLO: how finely certified rates were searched. The lowest rate
            that was not certified is at most `1 + capacity_step` times the highest that was.
            None where that is not known.
        emulated: Whether the GPUs are emulated: what replicas take there is predicted.
    """

    search_id: str
    target: str
    settings: Mapping[str, object]
    space: ConfigurationSpace
    objective: Objective
    pricing: Pricing
    seed: int
    baseline: Configuration | None
    versions: Mapping[str, str]
    capacity_step: float | None = None
    emulated: bool = False

    def to_json(self) -> dict[str, object]:
        """The header as plain JSON values: the fields of the event `search_started`."""
        return {
            "search_id": self.search_id,
            "target": self.target,
            "settings": dict(self.settings),
            "space": self.space.to_json(),
            "objective": self.objective.to_json(),
            "pricing": self.pricing.to_json(),
            "seed": self.seed,
            "baseline": None if self.baseline is None else dict(self.baseline),
            "versions": dict(self.versions),
            "capacity_step": self.capacity_step,
            "emulated": self.emulated,
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "SearchHeader":
        """Read what `to_json` wrote.

        Raises:
            InputError: A value does not fit.
            KeyError: A value is missing.
        """
        baseline = fields["baseline"]
        return cls(
            search_id=fields["search_id"],
            target=fields["target"],
            settings=fields["settings"],
            space=ConfigurationSpace.of(
                fields["space"]["dimensions"], fields["space"]["constraints"]
            ),
            objective=Objective.from_json(fields["objective"]),
            pricing=Pricing.from_json(fields["pricing"]),
            seed=fields["seed"],
            baseline=None if baseline is None else Configuration(baseline),
            versions=fields["versions"],
            capacity_step=fields.get("capacity_step"),
            emulated=bool(fields.get("emulated")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """One trial that ended, in whatever way.

    Attributes:
        number: Counts trials in the order in which they were started.
        why: Why the configuration was tried.
        expected: Metrics that were predicted for it; may be empty.
        observation: How it ended.
        wall_s: From its start to the end of its teardown.
        usd: What it cost: its share of the instances while it held them; None where nobody knew.
    """

    number: int
    why: str
    expected: Mapping[str, float]
    observation: Observation
    wall_s: float
    usd: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InterruptedTrial:
    """A trial that was started and of which no end was recorded."""

    number: int
    configuration: Configuration
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """A fresh measurement at the end of the search, which the choice did not depend on.

    Attributes:
        role: Why this configuration was measured.
        observation: How it ended.
        wall_s: From its start to the end of its teardown.
        n_trials_before: Trials that had ended by then; a resumed search may add more.
        round_number: From 1; in each round every configuration is deployed once.
        usd: See `TrialRecord`.
    """

    role: Role
    observation: Observation
    wall_s: float
    n_trials_before: int
    round_number: int = 1
    usd: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InterruptedConfirmation:
    """A fresh measurement that was started and of which no end was recorded.

    Attributes:
        role: See `Confirmation`.
        configuration: What was measured.
        round_number: See `Confirmation`.
    """

    role: Role
    configuration: Configuration
    round_number: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """What a search ended with.

    Attributes:
        recommended: The configuration believed to be the best then; None where none was feasible
            or nobody said.
        expected_gain: Of one more trial, relative to the best; None where nobody knew.
        probability_of_better: That anything untried is more than 5 % better, likewise.
        n_trials: That had ended by then; a resumed search may add more.
        stopped_early: Whether it ended because next to nothing was expected of one more trial.
        out_of_budget: Whether it ended because one more trial could exceed its limit of dollars.
    """

    recommended: Configuration | None
    expected_gain: float | None
    probability_of_better: float | None
    n_trials: int
    stopped_early: bool = False
    out_of_budget: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRecord:
    """Everything that one journal says.

    Attributes:
        header: What was asked.
        started: When the search began, in UTC.
        trials: Those that ended, in the order in which they ended.
        interrupted: Those that were started and did not end, by number.
        confirmations: In the order in which they ended.
        end_reason: Why the search stopped by itself; None while it runs, and where it was
            interrupted and can be resumed.
        conclusion: What it ended with; None while `end_reason` is.
        max_cost_usd: Dollars that it may cost, as it was last asked; None without a limit.
        interrupted_confirmations: Those that were started and did not end, in the order of their
            starts; searches from before these were recorded have none.
    """

    header: SearchHeader
    started: datetime
    trials: tuple[TrialRecord, ...]
    interrupted: tuple[InterruptedTrial, ...]
    confirmations: tuple[Confirmation, ...]
    end_reason: str | None
    conclusion: Conclusion | None = None
    max_cost_usd: float | None = None
    interrupted_confirmations: tuple[InterruptedConfirmation, ...] = ()

    @property
    def observations(self) -> tuple[Observation, ...]:
        """How the trials ended: what a resumed optimizer is to observe, in this order."""
        return tuple(trial.observation for trial in self.trials)

    @property
    def next_number(self) -> int:
        """The number of the next trial."""
        numbers = [trial.number for trial in (*self.trials, *self.interrupted)]
        return max(numbers, default=0) + 1


def read_search(directory: Path) -> SearchRecord:
    """Read the journal in a run directory, also while the search is running.

    Events that this version does not know are left out.

    Raises:
        InputError: There is no journal, or a line of it cannot be understood.
    """
    events = read_events(directory)
    path = directory / JOURNAL_NAME
    with _naming_the_line(path, events[0]):
        header = SearchHeader.from_json(events[0].fields)
    story = _Story(max_cost_usd=_asked_limit_usd(header.settings))
    for event in events[1:]:
        with _naming_the_line(path, event):
            story.add(event.name, event.fields)
    return SearchRecord(
        header=header,
        started=events[0].time,
        trials=tuple(story.trials.values()),
        interrupted=tuple(story.running[number] for number in sorted(story.running)),
        confirmations=tuple(story.confirmations),
        end_reason=story.end_reason,
        conclusion=story.conclusion,
        max_cost_usd=story.max_cost_usd,
        interrupted_confirmations=tuple(story.confirming),
    )


def _asked_limit_usd(settings: Mapping[str, Any]) -> float | None:
    """The limit that a search began with; searches before there were limits had none."""
    request: Mapping[str, Any] = settings.get("request") or {}
    limit = request.get("max_cost_usd")
    return None if limit is None else float(limit)


@dataclass(slots=True)
class _Story:
    """What the events so far add up to."""

    running: dict[int, InterruptedTrial] = field(default_factory=dict[int, InterruptedTrial])
    expected: dict[int, Mapping[str, float]] = field(default_factory=dict[int, Mapping[str, float]])
    trials: dict[int, TrialRecord] = field(default_factory=dict[int, TrialRecord])
    confirming: list[InterruptedConfirmation] = field(default_factory=list[InterruptedConfirmation])
    confirmations: list[Confirmation] = field(default_factory=list[Confirmation])
    end_reason: str | None = None
    conclusion: Conclusion | None = None
    max_cost_usd: float | None = None

    def add(self, name: str, fields: Mapping[str, Any]) -> None:
        """Take in one more event."""
        match name:
            case "search_resumed":
                self.end_reason, self.conclusion = None, None
                self.max_cost_usd = fields.get("max_cost_usd", self.max_cost_usd)
            case "trial_started":
                self._start_trial(fields)
            case "trial_ended":
                self._end_trial(fields)
            case "confirmation_started":
                self.confirming.append(
                    InterruptedConfirmation(
                        role=Role(fields["role"]),
                        configuration=Configuration(fields["configuration"]),
                        round_number=int(fields["round"]),
                    )
                )
            case "confirmation_ended":
                self._end_confirmation(fields)
            case "search_ended":
                self.end_reason = str(fields["reason"])
                recommended = fields.get("recommended")
                self.conclusion = Conclusion(
                    recommended=None if recommended is None else Configuration(recommended),
                    expected_gain=fields.get("expected_gain"),
                    probability_of_better=fields.get("probability_of_better"),
                    n_trials=len(self.trials),
                    stopped_early=bool(fields.get("stopped_early")),
                    out_of_budget=bool(fields.get("out_of_budget")),
                )
            case _:
                logger.info("the journal's event %r is not known here and was left out", name)

    def _start_trial(self, fields: Mapping[str, Any]) -> None:
        number = int(fields["trial"])
        if number in self.trials:
            raise ValueError(f"trial {number} starts after it ended")
        self.running[number] = InterruptedTrial(
            number=number,
            configuration=Configuration(fields["configuration"]),
            why=str(fields["why"]),
        )
        self.expected[number] = fields["expected"]

    def _end_confirmation(self, fields: Mapping[str, Any]) -> None:
        ended = Confirmation(
            role=Role(fields["role"]),
            observation=Observation.from_json(fields["observation"]),
            wall_s=float(fields["wall_s"]),
            n_trials_before=len(self.trials),
            round_number=int(fields.get("round", 1)),
            usd=fields.get("usd"),
        )
        self.confirmations.append(ended)
        started = InterruptedConfirmation(
            role=ended.role,
            configuration=ended.observation.configuration,
            round_number=ended.round_number,
        )
        # One that was interrupted was started once more than it ended.
        if started in self.confirming:
            self.confirming.remove(started)

    def _end_trial(self, fields: Mapping[str, Any]) -> None:
        number = int(fields["trial"])
        if number not in self.running:
            raise ValueError(f"trial {number} ends and is not running")
        started = self.running.pop(number)
        self.trials[number] = TrialRecord(
            number=number,
            why=started.why,
            expected=self.expected.pop(number),
            observation=Observation.from_json(fields["observation"]),
            wall_s=float(fields["wall_s"]),
            usd=fields.get("usd"),
        )


@contextmanager
def _naming_the_line(path: Path, event: Event) -> Generator[None]:
    """Turn what does not fit in one event into an error that names its line."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}, line {event.line}: the event {event.name!r} cannot be understood "
            f"({type(error).__name__}: {error}); restore the file from a copy"
        ) from error
