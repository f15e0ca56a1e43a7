import numpy as np
import pytest

from falcon_ray.trial.requests import RequestLog


def three_requests() -> RequestLog:
    return RequestLog(
        intended_s=np.array([0.0, 1.0, 2.0]),
        sent_s=np.array([0.0, 1.5, 2.0]),
        done_s=np.array([0.25, 2.0, 2.5]),
        ok=np.array([True, True, False]),
    )


def test_latency_counts_from_when_a_request_was_due_and_not_from_when_it_was_sent() -> None:
    # The second request was due at 1.0 s, sent at 1.5 s, done at 2.0 s: 1000 ms, not 500 ms.
    assert three_requests().latency_ms == pytest.approx([250.0, 1000.0, 500.0])
    assert three_requests().lag_ms == pytest.approx([0.0, 500.0, 0.0])


def test_error_rate_is_the_share_of_failed_requests() -> None:
    assert three_requests().error_rate == pytest.approx(1 / 3)
    assert RequestLog.empty().error_rate == 0.0


def test_requests_from_a_time_on_are_those_that_were_due_then_or_later() -> None:
    log = three_requests()
    assert log.due_from(1.0).intended_s.tolist() == [1.0, 2.0]
    assert log.due_from(1.0).ok.tolist() == [True, False]


def test_concat_keeps_every_request() -> None:
    log = three_requests()
    both = RequestLog.concat([log, RequestLog.empty()])
    assert both.n == 3
    for name in ("intended_s", "sent_s", "done_s", "ok"):
        assert getattr(both, name).tolist() == getattr(log, name).tolist()


def test_concat_of_nothing_is_empty() -> None:
    assert RequestLog.concat([]).n == 0
    assert RequestLog.empty().ok.dtype == np.bool_


def test_log_cannot_be_changed_and_leaves_the_given_arrays_alone() -> None:
    done_s = np.array([1.0])
    log = RequestLog(
        intended_s=np.zeros(1), sent_s=np.zeros(1), done_s=done_s, ok=np.ones(1, np.bool_)
    )
    with pytest.raises(ValueError, match="read-only"):
        log.done_s[0] = 2.0
    done_s[0] = 1.5  # still the caller's own


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sent_s": np.zeros(2)}, "sent_s has 2 entries where intended_s has 3"),
        ({"ok": np.ones((3, 1), np.bool_)}, "ok must have one axis"),
        ({"done_s": np.array([1.0, np.nan, 3.0])}, "done_s must be finite"),
        ({"done_s": np.array([9.0, 9.0, 1.9])}, "request 2 is done at .* before it was due"),
        ({"sent_s": np.array([0.0, 2.1, 2.0])}, "request 1 is done at .* before it was due"),
    ],
)
def test_impossible_logs_are_refused(change: dict[str, np.ndarray], message: str) -> None:
    log = three_requests()
    arrays = {name: getattr(log, name) for name in ("intended_s", "sent_s", "done_s", "ok")}
    with pytest.raises(ValueError, match=message):
        RequestLog(**(arrays | change))
