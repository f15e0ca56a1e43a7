from falcon_ray.runtime.ledger.presence import SILENT_S, Presence


def test_the_last_search_to_leave_ends_the_serve_that_the_first_one_started() -> None:
    presence = Presence()
    presence.join("first", started_serve=True, now_s=0.0)
    presence.join("second", started_serve=False, now_s=1.0)
    assert not presence.leave("first", now_s=2.0)
    assert presence.leave("second", now_s=3.0)


def test_a_serve_that_was_there_before_is_never_ended() -> None:
    presence = Presence()
    presence.join("only", started_serve=False, now_s=0.0)
    assert not presence.leave("only", now_s=1.0)


def test_a_search_that_was_killed_keeps_nobody_from_being_the_last() -> None:
    presence = Presence()
    presence.join("killed", started_serve=True, now_s=0.0)
    presence.join("other", started_serve=False, now_s=1.0)
    assert presence.leave("other", now_s=SILENT_S)


def test_a_search_whose_trials_are_heard_of_is_there() -> None:
    presence = Presence()
    presence.join("first", started_serve=True, now_s=0.0)
    presence.join("second", started_serve=False, now_s=0.0)
    presence.hear("second", now_s=200.0)
    assert not presence.leave("first", now_s=200.0 + SILENT_S / 2)


def test_serve_is_ended_once() -> None:
    presence = Presence()
    presence.join("first", started_serve=True, now_s=0.0)
    assert presence.leave("first", now_s=1.0)
    assert not presence.leave("first", now_s=2.0)
