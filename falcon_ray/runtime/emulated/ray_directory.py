"""A directory for all that a Ray of our own writes, which is gone however the process is ended.

It knows Ray's variable for it, and SIGTERM. It does not know what Ray writes there. SIGKILL, and
`os._exit`, leave it behind.
"""

import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

TEMPORARY = "RAY_TMPDIR"


@contextmanager
def ray_directory() -> Iterator[str]:
    """Keep a directory for Ray until the context exits, and have Ray take it.

    There too Ray notes which cluster is the current one, which is not to be ours for others.
    """
    before = os.environ.get(TEMPORARY)
    with _sigterm_as_exit():
        # Sockets are below it, and their paths may have 107 characters.
        directory = tempfile.mkdtemp(prefix="fe", dir=before)
        os.environ[TEMPORARY] = directory
        try:
            yield directory
        finally:
            if before is None:
                os.environ.pop(TEMPORARY, None)
            else:
                os.environ[TEMPORARY] = before
            shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _sigterm_as_exit() -> Iterator[None]:
    """Let SIGTERM end the process by way of its `finally` blocks, unless it is heard already.

    Ray sees to that only once a node of it runs, and does not take it back.
    """
    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield
        return
    if before is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _exit(signal_number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - Python's
    sys.exit(128 + signal_number)
