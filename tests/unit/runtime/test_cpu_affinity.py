"""Reserving cores, and what happens where that is not possible."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from falcon_ray.runtime.limits.cpu_affinity import (
    CorePool,
    CpuEnforcement,
    CpuLimit,
    LinuxAffinity,
    by_topology,
    default_directory,
    limit_cores,
)


class FakeAffinity:
    """A process on a machine with a few cores.

    Args:
        usable: The cores.
        quota: CPUs' worth of time.
        obeys: Whether the system does what it is told.
        refuses: Whether it says that it does not.
    """

    def __init__(
        self,
        *usable: int,
        quota: float | None = None,
        obeys: bool = True,
        refuses: bool = False,
    ) -> None:
        self._usable = frozenset(usable)
        self._quota = quota
        self._obeys = obeys
        self._refuses = refuses
        self._pinned = self._usable

    def usable(self) -> frozenset[int]:
        return self._usable

    def quota(self) -> float | None:
        return self._quota

    def pin(self, cores: frozenset[int]) -> None:
        if self._refuses:
            raise PermissionError("not allowed here")
        if self._obeys:
            self._pinned = cores

    def pinned(self) -> frozenset[int]:
        return self._pinned


class FakeTime:
    """A clock that sleeping moves, and something that happens at a moment of it."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.release_at_s = float("inf")
        self.release: CpuLimit | None = None

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        if self.now_s >= self.release_at_s and self.release is not None:
            assert self.release.reserved is not None
            self.release.reserved.release()
            self.release = None


def _limit(
    directory: Path, n_cores: float, affinity: FakeAffinity, fake_time: FakeTime | None = None
) -> CpuLimit:
    moments = fake_time or FakeTime()
    return limit_cores(
        n_cores,
        affinity=affinity,
        pool=CorePool(directory),
        order=sorted,
        clock=moments.clock,
        sleep=moments.sleep,
        wait_s=4.0,
    )


def _cores(limit: CpuLimit) -> frozenset[int]:
    assert limit.reserved is not None
    return limit.reserved.cores


def test_two_processes_get_different_cores(tmp_path: Path) -> None:
    first = _limit(tmp_path / "locks", 2, FakeAffinity(0, 1, 2, 5))
    second = _limit(tmp_path / "locks", 2, FakeAffinity(0, 1, 2, 5))
    assert (_cores(first), _cores(second)) == ({0, 1}, {2, 5})
    assert (first.enforcement, second.enforcement) == (CpuEnforcement.AFFINITY,) * 2
    assert (first.n_threads, second.n_threads) == (2, 2)


def test_without_enough_free_cores_there_are_threads_only_and_nothing_is_held(
    tmp_path: Path,
) -> None:
    _limit(tmp_path / "locks", 1, FakeAffinity(0, 1))
    moments = FakeTime()
    starved = _limit(tmp_path / "locks", 2, FakeAffinity(0, 1), moments)
    assert (starved.reserved, starved.n_threads) == (None, 2)
    assert starved.enforcement is CpuEnforcement.THREADS
    assert 4.0 < moments.now_s < 4.2  # it waited for its time, and 0.05 s steps more
    assert _cores(_limit(tmp_path / "locks", 1, FakeAffinity(0, 1))) == {1}


def test_cores_of_a_process_that_is_ending_are_waited_for(tmp_path: Path) -> None:
    moments = FakeTime()
    moments.release = _limit(tmp_path / "locks", 2, FakeAffinity(0, 1))
    moments.release_at_s = 1.0
    assert _cores(_limit(tmp_path / "locks", 2, FakeAffinity(0, 1), moments)) == {0, 1}
    assert 1.0 <= moments.now_s < 1.2


@pytest.mark.parametrize(
    ("n_cores", "affinity", "n_threads"),
    [
        pytest.param(1.5, FakeAffinity(0, 1), 1, id="no whole number"),
        pytest.param(0.5, FakeAffinity(0, 1), 1, id="less than one"),
        pytest.param(4, FakeAffinity(0, 1), 4, id="more than there are"),
        pytest.param(1, FakeAffinity(), 1, id="a platform without affinity"),
        pytest.param(1, FakeAffinity(0, 1, quota=1.0), 1, id="a quota: others share the cores"),
    ],
)
def test_where_cores_cannot_be_its_own_there_are_threads_only_at_once(
    tmp_path: Path, n_cores: float, affinity: FakeAffinity, n_threads: int
) -> None:
    moments = FakeTime()
    limit = _limit(tmp_path / "locks", n_cores, affinity, moments)
    assert (limit.reserved, limit.n_threads) == (None, n_threads)
    assert moments.now_s == 0


def test_a_quota_of_all_visible_cores_shares_none(tmp_path: Path) -> None:
    assert _cores(_limit(tmp_path / "locks", 1, FakeAffinity(0, 1, quota=2.0))) == {0}


