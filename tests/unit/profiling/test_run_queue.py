from pathlib import Path

import pytest

from falcon_ray.profiling.run_queue import RunQueueDelay, waits_of_computing_threads


def _schedstat(path: Path, *, running_ns: int, waiting_ns: int) -> Path:
    path.write_text(f"{running_ns} {waiting_ns} 7\n")
    return path


def test_only_waiting_counts_and_all_threads_are_summed(tmp_path: Path) -> None:
    first = _schedstat(tmp_path / "a", running_ns=10**9, waiting_ns=350_000)
    second = _schedstat(tmp_path / "b", running_ns=10**9, waiting_ns=260_000)
    delay = RunQueueDelay((first, second))
    assert delay() == pytest.approx(0.00061)
    _schedstat(first, running_ns=5 * 10**9, waiting_ns=350_000)
    assert delay() == pytest.approx(0.00061)
    _schedstat(first, running_ns=5 * 10**9, waiting_ns=4_350_000)
    assert delay() == pytest.approx(0.00461)


def test_a_thread_that_ended_counts_nothing(tmp_path: Path) -> None:
    assert RunQueueDelay((tmp_path / "gone",))() == 0


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="Linux tells, others do not")
def test_the_threads_that_compute_are_found() -> None:
    assert isinstance(waits_of_computing_threads(), RunQueueDelay)
