"""A control group with a memory limit, for processes that the kernel is to kill beyond it.

Made below the group of the process that makes it, where the system lets it. The module does not
know who enters.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from falcon_ray.runtime.cgroups import Cgroups

EMPTY_TIMEOUT_S = 5.0
POLL_S = 0.05

_LIMIT_FILES = ("memory.max", "memory.limit_in_bytes")
"""In the second and in the first version of control groups."""


@contextmanager
def limited_memory(name: str, *, limit_bytes: int) -> Iterator[bool]:
    """Keep a group of that name while the context is open; gives whether it could be had.

    A process that stays in it keeps it from being removed; one that is ending is waited for.
    """
    group = _child(name)
    try:
        group.mkdir(exist_ok=True)
    except OSError:
        yield False
        return
    try:
        yield _limit(group, limit_bytes)
    finally:
        _remove(group)


def enter(name: str) -> None:
    """Move this process into the group of that name below its own.

    Raises:
        OSError: The group is not there, or the system refuses.
    """
    (_child(name) / "cgroup.procs").write_text(str(os.getpid()))


def _remove(group: Path) -> None:
    deadline = time.monotonic() + EMPTY_TIMEOUT_S
    while group.exists() and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            group.rmdir()
        time.sleep(POLL_S)


def _child(name: str) -> Path:
    own = Cgroups().memory_group(os.getpid())
    return Path("/nonexistent" if own is None else own) / name


def _limit(group: Path, limit_bytes: int) -> bool:
    for file in (group / each for each in _LIMIT_FILES):
        if file.exists():
            try:
                file.write_text(str(limit_bytes))
            except OSError:
                return False
            return True
    return False
