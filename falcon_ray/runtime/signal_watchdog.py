"""Ends a process that was told to stop and cannot hear it.

Python runs a signal's handler between two steps of the main thread. While that thread is in a
call into C that waits and retries, as a client of a server that is gone does, no handler runs.
The module knows signals and threads. It does not know what the process was doing.
"""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_STANDARD_ERROR = 2


@contextmanager
def ended_by_force(
    signal_number: signal.Signals, *, after_s: float, last_words: Callable[[], str], exit_code: int
) -> Iterator[None]:
    """End the process where the block is not left within a time after a signal.

    The interpreter writes the number of every signal that has a handler into a file at once
    (`signal.set_wakeup_fd`), whatever the main thread does; another thread reads it there. What
    the process would do at its end is not done.

    Enter it in the main thread, and with a handler for the signal.

    Args:
        signal_number: What to listen for.
        after_s: Seconds from the signal in which the block may still end by itself.
        last_words: What to say on standard error then.
        exit_code: What to end with.
    """
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    left = threading.Event()

    def watch() -> None:
        while signal_number not in (received := receiver.recv(64)):
            if not received:
                return
        if left.wait(after_s):
            return
        try:
            os.write(_STANDARD_ERROR, f"{last_words()}\n".encode())
        finally:
            os._exit(exit_code)

    watcher = threading.Thread(target=watch, name="signal-watchdog", daemon=True)
    before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        left.set()
        sender.close()
        watcher.join()
        receiver.close()
