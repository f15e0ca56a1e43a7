"""What a Linux control group says about a process: memory kills, and a quota on its CPUs.

Version 2 has one hierarchy, version 1 one per controller; both are read as files. Where a file
is not there, as on other systems, nothing is said. The module sets no limits.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
CGROUP_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Cgroups:
    """The control groups of this machine, as far as this process can read them.

    Attributes:
        proc: Where the kernel shows processes.
        root: Where the hierarchies are mounted.
    """

    proc: Path = PROC
    root: Path = CGROUP_ROOT

    def memory_group(self, pid: int) -> Path | None:
        """The directory of the group that accounts for a process's memory, None where unknown."""
        return next(self._directories(pid, "memory"), None)

    def cpu_quota(self, pid: int) -> float | None:
        """CPUs' worth of time that a process may use at most; None where there is no quota.

        The groups above count too: the smallest quota holds.
        """
        quotas = [_quota(directory) for directory in self._directories(pid, "cpu")]
        return min((quota for quota in quotas if quota is not None), default=None)

    def _directories(self, pid: int, controller: str) -> Iterator[Path]:
        """The process's group and those above it that can be seen, from the inside out."""
        for hierarchy, path in self._memberships(pid, controller):
            inside = hierarchy / path
            # In a container the path may be the host's; then its own group is the mounted root.
            group = inside if inside.is_dir() else hierarchy
            while group != hierarchy:
                yield group
                group = group.parent
            yield hierarchy

    def _memberships(self, pid: int, controller: str) -> Iterator[tuple[Path, str]]:
        """Hierarchies that may hold a controller's files, and the process's path in each."""
        try:
            lines = (self.proc / str(pid) / "cgroup").read_text().splitlines()
        except OSError:
            return
        for line in lines:
            number, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
                yield self.root / controllers, path.lstrip("/")
            elif number == "0" and (self.root / "cgroup.controllers").exists():
                yield self.root, path.lstrip("/")


def out_of_memory_kills(memory_group: Path) -> int:
    """Processes of a group that the kernel has killed for want of memory; 0 where it is unsaid."""
    for name in ("memory.events", "memory.oom_control"):
        for line in _read(memory_group / name).splitlines():
            key, _, value = line.partition(" ")
            if key == "oom_kill":
                return int(value)
    return 0


def _quota(group: Path) -> float | None:
    if fields := _read(group / "cpu.max").split():
        quota, period = fields
    else:
        quota, period = (
            _read(group / name).strip() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        )
    if not quota or not period or quota == "max" or int(quota) <= 0:
        return None
    return int(quota) / int(period)


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
