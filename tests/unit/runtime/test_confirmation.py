from collections.abc import Callable
from pathlib import Path

import pytest
from ray.exceptions import RayTaskError, WorkerCrashedError

from falcon_ray.report.confirmation import FreshTrial
from falcon_ray.report.journal import Journal
from falcon_ray.report.record import InterruptedConfirmation, Role, SearchRecord, read_search
from falcon_ray.report.spend import spend
from falcon_ray.runtime.confirmation import confirm, fresh_plan, is_confirmed, why_broken
from falcon_ray.runtime.progress import SilentDisplay
from falcon_ray.space.observation import Observation
from falcon_ray.trial.plan import MeasurementPlan
from tests.unit.report.searches import HEADER, batch, failed, infeasible, measured, measurement

RATES = {1: 100.0, 8: 130.0, 16: 140.0}


def served(trial: FreshTrial) -> Observation:
    rate_rps = RATES[int(trial.configuration.number("batch_size", 0))]
    return measured(trial.configuration, measurement(rate_rps))


def begin(directory: Path) -> None:
    """A search with three trials whose best is batch 16 and whose baseline is batch 1."""
    with Journal.create(directory, HEADER.to_json()) as journal:
        for number, (size, rate_rps) in enumerate(RATES.items(), start=1):
            journal.trial_started(number, batch(size), why="", expected={})
            ended = measured(batch(size), measurement(rate_rps))
            journal.trial_ended(number, ended, wall_s=1.0)


def go_on(
    directory: Path, measure: Callable[[FreshTrial], Observation] = served, n_rounds: int = 2
) -> tuple[SearchRecord, list[tuple[Role, int]]]:
    """Confirm and end the search; its record, and what was measured just now."""
    made: list[tuple[Role, int]] = []

    def told(trial: FreshTrial) -> Observation:
        made.append((trial.role, trial.round_number))
        return measure(trial)

    with Journal.open(directory) as journal:
        confirm(
            batch(16),
            directory=directory,
            journal=journal,
            n_rounds=n_rounds,
            measure=told,
            display=SilentDisplay(),
        )
        journal.search_ended("all 3 trials are done", recommended=batch(16))
    return read_search(directory), made


def test_every_round_is_in_the_journal_and_a_confirmed_search_is_left_alone(tmp_path: Path) -> None:
    begin(tmp_path)
    record, made = go_on(tmp_path)
    forwards = [(Role.BEST, 1), (Role.RUNNER_UP, 1), (Role.BASELINE, 1)]
    backwards = [(Role.BASELINE, 2), (Role.RUNNER_UP, 2), (Role.BEST, 2)]
    assert made == [*forwards, *backwards]
    assert [(each.role, each.round_number) for each in record.confirmations] == made
    assert is_confirmed(record, n_rounds=2)
    assert go_on(tmp_path)[1] == []


def test_a_killed_confirmation_goes_on_with_what_lacks(tmp_path: Path) -> None:
    begin(tmp_path)
    with Journal.open(tmp_path) as journal:
        journal.confirmation_ended(
            "best", measured(batch(16), measurement(139.0)), wall_s=1.0, round_number=1
        )
        journal.confirmation_ended(
            "baseline", measured(batch(1), measurement(99.0)), wall_s=1.0, round_number=2
        )
    _, made = go_on(tmp_path)
    assert made == [
        (Role.RUNNER_UP, 1),
        (Role.BASELINE, 1),
        (Role.RUNNER_UP, 2),
        (Role.BEST, 2),
    ]


def test_what_fails_is_measured_again_by_a_resumed_search_within_bounds(tmp_path: Path) -> None:
    def breaks(trial: FreshTrial) -> Observation:
        return failed(trial.configuration) if trial.role is Role.BEST else served(trial)

    begin(tmp_path)
    record, made = go_on(tmp_path, breaks)
    assert len(made) == 6
    assert not is_confirmed(record, n_rounds=2)
    for _ in range(2):
        record, made = go_on(tmp_path, breaks)
        assert made == [(Role.BEST, 1), (Role.BEST, 2)]
    assert is_confirmed(record, n_rounds=2)
    assert go_on(tmp_path, breaks)[1] == []


def test_a_configuration_that_cannot_be_served_is_not_tried_twice(tmp_path: Path) -> None:
    def breaks(trial: FreshTrial) -> Observation:
        return infeasible(trial.configuration) if trial.role is Role.BEST else served(trial)

    begin(tmp_path)
    record, made = go_on(tmp_path, breaks)
    assert (Role.BEST, 2) not in made
    assert len(made) == 5
    assert is_confirmed(record, n_rounds=2)


def test_a_search_asked_for_more_rounds_is_not_complete(tmp_path: Path) -> None:
    begin(tmp_path)
    record, _ = go_on(tmp_path, n_rounds=1)
    assert is_confirmed(record, n_rounds=1)
    assert not is_confirmed(record, n_rounds=2)


def test_a_search_without_anything_feasible_has_nothing_to_confirm(tmp_path: Path) -> None:
    with Journal.create(tmp_path, HEADER.to_json()) as journal:
        journal.trial_started(1, batch(1), why="", expected={})
        journal.trial_ended(1, infeasible(batch(1)), wall_s=1.0)
        journal.search_ended("all 1 trials are done")
    assert is_confirmed(read_search(tmp_path), n_rounds=2)


def test_each_round_has_arrivals_of_its_own() -> None:
    plans = [fresh_plan(MeasurementPlan(seed=7), round_number=each) for each in (1, 2)]
    assert [(each.seed, each.model_s) for each in plans] == [(8, 0.0), (9, 0.0)]


def test_what_broke_a_trial_is_said_with_its_cause() -> None:
    broken = RayTaskError("_confirmation", "a long traceback", ValueError("no such\n dtype"))
    for error in (broken, broken.as_instanceof_cause()):
        assert why_broken(error) == "the trial's process broke: ValueError: no such dtype"
    assert why_broken(WorkerCrashedError()) == "the trial's process died: WorkerCrashedError"


def test_a_fresh_measurement_that_is_interrupted_leaves_a_trace(tmp_path: Path) -> None:
    def killed(trial: FreshTrial) -> Observation:
        if trial.role is Role.RUNNER_UP:
            raise KeyboardInterrupt
        return served(trial)

    begin(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        go_on(tmp_path, killed, n_rounds=1)
    left = InterruptedConfirmation(role=Role.RUNNER_UP, configuration=batch(8), round_number=1)
    assert read_search(tmp_path).interrupted_confirmations == (left,)
    # It is measured once more; what the first time cost stays unknown.
    record, made = go_on(tmp_path, n_rounds=1)
    assert made == [(Role.RUNNER_UP, 1), (Role.BASELINE, 1)]
    assert record.interrupted_confirmations == (left,)
    unknown = [each for each in (*record.trials, *record.confirmations) if each.usd is None]
    assert spend(record).n_unknown == len(unknown) + 1
