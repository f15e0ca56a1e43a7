"""Fresh measurements at the end of a search, each in a process of its own.

Which ones are wanted is decided in `report.confirmation`, from the journal alone: a search that
is killed here goes on where it was. What follows from the numbers is not known here.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import ray
from ray.exceptions import RayError, RayTaskError

from falcon_ray.report.confirmation import FreshTrial, contenders, missing_trials
from falcon_ray.report.journal import Journal
from falcon_ray.report.nothing_feasible import NothingFeasible
from falcon_ray.report.recommendation import recommend
from falcon_ray.report.record import Role, SearchRecord, read_search
from falcon_ray.runtime.progress import SearchDisplay
from falcon_ray.runtime.request_records import RequestFolder
from falcon_ray.runtime.serve_trial import TrialSetup, run_serve_trial
from falcon_ray.runtime.tune_trials import HEAD, HEAD_PART
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.observation import Observation, TrialStatus
from falcon_ray.trial.plan import MeasurementPlan

_NAMES = {
    Role.BEST: "the best",
    Role.RUNNER_UP: "the runner-up",
    Role.BASELINE: "the baseline",
}


class Spending(Protocol):
    """The books of a search's dollars; `SearchSpend` keeps them."""

    def may_confirm(self, configuration: Configuration) -> bool:
        """Whether it may be measured afresh."""
        ...

    def start(self, name: str, configuration: Configuration) -> None:
        """A measurement starts."""
        ...

    def end(self, name: str, observation: Observation, *, held_at_most_s: float) -> float | None:
        """A measurement ended; what it cost. See `SearchSpend.end`."""
        ...


def confirm(
    best: Configuration,
    *,
    directory: Path,
    journal: Journal,
    n_rounds: int,
    measure: Callable[[FreshTrial], Observation],
    spending: Spending | None = None,
    display: SearchDisplay,
) -> None:
    """Measure what the journal lacks of the best, the runner-up and the baseline, in rounds.

    A measurement that fails is not tried again here, as its trial has done that already, but
    when the search is resumed.

    Args:
        best: What the optimizer recommends.
        directory: The run directory.
        journal: Its journal, told about each measurement before the next begins.
        n_rounds: How often each configuration is deployed.
        measure: Deploys one and says how that ended.
        spending: The books of what it costs, which may stop it; None without any.
        display: Told about progress.
    """
    tried: set[FreshTrial] = set()
    while True:
        record = read_search(directory)
        missing = missing_trials(record, best, n_rounds=n_rounds)
        trial = next((each for each in missing if each not in tried), None)
        if trial is None:
            return
        tried.add(trial)
        if spending is not None and not spending.may_confirm(trial.configuration):
            display.note(
                f"{_NAMES[trial.role]} is not measured afresh: that could exceed max_cost_usd"
            )
            continue
        number = trial.round_number
        label = f"Confirming {_NAMES[trial.role]}, round {number} of {n_rounds}"
        display.trial_started(
            label,
            trial.configuration,
            f"{len(contenders(record, best))} configurations are measured afresh in turn",
        )
        if spending is not None:
            spending.start(label, trial.configuration)
        journal.confirmation_started(trial.role.value, trial.configuration, round_number=number)
        display.phase(label, "deploying and measuring")
        start_s = time.monotonic()
        observation = measure(trial)
        wall_s = time.monotonic() - start_s
        # What a process that died had waited before it was deployed is not known here.
        usd = None if spending is None else spending.end(label, observation, held_at_most_s=wall_s)
        journal.confirmation_ended(
            trial.role.value, observation, wall_s=wall_s, round_number=number, usd=usd
        )
        display.trial_ended(label, observation, wall_s=wall_s, usd=usd, is_fresh=True)


def is_confirmed(record: SearchRecord, *, n_rounds: int) -> bool:
    """Whether a search that ended has all the fresh measurements that it can get."""
    conclusion = record.conclusion
    best = None if conclusion is None else conclusion.recommended
    if best is None:
        found = recommend(record)
        if isinstance(found, NothingFeasible):
            return True
        # Before searches wrote down what they believed, the first confirmation told it.
        named = [each for each in record.confirmations if each.role is Role.BEST]
        best = named[-1].observation.configuration if named else found.configuration
    return not missing_trials(record, best, n_rounds=n_rounds)


def confirmation_app(app_prefix: str, trial: FreshTrial) -> str:
    """Name of the Serve application of a fresh measurement."""
    return f"{app_prefix}{trial.role.value.replace('_', '-')}-{trial.round_number}"


def measured_in_task(
    trial: FreshTrial, setup: TrialSetup, *, requests: RequestFolder, app_prefix: str, n_trials: int
) -> Observation:
    """Measure in a process of its own, by `fresh_plan`.

    Args:
        trial: What is measured.
        setup: What the trials have in common.
        requests: Where the requests are kept.
        app_prefix: Of the names of Serve applications.
        n_trials: That ended before, for the file's name.

    Raises:
        KeyboardInterrupt: On SIGINT, once the process is told to end.
    """
    role = trial.role.value
    task = _confirmation.options(resources={HEAD: HEAD_PART}).remote(
        replace(setup, plan=fresh_plan(setup.plan, round_number=trial.round_number)),
        trial.configuration,
        confirmation_app(app_prefix, trial),
        requests,
        f"confirmation-{n_trials}-{trial.round_number}-{role}",
    )
    try:
        return ray.get(task)
    except KeyboardInterrupt:
        ray.cancel(task, force=True)
        raise
    except RayError as error:
        return Observation(
            configuration=trial.configuration,
            status=TrialStatus.FAILED,
            reason=why_broken(error),
        )


def fresh_plan(plan: MeasurementPlan, *, round_number: int) -> MeasurementPlan:
    """The plan of a round: new arrivals, the same ones for all that it compares.

    What the decision does not need is left out: the model's own capacity.
    """
    return replace(plan, model_s=0.0, seed=plan.seed + round_number)


def why_broken(error: RayError) -> str:
    """Why the process of a trial gave no observation, in one line."""
    cause = error.cause if isinstance(error, RayTaskError) else None
    if cause is None:
        return f"the trial's process died: {type(error).__name__}"
    said = " ".join(str(cause).split())
    return f"the trial's process broke: {type(cause).__name__}{f': {said}' if said else ''}"


@ray.remote(num_cpus=0, max_retries=0)
def _confirmation(
    setup: TrialSetup,
    configuration: Configuration,
    app_name: str,
    requests: RequestFolder,
    file_name: str,
) -> Observation:
    with requests.recording(file_name, configuration) as records:
        return run_serve_trial(
            setup,
            configuration,
            app_name=app_name,
            on_phase=records.watching(_not_shown),
            on_requests=records.add,
        )


def _not_shown(_: str) -> None:
    """A task has no way back to the display while it runs."""
