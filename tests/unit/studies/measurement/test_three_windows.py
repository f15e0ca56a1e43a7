"""The three-window rule on loads whose windows can be counted by hand."""

import numpy as np
import pytest

from falcon_ray.studies.measurement.three_windows import three_windows
from falcon_ray.trial.requests import RequestLog


def _log(done_s: list[float], latency_s: float = 0.1) -> RequestLog:
    done = np.asarray(done_s)
    return RequestLog(
        intended_s=done - latency_s,
        sent_s=done - latency_s,
        done_s=done,
        ok=np.ones(done.size, np.bool_),
    )


def _with_counts(*counts: int) -> list[float]:
    """Completions spread evenly within windows of 1 s, so many in each, and one after the last."""
    inside = [i + (j + 0.5) / n for i, n in enumerate(counts) for j in range(n)]
    return [*inside, len(counts) + 0.001]


def test_three_equal_windows_end_it_and_are_reported_together() -> None:
    said = three_windows(_log(_with_counts(10, 10, 11, 50)), start_s=0.0, window_s=1.0)
    assert said is not None
    assert said.stable
    assert said.ended_s == pytest.approx(3.0)
    assert said.throughput_rps == pytest.approx(31 / 3)
    assert said.latency_p99_ms == pytest.approx(100.0)


def test_windows_that_differ_by_more_than_a_tenth_go_on() -> None:
    # 10, 10, 12 differ by 20 %, 10, 12, 12 too; 12, 12, 13 by 8 %.
    said = three_windows(_log(_with_counts(10, 10, 12, 12, 13)), start_s=0.0, window_s=1.0)
    assert said is not None
    assert said.stable
    assert said.ended_s == pytest.approx(5.0)


def test_a_slow_warm_up_is_taken_for_steady() -> None:
    # Each window has 4 % more than the one before; the last is far from where it leads.
    said = three_windows(_log(_with_counts(100, 104, 108, 112, 116)), start_s=0.0, window_s=1.0)
    assert said is not None
    assert said.stable
    assert said.throughput_rps == pytest.approx(104.0)


def test_latencies_have_to_agree_as_well() -> None:
    done = _with_counts(10, 10, 10)
    latency_s = np.repeat([0.1, 0.1, 0.2, 0.2], [10, 10, 10, 1])
    log = RequestLog(
        intended_s=np.asarray(done) - latency_s,
        sent_s=np.asarray(done) - latency_s,
        done_s=np.asarray(done),
        ok=np.ones(31, np.bool_),
    )
    said = three_windows(log, start_s=0.0, window_s=1.0)
    assert said is not None
    assert not said.stable


def test_two_windows_are_too_few() -> None:
    assert three_windows(_log(_with_counts(10, 10)), start_s=0.0, window_s=1.0) is None