@pytest.mark.parametrize(
    "affinity", [FakeAffinity(0, 1, obeys=False), FakeAffinity(0, 1, refuses=True)]
)
def test_what_reading_back_does_not_show_is_not_claimed(
    tmp_path: Path, affinity: FakeAffinity
) -> None:
    limit = _limit(tmp_path / "locks", 1, affinity)
    assert limit.enforcement is CpuEnforcement.THREADS
    # And it holds no core that it is not kept to.
    assert _cores(_limit(tmp_path / "locks", 2, FakeAffinity(0, 1))) == {0, 1}


def test_an_affinity_that_something_widened_later_is_noticed(tmp_path: Path) -> None:
    affinity = FakeAffinity(0, 1)
    limit = _limit(tmp_path / "locks", 1, affinity)
    assert limit.enforcement is CpuEnforcement.AFFINITY
    affinity.pin(frozenset({0, 1}))
    assert limit.enforcement is CpuEnforcement.THREADS


def test_the_locks_are_this_users_alone(tmp_path: Path) -> None:
    _limit(tmp_path / "locks", 1, FakeAffinity(0))
    assert (tmp_path / "locks").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "locks" / "0").stat().st_mode & 0o777 == 0o600


def test_a_directory_that_others_can_write_to_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks").chmod(0o777)
    assert _limit(tmp_path / "locks", 1, FakeAffinity(0)).reserved is None


@pytest.mark.parametrize("planted", ["locks", "locks/0"])
def test_a_planted_symlink_is_not_followed(tmp_path: Path, planted: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    if planted != "locks":
        (tmp_path / "locks").mkdir(mode=0o700)
        elsewhere = elsewhere / "file"
    (tmp_path / planted).symlink_to(elsewhere)
    assert _limit(tmp_path / "locks", 1, FakeAffinity(0)).reserved is None
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_the_locks_are_where_the_user_alone_can_write_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "elsewhere"))
    run, tmp, user = tmp_path / "run", tmp_path / "tmp", os.getuid()
    name = f"falcon-ray-cores-{user}"
    assert default_directory(run=run, tmp=tmp) == tmp / name
    run.mkdir()
    (run / str(user)).symlink_to(tmp_path)
    assert default_directory(run=run, tmp=tmp) == tmp / name
    (run / str(user)).unlink()
    (run / str(user)).mkdir()
    assert default_directory(run=run, tmp=tmp) == run / str(user) / name


def test_hardware_threads_of_a_core_are_neighbours(tmp_path: Path) -> None:
    places: Sequence[tuple[int, int]] = [(0, 0), (0, 1), (1, 0), (0, 0), (0, 1), (1, 0)]
    for core, (package, core_id) in enumerate(places):
        topology = tmp_path / f"cpu{core}" / "topology"
        topology.mkdir(parents=True)
        (topology / "physical_package_id").write_text(f"{package}\n")
        (topology / "core_id").write_text(f"{core_id}\n")
    assert by_topology(range(6), directory=tmp_path) == [0, 3, 1, 4, 2, 5]
    assert by_topology({3, 1}, directory=tmp_path / "unknown") == [1, 3]


_PINNED_PROCESS = """
import os, sys, threading
from pathlib import Path
from falcon_ray.runtime.limits.cpu_affinity import CorePool, LinuxAffinity, by_topology, limit_cores

started, end = threading.Event(), threading.Event()
threading.Thread(target=lambda: (started.set(), end.wait()), daemon=True).start()
started.wait()
pool = CorePool(Path(sys.argv[1]))
limit = limit_cores(1, affinity=LinuxAffinity(), pool=pool, order=by_topology)
later = threading.Thread(target=lambda: print(limit.enforcement, *os.sched_getaffinity(0)))
later.start()
later.join()
print("ready", flush=True)
sys.stdin.read()
"""


def _cores_of_threads(pid: int) -> Iterator[set[int]]:
    """Of every thread; one that was joined may be listed a moment longer than it lives."""
    for each in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            yield os.sched_getaffinity(int(each.name))


@pytest.mark.skipif(not LinuxAffinity().usable(), reason="needs a system with CPU affinity")
@pytest.mark.skipif(LinuxAffinity().quota() is not None, reason="needs a machine without quota")
def test_a_real_process_is_pinned_with_all_its_threads_and_leaks_no_core_when_killed(
    tmp_path: Path,
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _PINNED_PROCESS, str(tmp_path / "locks")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            said, core = process.stdout.readline().split()
            assert process.stdout.readline() == "ready\n"
            cores = list(_cores_of_threads(process.pid))
            assert len(cores) >= 2
            assert cores == [{int(core)}] * len(cores)
            assert said == "affinity"
            pool = CorePool(tmp_path / "locks")
            assert pool.take(1, [int(core)]) is None
        finally:
            process.send_signal(signal.SIGKILL)
    reserved = pool.take(1, [int(core)])
    assert reserved is not None
    reserved.release()
