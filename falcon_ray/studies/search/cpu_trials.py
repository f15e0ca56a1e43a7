"""Which trials our own ground truth takes, in which order, and the journal of those that ended.

Every trial is on disk before the next begins, so that a measurement can be interrupted and
continued. The module knows neither Ray nor torch (`cpu_measurement` does), nor how repeats become
one row of a table (`cpu_table`).
"""

import itertools
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from falcon_ray.errors import InputError
from falcon_ray.report.journal import Event, Journal, holds_journal, read_events
from falcon_ray.space.configuration import Configuration, ConfigurationSpace
from falcon_ray.space.observation import Observation, TrialStatus

RunTrial: TypeAlias = Callable[[str, Configuration], Observation]
AroundTrial: TypeAlias = Callable[[], AbstractContextManager[object]]

_TRIAL_ENDED = "trial_ended"


def cpu_space() -> ConfigurationSpace:
    """The part of the default space of a machine with two cores that is measured."""
    return ConfigurationSpace.of(
        {
            "cpu_cores": (1, 2),
            "batch_size": (1, 2, 4, 8, 16, 32),
            "batch_wait_ms": (0, 5),
            "dtype": ("float32", "bfloat16"),
            "replicas": (1, 2),
        },
        ("cpu_cores * replicas <= 2", "batch_size > 1 or batch_wait_ms == 0"),
    )


@dataclass(frozen=True, slots=True)
class PlannedTrial:
    """One trial of one configuration of one model, the `repeat`th from 1."""

    model: str
    configuration: Configuration
    repeat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedTrial:
    """A trial that has ended.

    Attributes:
        trial: What was planned.
        observation: How it ended.
        usd_per_hour: Price of the configuration.
        wall_s: From its start to its end.
    """

    trial: PlannedTrial
    observation: Observation
    usd_per_hour: float
    wall_s: float

    @property
    def is_settled(self) -> bool:
        """Whether it says something of the configuration; else it has to be run again."""
        return self.observation.status is not TrialStatus.FAILED


def schedule(
    models: Sequence[str], space: ConfigurationSpace, *, n_repeats: int, seed: int
) -> list[PlannedTrial]:
    """All configurations of all models once, then all of them once more, and so on.

    Within a repeat the order is random, so that a drift of the machine is spread over all.
    """
    planned: list[PlannedTrial] = []
    for repeat in range(1, n_repeats + 1):
        trials = [
            PlannedTrial(m, c, repeat) for m, c in itertools.product(models, space.candidates)
        ]
        order = np.random.default_rng([seed, repeat]).permutation(len(trials))
        planned += [trials[i] for i in order]
    return planned


def unsteady(
    recorded: Sequence[RecordedTrial], *, n_repeats: int, difference: float
) -> list[PlannedTrial]:
    """One more repeat of what differs between its first `n_repeats` repeats.

    Args:
        recorded: So far.
        n_repeats: Only configurations with this many settled repeats are looked at.
        difference: Of the highest throughput over the lowest, less one, from which on a
            configuration is measured again; one that was infeasible only sometimes always is.
    """
    by_configuration: dict[tuple[str, Configuration], list[RecordedTrial]] = {}
    for each in recorded:
        if each.is_settled and each.trial.repeat <= n_repeats:
            by_configuration.setdefault((each.trial.model, each.trial.configuration), []).append(
                each
            )
    again: list[PlannedTrial] = []
    for (model, configuration), trials in by_configuration.items():
        measured = [each.observation.measurement for each in trials]
        rates = [each.saturation_rps for each in measured if each is not None]
        if len(trials) < n_repeats or not rates:
            continue
        if len(rates) < len(trials) or max(rates) / min(rates) - 1 > difference:
            again.append(PlannedTrial(model, configuration, n_repeats + 1))
    return again


def run_trials(
    planned: Sequence[PlannedTrial],
    directory: Path,
    run: RunTrial,
    *,
    prices: Mapping[Configuration, float],
    around_trial: AroundTrial = nullcontext,
    clock: Callable[[], float] = time.monotonic,
) -> Generator[RecordedTrial]:
    """Run what the journal does not hold yet; a trial is in the journal before it is yielded.

    Args:
        planned: In this order.
        directory: Of the journal, which has been begun.
        run: Runs one trial of a model, by its name.
        prices: In USD an hour.
        around_trial: Entered before each trial and left after it, e.g. to keep others off the
            machine.
        clock: Monotonic seconds.

    Raises:
        InputError: The journal cannot be read, or another process writes it.
    """
    settled = {each.trial for each in recorded_trials(directory) if each.is_settled}
    with Journal.open(directory) as journal:
        for trial in planned:
            if trial in settled:
                continue
            with around_trial():
                start_s = clock()
                observation = run(trial.model, trial.configuration)
                wall_s = clock() - start_s
            usd_per_hour = prices[trial.configuration]
            journal.append(
                _TRIAL_ENDED,
                model=trial.model,
                repeat=trial.repeat,
                observation=observation.to_json(),
                usd_per_hour=usd_per_hour,
                wall_s=wall_s,
            )
            yield RecordedTrial(
                trial=trial, observation=observation, usd_per_hour=usd_per_hour, wall_s=wall_s
            )


def begin_or_continue(directory: Path, machine: Mapping[str, Any]) -> None:
    """Begin a journal, or see that the one that is there was begun on an equal machine.

    Raises:
        InputError: It was begun on another machine, or with other software or another plan.
    """
    if not holds_journal(directory):
        Journal.create(directory, {"machine": machine}).close()
        return
    before = machine_of(directory)
    differing = sorted(name for name in machine if before.get(name) != machine[name])
    if differing:
        raise InputError(
            f"the trials in {directory} were measured with another {differing[0]} "
            f"({before.get(differing[0])!r}, now {machine[differing[0]]!r}); choose a new directory"
        )


def machine_of(directory: Path) -> Mapping[str, Any]:
    """What `machine` said when the journal in a directory was begun.

    Raises:
        InputError: There is no journal of a measurement.
    """
    return _machine(read_events(directory)[0], directory)


def recorded_trials(directory: Path) -> list[RecordedTrial]:
    """All trials in a journal, in the order in which they ended.

    Raises:
        InputError: There is no journal of a measurement, or a line of it is corrupt.
    """
    events = read_events(directory)
    _machine(events[0], directory)
    return [_recorded(each) for each in events if each.name == _TRIAL_ENDED]


def _machine(first: Event, directory: Path) -> Mapping[str, Any]:
    if "machine" not in first.fields:
        raise InputError(f"{directory} holds the journal of something else; choose a new directory")
    found: Mapping[str, Any] = first.fields["machine"]
    return found


def _recorded(event: Event) -> RecordedTrial:
    try:
        observation = Observation.from_json(event.fields["observation"])
        return RecordedTrial(
            trial=PlannedTrial(
                event.fields["model"], observation.configuration, event.fields["repeat"]
            ),
            observation=observation,
            usd_per_hour=event.fields["usd_per_hour"],
            wall_s=event.fields["wall_s"],
        )
    except KeyError as error:
        raise InputError(f"line {event.line} of the journal has no {error}") from None
