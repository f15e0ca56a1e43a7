"""One command at a time on one cluster, among the processes of this machine.

The lock ends with its process, however that ends. It does not know what is done under it, and
commands on other machines do not see it.
"""

import datetime as dt
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from falcon_ray.errors import ClusterError


@contextmanager
def exclusive(path: Path, *, name: str) -> Iterator[None]:
    """Hold the lock of a cluster until the context exits.

    Args:
        path: The lock's file; it is made if need be, and never removed.
        name: The cluster's, for the message.

    Raises:
        ClusterError: Another command holds it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
            raise ClusterError(
                f"another command works on cluster {name!r} ({holder or 'it has just begun'}); "
                "wait for it to end, or end it, and try again"
            ) from None
        since = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()}, since {since}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
