from falcon_ray.studies.distributed.fairness import Wait, overtakings


def wait(search: str, *, asked_s: float, granted_s: float, line: str = "T4") -> Wait:
    return Wait(search=search, line=line, asked_s=asked_s, granted_s=granted_s)


def test_who_asks_first_and_is_granted_first_overtakes_nobody() -> None:
    waits = [wait(each, asked_s=10.0 * i, granted_s=100.0 * (i + 1)) for i, each in enumerate("ab")]
    assert overtakings(waits) == 0


def test_a_later_ask_that_is_granted_before_one_of_a_search_with_no_more_overtakes_it() -> None:
    waits = [wait("a", asked_s=0, granted_s=100), wait("b", asked_s=10, granted_s=50)]
    assert overtakings(waits) == 1


def test_a_search_that_was_granted_less_may_come_first() -> None:
    waits = [
        wait("a", asked_s=0, granted_s=5),
        wait("a", asked_s=10, granted_s=100),
        wait("b", asked_s=20, granted_s=50),
    ]
    assert overtakings(waits) == 0


def test_another_line_and_an_ask_within_what_times_are_off_by_do_not_count() -> None:
    waits = [
        wait("a", asked_s=0, granted_s=100),
        wait("b", asked_s=10, granted_s=50, line="L4"),
        wait("c", asked_s=1, granted_s=50),
    ]
    assert overtakings(waits, late_s=2.0) == 0
