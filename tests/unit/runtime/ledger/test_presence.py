from falcon_ray.runtime.ledger.presence import END_S, SILENT_S, Presence


def presence_of(*search_ids: str, started_serve: bool = True) -> Presence:
    """Searches that all joined at 0 s."""
    presence = Presence()
    for each in search_ids:
        presence.join(each, now_s=0.0)
    if started_serve:
        presence.started_serve()
    return presence


def test_the_last_search_to_leave_ends_the_serve_that_the_first_one_started() -> None:
    presence = presence_of("first", "second")
    assert not presence.leave("first", now_s=2.0)
    assert presence.leave("second", now_s=3.0)


def test_a_serve_that_was_there_before_is_never_ended() -> None:
    presence = presence_of("only", started_serve=False)
    assert not presence.leave("only", now_s=1.0)


def test_a_search_that_was_killed_keeps_nobody_from_being_the_last() -> None:
    presence = presence_of("killed")
    presence.join("other", now_s=1.0)
    assert presence.leave("other", now_s=SILENT_S)


def test_a_search_whose_trials_are_heard_of_is_there() -> None:
    presence = presence_of("first", "second")
    presence.hear("second", now_s=200.0)
    assert not presence.leave("first", now_s=200.0 + SILENT_S / 2)


def test_a_search_that_is_only_heard_of_is_there_as_after_a_restart() -> None:
    presence = presence_of("new")
    presence.hear("from before", now_s=1.0)
    assert not presence.leave("new", now_s=2.0)


def test_a_late_sign_of_life_does_not_bring_back_a_search_that_left() -> None:
    presence = presence_of("first", "second")
    presence.leave("first", now_s=1.0)
    presence.hear("first", now_s=2.0)
    assert presence.leave("second", now_s=3.0)


def test_a_search_that_is_resumed_is_there_again() -> None:
    presence = presence_of("resumed", "other")
    presence.leave("resumed", now_s=1.0)
    presence.join("resumed", now_s=2.0)
    presence.hear("resumed", now_s=3.0)
    assert not presence.leave("other", now_s=4.0)


def test_serve_is_ended_once() -> None:
    presence = presence_of("first")
    assert presence.leave("first", now_s=1.0)
    assert not presence.leave("first", now_s=2.0)


def test_nobody_joins_while_another_search_ends_serve() -> None:
    presence = presence_of("first")
    assert presence.wait_s(1.0) == 0.0
    presence.leave("first", now_s=1.0)
    assert presence.wait_s(11.0) == END_S - 10.0
    presence.ended_serve()
    assert presence.wait_s(11.0) == 0.0


def test_a_search_that_was_killed_while_it_ended_serve_holds_nobody_up_for_ever() -> None:
    presence = presence_of("first")
    presence.leave("first", now_s=1.0)
    assert presence.wait_s(1.0 + END_S) == 0.0
