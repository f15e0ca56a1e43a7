"""Ends a process whose cluster is gone, before Ray ends it without a word.

A driver that has lost its cluster waits in Ray's client until that gives up, a minute later, and
takes the process along. The module knows where to knock, and threads. It does not know what the
process was doing.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EVERY_S = 2.0
_STANDARD_ERROR = 2


@contextmanager
def ended_with_cluster(
    answers: Callable[[], bool],
    *,
    after_s: float,
    last_words: Callable[[], str],
    exit_code: int,
    every_s: float = EVERY_S,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[None]:
    """End the process where the cluster has not answered for a time and the block is not left.

    What the process would do at its end is not done.

    Args:
        answers: Whether the cluster does; asked by a thread, again and again.
        after_s: Seconds without an answer after which the process is ended.
        last_words: What to say on standard error then.
        exit_code: What to end with.
        every_s: Between two times of asking.
        clock: Monotonic seconds.
    """
    left = threading.Event()

    def watch() -> None:
        answered_s = clock()
        while not left.wait(every_s):
            if answers():
                answered_s = clock()
            elif clock() - answered_s >= after_s and not left.is_set():
                try:
                    os.write(_STANDARD_ERROR, f"{last_words()}\n".encode())
                finally:
                    os._exit(exit_code)

    watcher = threading.Thread(target=watch, name="cluster-watchdog", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        left.set()
        watcher.join()
