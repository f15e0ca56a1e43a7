"""Control groups from files as the kernel writes them."""

from pathlib import Path

import pytest

from falcon_ray.runtime.cgroups import Cgroups, kills_since, out_of_memory_kills

PID = 42


def _cgroups(tmp_path: Path, membership: str, files: dict[str, str]) -> Cgroups:
    for name, text in {f"proc/{PID}/cgroup": membership, **files}.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return Cgroups(tmp_path / "proc", tmp_path / "cgroup")


def _kills(cgroups: Cgroups) -> int:
    group = cgroups.memory_group(PID)
    assert group is not None
    return out_of_memory_kills(group)


@pytest.mark.parametrize(
    ("membership", "files"),
    [
        pytest.param(
            "0::/job/replica\n",
            {
                "cgroup/cgroup.controllers": "cpu memory\n",
                "cgroup/job/replica/memory.events": "low 0\noom 3\noom_kill 2\n",
            },
            id="version 2",
        ),
        pytest.param(
            "4:memory:/job/replica\n0::/\n",
            {
                "cgroup/memory/job/replica/memory.oom_control": "under_oom 0\noom_kill 2\n",
                "cgroup/memory/memory.oom_control": "oom_kill 9\n",
            },
            id="version 1",
        ),
        pytest.param(
            "4:memory:/of/the/host\n",
            {"cgroup/memory/memory.oom_control": "under_oom 0\noom_kill 2\n"},
            id="a container that does not see the host's path",
        ),
    ],
)
def test_kills_are_those_of_the_processs_own_group(
    tmp_path: Path, membership: str, files: dict[str, str]
) -> None:
    assert _kills(_cgroups(tmp_path, membership, files)) == 2


def test_a_group_that_does_not_count_has_none(tmp_path: Path) -> None:
    files = {"cgroup/memory/memory.oom_control": "under_oom 0\n"}  # Linux before 4.13
    assert _kills(_cgroups(tmp_path, "4:memory:/\n", files)) == 0


def test_a_process_that_is_gone_has_no_group(tmp_path: Path) -> None:
    assert Cgroups(tmp_path / "proc", tmp_path / "cgroup").memory_group(PID) is None


@pytest.mark.parametrize(("quota", "expected"), [("150000 100000\n", 1.5), ("max 100000\n", None)])
def test_the_quota_is_time_over_period(tmp_path: Path, quota: str, expected: float | None) -> None:
    files = {"cgroup/cgroup.controllers": "cpu\n", "cgroup/job/cpu.max": quota}
    assert _cgroups(tmp_path, "0::/job\n", files).cpu_quota(PID) == expected


def test_the_smallest_quota_on_the_way_up_holds(tmp_path: Path) -> None:
    files = {
        "cgroup/cpu/job/cpu.cfs_quota_us": "200000\n",
        "cgroup/cpu/job/cpu.cfs_period_us": "100000\n",
        "cgroup/cpu/job/replica/cpu.cfs_quota_us": "-1\n",
        "cgroup/cpu/job/replica/cpu.cfs_period_us": "100000\n",
    }
    assert _cgroups(tmp_path, "1:cpu:/job/replica\n", files).cpu_quota(PID) == 2.0


def _counted(cgroups: Cgroups) -> int:
    counter = cgroups.kill_counter(PID)
    assert counter is not None
    return sum(counter.read().values())


def test_version_1_counts_below_the_group_too_and_not_beside_it(tmp_path: Path) -> None:
    files = {
        "cgroup/memory/workers/memory.oom_control": "oom_kill 1\n",
        "cgroup/memory/workers/one/memory.oom_control": "oom_kill 2\n",
        "cgroup/memory/neighbour/memory.oom_control": "oom_kill 40\n",
    }
    assert _counted(_cgroups(tmp_path, "4:memory:/workers\n", files)) == 3  # 1 + 2


def test_version_2_has_counted_what_is_below_already(tmp_path: Path) -> None:
    files = {
        "cgroup/cgroup.controllers": "memory\n",
        "cgroup/workers/memory.events": "oom_kill 3\n",
        "cgroup/workers/one/memory.events": "oom_kill 2\n",
    }
    assert _counted(_cgroups(tmp_path, "0::/workers\n", files)) == 3


def test_below_the_outermost_group_of_version_1_may_be_anybody(tmp_path: Path) -> None:
    files = {
        "cgroup/memory/memory.oom_control": "oom_kill 1\n",
        "cgroup/memory/neighbour/memory.oom_control": "oom_kill 40\n",
    }
    assert _counted(_cgroups(tmp_path, "4:memory:/\n", files)) == 1


def test_a_group_that_is_new_grew_from_zero_and_one_that_went_took_nothing_away() -> None:
    assert kills_since({"a": 3, "gone": 5}, {"a": 4, "new": 2}) == 3  # (4 - 3) + 2
