"""Cores that belong to one process of ours at a time, and a process that stays on them.

A core is reserved by a lock on a file, which the kernel releases however its holder ends.
Processes in other containers, or of other users, are not seen. The module knows processes,
threads and files; it does not know what they compute.
"""

import contextlib
import errno
import fcntl
import logging
import os
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from falcon_ray.runtime.cgroups import Cgroups

logger = logging.getLogger(__name__)

WAIT_S = 4.0
"""How long a process that is ending may still hold the cores that the next one needs."""
POLL_S = 0.05
TOPOLOGY = Path("/sys/devices/system/cpu")
RUN = Path("/run/user")
TMP = Path("/tmp")  # noqa: S108 - one place for all processes; `CorePool` refuses what is another's


class CpuEnforcement(StrEnum):
    """How a process is kept to its cores."""

    AFFINITY = "affinity"
    """The operating system runs no thread of it anywhere else, and no other replica there."""
    THREADS = "threads"
    """It computes with as many threads, on any core."""


class Affinity(Protocol):
    """Where the operating system may run this process."""

    def usable(self) -> frozenset[int]:
        """Cores that this process may run on; empty where the platform does not say."""
        ...

    def quota(self) -> float | None:
        """CPUs' worth of time that it may use at most, None where there is no such limit."""
        ...

    def pin(self, cores: frozenset[int]) -> None:
        """Keep every thread on these cores, and those that threads start later.

        Raises:
            OSError: The system refuses.
        """
        ...

    def pinned(self) -> frozenset[int]:
        """Cores that any thread of this process may run on now."""
        ...


class LinuxAffinity:
    """The affinity of this process by Linux's system calls."""

    def usable(self) -> frozenset[int]:
        """See `Affinity.usable`."""
        if not hasattr(os, "sched_getaffinity"):
            return frozenset()
        return frozenset(os.sched_getaffinity(os.getpid()))

    def quota(self) -> float | None:
        """See `Affinity.quota`."""
        return Cgroups().cpu_quota(os.getpid())

    def pin(self, cores: frozenset[int]) -> None:
        """See `Affinity.pin`."""
        # A thread that is not pinned yet may start another one meanwhile: look again.
        pinned: set[int] = set()
        while new := _threads() - pinned:
            for thread in new:
                with contextlib.suppress(ProcessLookupError):  # it ended
                    os.sched_setaffinity(thread, cores)
            pinned |= new

    def pinned(self) -> frozenset[int]:
        """See `Affinity.pinned`."""
        cores: set[int] = set()
        for thread in _threads():
            with contextlib.suppress(ProcessLookupError):
                cores |= os.sched_getaffinity(thread)
        return frozenset(cores)


