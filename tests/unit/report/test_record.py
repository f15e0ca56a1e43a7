from dataclasses import replace
from pathlib import Path

import pytest

from falcon_ray.errors import InputError
from falcon_ray.report.journal import JOURNAL_NAME, Journal
from falcon_ray.report.overhead import machinery_overhead_s
from falcon_ray.report.record import Confirmation, InterruptedTrial, Role, SearchHeader, read_search
from falcon_ray.space.observation import TrialTimes
from tests.unit.report.searches import (
    HEADER,
    SLO,
    batch,
    infeasible,
    measured,
    measurement,
    search,
)


def begin(directory: Path, header: SearchHeader = HEADER) -> Journal:
    return Journal.create(directory, header.to_json())


def start(journal: Journal, number: int, batch_size: int) -> None:
    journal.trial_started(number, batch(batch_size), why=f"why {number}", expected={"x_rps": 2.0})


@pytest.mark.parametrize(
    "header", [HEADER, replace(HEADER, objective=SLO, baseline=None, capacity_step=0.05)]
)
def test_the_header_is_read_back_as_it_was(tmp_path: Path, header: SearchHeader) -> None:
    begin(tmp_path, header).close()
    record = read_search(tmp_path)
    assert record.header == header
    assert record.header.space.candidates == header.space.candidates
    assert (record.trials, record.end_reason, record.next_number) == ((), None, 1)


def test_a_whole_search_is_read_back_as_it_was(tmp_path: Path) -> None:
    one, two, three = measured(batch(1), measurement(100.0)), infeasible(batch(16)), batch(8)
    with begin(tmp_path) as journal:
        start(journal, 1, 1)
        journal.trial_ended(1, one, wall_s=14.5)
        start(journal, 2, 16)
        start(journal, 3, 8)
        journal.trial_ended(2, two, wall_s=4.0)
        journal.confirmation_ended("best", one, wall_s=13.0)
        journal.confirmation_ended("baseline", two, wall_s=12.0, round_number=2)
        journal.search_ended("3 trials were allowed")
    record = read_search(tmp_path)
    assert record.observations == (one, two)
    assert [(t.number, t.why, t.wall_s) for t in record.trials] == [
        (1, "why 1", 14.5),
        (2, "why 2", 4.0),
    ]
    assert record.trials[0].expected == {"x_rps": 2.0}
    assert record.interrupted == (InterruptedTrial(number=3, configuration=three, why="why 3"),)
    assert record.confirmations == (
        Confirmation(
            role=Role.BEST, observation=one, wall_s=13.0, n_trials_before=2, round_number=1
        ),
        Confirmation(
            role=Role.BASELINE, observation=two, wall_s=12.0, n_trials_before=2, round_number=2
        ),
    )
    assert record.end_reason == "3 trials were allowed"
    assert record.next_number == 4


def test_a_confirmation_from_before_there_were_rounds_is_of_the_first(tmp_path: Path) -> None:
    one = measured(batch(1), measurement(100.0))
    with begin(tmp_path) as journal:
        journal.append("confirmation_ended", role="best", observation=one.to_json(), wall_s=1.0)
    assert [each.round_number for each in read_search(tmp_path).confirmations] == [1]


def test_a_resumed_search_has_not_ended(tmp_path: Path) -> None:
    with begin(tmp_path) as journal:
        journal.search_ended("the time was up")
        journal.search_resumed()
    assert read_search(tmp_path).end_reason is None


def test_an_interrupted_trial_may_start_again_under_its_number(tmp_path: Path) -> None:
    with begin(tmp_path) as journal:
        start(journal, 1, 1)
        journal.search_resumed()
        start(journal, 1, 8)
        journal.trial_ended(1, infeasible(batch(8)), wall_s=1.0)
    record = read_search(tmp_path)
    assert (record.observations, record.interrupted) == ((infeasible(batch(8)),), ())


def test_unknown_events_are_left_out(tmp_path: Path) -> None:
    with begin(tmp_path) as journal:
        journal.append("coffee_break", minutes=5)
    assert read_search(tmp_path).trials == ()


def test_events_that_do_not_fit_together_are_named_by_their_line(tmp_path: Path) -> None:
    with begin(tmp_path) as journal:
        journal.trial_ended(4, infeasible(batch(8)), wall_s=1.0)
    with pytest.raises(InputError, match=r"line 2: the event 'trial_ended' .* trial 4 ends and is"):
        read_search(tmp_path)


def test_a_missing_field_is_named_with_its_line(tmp_path: Path) -> None:
    begin(tmp_path).close()
    path = tmp_path / JOURNAL_NAME
    path.write_text(path.read_text("utf-8").replace('"seed"', '"sead"'))
    with pytest.raises(InputError, match=r"line 1: .*seed"):
        read_search(tmp_path)


def test_overhead_is_wall_time_without_warm_up_and_measurement() -> None:
    """15 - 2 - 8 = 5 s, 16 - 10 = 6 s, 18 - 10 = 8 s; the infeasible third does not count."""
    fast = measured(batch(1), measurement(100.0))
    overhead = machinery_overhead_s(search([fast, fast, infeasible(batch(16)), fast]))
    assert overhead.seconds_by_trial == {1: 5.0, 2: 6.0, 4: 8.0}
    assert overhead.median_s == 6.0


def test_overhead_leaves_out_trials_that_were_tried_more_than_once() -> None:
    twice = replace(measured(batch(1), measurement(100.0)), attempts=2, times=TrialTimes())
    assert machinery_overhead_s(search([twice])).median_s is None


def test_an_end_for_want_of_dollars_is_told_from_others(tmp_path: Path) -> None:
    with Journal.create(tmp_path, HEADER.to_json()) as journal:
        journal.search_ended("all 3 trials are done")
        ends = [read_search(tmp_path).conclusion]
        journal.search_ended("one more trial could exceed max_cost_usd", out_of_budget=True)
        ends.append(read_search(tmp_path).conclusion)
    assert [each is not None and each.out_of_budget for each in ends] == [False, True]
