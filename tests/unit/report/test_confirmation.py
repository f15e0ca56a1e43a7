from dataclasses import replace

from falcon_ray.report.confirmation import contenders, fresh_observations, missing_trials
from falcon_ray.report.record import Confirmation, Role, SearchRecord
from falcon_ray.space.observation import Observation
from tests.unit.report.searches import (
    HEADER,
    batch,
    failed,
    infeasible,
    measured,
    measurement,
    search,
)

B1 = measured(batch(1), measurement(100.0))
B8 = measured(batch(8), measurement(130.0))
B16 = measured(batch(16), measurement(140.0))
TRIALS = [B1, B8, B16]


def confirmed(*fresh: tuple[Role, Observation, int]) -> SearchRecord:
    return replace(
        search(TRIALS),
        confirmations=tuple(
            Confirmation(
                role=role,
                observation=each,
                wall_s=1.0,
                n_trials_before=len(TRIALS),
                round_number=number,
            )
            for role, each, number in fresh
        ),
    )


def missing(record: SearchRecord, n_rounds: int = 2) -> list[tuple[str, int]]:
    found = missing_trials(record, batch(16), n_rounds=n_rounds)
    return [(each.role.value, each.round_number) for each in found]


def test_rounds_are_interleaved_and_every_second_one_is_reversed() -> None:
    assert missing(search(TRIALS), n_rounds=3) == [
        ("best", 1),
        ("runner_up", 1),
        ("baseline", 1),
        ("baseline", 2),
        ("runner_up", 2),
        ("best", 2),
        ("best", 3),
        ("runner_up", 3),
        ("baseline", 3),
    ]


def test_the_runner_up_is_the_best_other_trial_by_score() -> None:
    assert contenders(search(TRIALS), batch(16)) == (
        (Role.BEST, batch(16)),
        (Role.RUNNER_UP, batch(8)),
        (Role.BASELINE, batch(1)),
    )
    # The optimizer need not recommend the highest score.
    assert contenders(search(TRIALS), batch(8))[1] == (Role.RUNNER_UP, batch(16))


def test_equal_configurations_are_measured_once_per_round() -> None:
    best_is_baseline = contenders(search(TRIALS), batch(1))
    assert best_is_baseline == ((Role.BEST, batch(1)), (Role.RUNNER_UP, batch(16)))
    runner_up_is_baseline = contenders(search([B1, B16]), batch(16))
    assert runner_up_is_baseline == ((Role.BEST, batch(16)), (Role.BASELINE, batch(1)))


def test_without_a_baseline_and_without_another_trial_the_best_is_left() -> None:
    record = search([B16, infeasible(batch(8))], header=replace(HEADER, baseline=None))
    assert contenders(record, batch(16)) == ((Role.BEST, batch(16)),)


def test_what_was_measured_is_not_missing() -> None:
    record = confirmed((Role.BEST, B16, 1), (Role.RUNNER_UP, B8, 1), (Role.BASELINE, B1, 2))
    assert missing(record) == [("baseline", 1), ("runner_up", 2), ("best", 2)]


def test_a_failure_is_missing_again_until_it_has_failed_three_times() -> None:
    failure = (Role.BEST, failed(batch(16)), 1)
    assert ("best", 1) in missing(confirmed(failure, failure))
    assert ("best", 1) not in missing(confirmed(failure, failure, failure))
    assert ("best", 2) in missing(confirmed(failure, failure, failure))


def test_what_could_not_be_served_is_not_tried_in_the_next_round() -> None:
    record = confirmed((Role.BEST, infeasible(batch(16)), 1))
    assert missing(record) == [
        ("runner_up", 1),
        ("baseline", 1),
        ("baseline", 2),
        ("runner_up", 2),
    ]


def test_after_further_trials_everything_is_missing_again() -> None:
    record = search([*TRIALS, B8], [(Role.BEST, B16), (Role.BASELINE, B1)], n_trials_before=3)
    assert len(missing(record)) == 6


def test_more_rounds_ask_only_for_the_rounds_that_lack() -> None:
    both = [(Role.BEST, B16), (Role.RUNNER_UP, B8), (Role.BASELINE, B1)]
    record = search(TRIALS, both * 2)
    assert missing(record) == []
    assert missing(record, n_rounds=3) == [("best", 3), ("runner_up", 3), ("baseline", 3)]


def test_a_failure_counts_only_where_nothing_else_came_of_its_round() -> None:
    record = confirmed(
        (Role.BEST, failed(batch(16)), 1),
        (Role.BEST, B16, 1),
        (Role.BEST, failed(batch(16), "first"), 2),
        (Role.BEST, failed(batch(16), "second"), 2),
    )
    first, second = fresh_observations(record)[batch(16)]
    assert (first, second.reason) == (B16, "second")


def test_only_the_confirmations_after_the_last_trials_are_compared() -> None:
    old = search([*TRIALS], [(Role.BASELINE, B1)], n_trials_before=2).confirmations
    record = replace(confirmed((Role.BEST, B16, 1)), confirmations=old)
    assert list(fresh_observations(record)) == [batch(1)]
    later = replace(record, confirmations=(*old, *confirmed((Role.BEST, B16, 1)).confirmations))
    assert list(fresh_observations(later)) == [batch(16)]
