import json

import pytest

from falcon_ray.report.record import SearchRecord
from falcon_ray.studies.distributed.whole_journal import other_recommendation, what_is_wrong
from tests.unit.report.searches import batch, failed, infeasible, measured, measurement, search

BEGUN: dict[str, object] = {"event": "search_started"}
ENDED: dict[str, object] = {"event": "search_ended"}
RESUMED: dict[str, object] = {"event": "search_resumed"}


def starts(number: int) -> dict[str, object]:
    return {"event": "trial_started", "trial": number}


def ends(number: int, size: int, status: str = "measured") -> dict[str, object]:
    observation = {"configuration": {"batch_size": size}, "status": status}
    return {"event": "trial_ended", "trial": number, "observation": observation}


def lines(*events: dict[str, object]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in events)


WHOLE = lines(BEGUN, starts(1), starts(2), ends(2, 8), ends(1, 1), ENDED)


def test_a_search_that_lost_nothing_has_nothing_wrong() -> None:
    assert what_is_wrong(WHOLE[:60], WHOLE, n_trials=2) == ()


def test_a_trial_that_its_search_was_killed_under_is_tried_again_by_another_number() -> None:
    after = lines(BEGUN, starts(1), RESUMED, starts(2), ends(2, 1), ENDED)
    assert what_is_wrong(b"", after, n_trials=1) == ()


def test_a_trial_that_the_infrastructure_broke_does_not_count() -> None:
    after = lines(BEGUN, starts(1), ends(1, 8, "failed"), starts(2), ends(2, 8), ENDED)
    assert what_is_wrong(b"", after, n_trials=1) == ()


@pytest.mark.parametrize(
    ("after", "what"),
    [
        (lines(BEGUN, starts(1), ENDED), ("trial 1 never ended", "0 trials count, and not 1")),
        (
            lines(BEGUN, starts(1), ends(1, 8), ends(1, 1), ENDED),
            ("trial 1 ended twice, or never started", "2 trials count, and not 1"),
        ),
        (
            lines(BEGUN, starts(1), ends(1, 8), starts(1), ends(1, 1), ENDED),
            ("trial 1 started twice", "2 trials count, and not 1"),
        ),
        (
            lines(BEGUN, starts(1), ends(1, 8), starts(2), ends(2, 8), ENDED),
            ('{"batch_size": 8} was counted 2 times', "2 trials count, and not 1"),
        ),
        (lines(BEGUN, starts(1), ends(1, 8)), ("the search did not end by itself",)),
    ],
)
def test_what_was_lost_or_counted_twice_is_said(after: bytes, what: tuple[str, ...]) -> None:
    assert what_is_wrong(b"", after, n_trials=1) == what


def test_a_line_that_has_changed_is_said() -> None:
    assert what_is_wrong(lines(ENDED), WHOLE, n_trials=2) == (
        "what was in the journal before has changed",
    )


def of_rates(small_rps: float, large_rps: float) -> SearchRecord:
    """Both cost the same, and an interval reaches 2 % to either side."""
    return search(
        [measured(batch(1), measurement(small_rps)), measured(batch(8), measurement(large_rps))]
    )


def test_the_same_configuration_is_no_other_recommendation_whatever_it_delivers() -> None:
    assert other_recommendation(of_rates(100, 200), of_rates(100, 300)) == ""


def test_another_one_is_as_good_where_the_intervals_overlap() -> None:
    # 200 / 1.02 = 196.1 lies below 197 * 1.02 = 200.9.
    assert other_recommendation(of_rates(190, 200), of_rates(197, 190)) == ""


def test_another_one_is_said_where_they_do_not() -> None:
    # 180 * 1.02 = 183.6 lies below 200 / 1.02 = 196.1.
    said = other_recommendation(of_rates(170, 200), of_rates(180, 170))
    assert said.startswith("it recommends batch_size=1")


def test_a_search_without_a_recommendation_differs() -> None:
    nothing = search([infeasible(batch(1)), failed(batch(8))])
    assert other_recommendation(of_rates(100, 200), nothing) == "there is no recommendation"
