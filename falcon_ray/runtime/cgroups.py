"""What a Linux control group says about a process: memory kills, and a quota on its CPUs.

Version 2 has one hierarchy, version 1 one per controller; both are read as files. Where a file
is not there, as on other systems, nothing is said. The module sets no limits.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
CGROUP_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class KillCounter:
    """What the kernel has killed for want of memory in a group and in those below it.

    Attributes:
        group: Its directory.
        below: Whether those below it have counters of their own that belong to it.
    """

    group: Path
    below: bool = False

    def read(self) -> Mapping[str, int]:
        """Processes killed so far, by the directory of the group that counts them."""
        directories = [self.group, *(_descendants(self.group) if self.below else ())]
        return {str(each): out_of_memory_kills(each) for each in directories}


def kills_since(before: Mapping[str, int], after: Mapping[str, int]) -> int:
    """By how much readings of a counter grew; a group that is new has counted from zero."""
    return sum(max(0, n - before.get(group, 0)) for group, n in after.items())


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

    def kill_counter(self, pid: int) -> KillCounter | None:
        """What counts the memory kills of a process's group; None where that is unknown.

        Version 2 counts in a group what is killed below it. Version 1 does not; what is below
        its outermost group may be anybody's.
        """
        for hierarchy, path in self._memberships(pid, "memory"):
            version_2 = hierarchy == self.root
            return KillCounter(_visible(hierarchy, path), below=bool(path) and not version_2)
        return None

    def cpu_quota(self, pid: int) -> float | None:
        """CPUs' worth of time that a process may use at most; None where there is no quota.

        The groups above count too: the smallest quota holds.
        """
        quotas = [_quota(directory) for directory in self._directories(pid, "cpu")]
        return min((quota for quota in quotas if quota is not None), default=None)

    def _directories(self, pid: int, controller: str) -> Iterator[Path]:
        """The process's group and those above it that can be seen, from the inside out."""
        for hierarchy, path in self._memberships(pid, controller):
            group = _visible(hierarchy, path)
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


def _visible(hierarchy: Path, path: str) -> Path:
    """A group's directory; where the path is one of the host's, the root is the container's own."""
    inside = hierarchy / path
    return inside if inside.is_dir() else hierarchy


def _descendants(group: Path) -> Iterator[Path]:
    try:
        below = [each for each in group.iterdir() if each.is_dir() and not each.is_symlink()]
    except OSError:  # it has just been removed
        return
    for each in below:
        yield each
        yield from _descendants(each)


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