class CorePool:
    """The cores of this machine, each reserved by a lock on a file of its own.

    Args:
        directory: Of the locks; made where it is missing, and only its owner's.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory or default_directory()

    def take(self, n: int, among: Sequence[int]) -> "ReservedCores | None":
        """Reserve the first n free cores at once; None where so many are not free.

        Args:
            among: Cores in the order of preference.

        Raises:
            OSError: The directory cannot be used, or is not this user's alone.
        """
        directory = self._open_directory()
        locks: dict[int, int] = {}
        try:
            # All or nothing: two that each hold half of what they need would wait for ever.
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for core in among:
                if len(locks) < n and (lock := _lock(directory, core)) is not None:
                    locks[core] = lock
        except BlockingIOError:  # another process is taking cores
            return None
        finally:
            os.close(directory)
            if len(locks) < n:
                _close(locks.values())
        return ReservedCores(frozenset(locks), tuple(locks.values())) if len(locks) == n else None

    def _open_directory(self) -> int:
        with contextlib.suppress(FileExistsError):
            self._directory.mkdir(mode=0o700)
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        status = os.fstat(directory)
        if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
            os.close(directory)
            raise PermissionError(
                errno.EPERM, "must be this user's alone; remove it", str(self._directory)
            )
        return directory


@dataclass(frozen=True, slots=True)
class ReservedCores:
    """Cores that no other holder of the pool gets before they are released or this process ends.

    Attributes:
        cores: Their numbers.
        locks: Open files.
    """

    cores: frozenset[int]
    locks: tuple[int, ...]

    def release(self) -> None:
        """Give the cores back."""
        _close(self.locks)


@dataclass(frozen=True, slots=True)
class CpuLimit:
    """What a process was limited to.

    Attributes:
        n_threads: It should compute with.
        reserved: Cores that it holds; None where it may run anywhere.
        affinity: Where it says that it may run.
    """

    n_threads: int
    reserved: ReservedCores | None
    affinity: Affinity

    @property
    def enforcement(self) -> CpuEnforcement:
        """How the limit is enforced now, read back from the operating system."""
        if self.reserved is not None and self.affinity.pinned() == self.reserved.cores:
            return CpuEnforcement.AFFINITY
        return CpuEnforcement.THREADS


def limit_cores(
    n_cores: float,
    *,
    affinity: Affinity,
    pool: CorePool,
    order: Callable[[Iterable[int]], Sequence[int]],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    wait_s: float = WAIT_S,
) -> CpuLimit:
    """Keep this process on n cores of its own where that is possible.

    It is not where the number is no whole one, where fewer cores are free, and where a quota
    of CPU time below the visible cores says that these are shared with other containers, whose
    locks cannot be seen.

    Args:
        n_cores: Cores, positive.
        order: Sorts cores by preference.
        wait_s: How long to wait for cores that are not free.
    """
    n = int(n_cores)
    limit = CpuLimit(max(1, n), None, affinity)
    usable, quota = affinity.usable(), affinity.quota()
    if n != n_cores or len(usable) < n or (quota is not None and quota < len(usable)):
        return limit
    deadline = clock() + wait_s
    try:
        while (reserved := pool.take(n, order(usable))) is None:
            if clock() > deadline:
                logger.warning("%d cores of its own are not free; it runs on any core", n)
                return limit
            sleep(POLL_S)
    except OSError as error:
        logger.warning("no core can be reserved; it runs on any core: %s", error)
        return limit
    pinned = CpuLimit(n, reserved, affinity)
    try:
        affinity.pin(reserved.cores)
    except OSError as error:
        logger.warning("the process cannot be kept on its cores: %s", error)
    if pinned.enforcement is CpuEnforcement.AFFINITY:
        return pinned
    reserved.release()
    with contextlib.suppress(OSError):
        affinity.pin(usable)
    return limit


def by_topology(cores: Iterable[int], *, directory: Path = TOPOLOGY) -> Sequence[int]:
    """Cores such that the hardware threads of one physical core are neighbours."""

    def place(core: int) -> tuple[int, int, int]:
        topology = directory / f"cpu{core}" / "topology"
        try:
            package = int((topology / "physical_package_id").read_text())
            return package, int((topology / "core_id").read_text()), core
        except (OSError, ValueError):
            return 0, core, core

    return sorted(cores, key=place)


def default_directory(*, run: Path = RUN, tmp: Path = TMP) -> Path:
    """Where this user's locks of this machine's cores are, whatever the environment says.

    Args:
        run: Has a directory of each user that is logged in.
        tmp: Is used where that is missing or not the user's own.
    """
    user = os.getuid()
    own, name = run / str(user), f"falcon-ray-cores-{user}"
    try:
        status = own.lstat()
    except OSError:
        return tmp / name
    return (own if stat.S_ISDIR(status.st_mode) and status.st_uid == user else tmp) / name


def _threads() -> set[int]:
    return {int(each.name) for each in Path("/proc/self/task").iterdir()}


def _lock(directory: int, core: int) -> int | None:
    """The open, locked file of a core, or None where another process has it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(str(core), flags, mode=0o600, dir_fd=directory)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file


def _close(files: Iterable[int]) -> None:
    for file in files:
        os.close(file)
