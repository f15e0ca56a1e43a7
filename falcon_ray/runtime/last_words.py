"""Says something on standard error for a process that ends without being able to.

Ray ends a driver at once whose node is gone, and the kernel one that takes too much memory; no
handler of ours runs then. The module knows processes. It does not know what is said.
"""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_SAY_UNLESS_TOLD = 'read -r told || printf "%s\\n" "$1" >&2'
END_TIMEOUT_S = 5.0


@contextmanager
def last_words(words: str) -> Iterator[Callable[[], None]]:
    """Have `words` said where this process ends before the block is left.

    A small shell waits at a pipe for a line that says the block is left. Where the process ends,
    however it ends, the pipe does too.

    Yields:
        To be called where others have been said, and these are not needed any more.
    """
    shell = subprocess.Popen(
        ["/bin/sh", "-c", _SAY_UNLESS_TOLD, "last-words", words],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # what is typed at the terminal is not for it
    )
    stdin = shell.stdin
    assert stdin is not None

    def tell() -> None:
        with suppress(OSError, ValueError):  # it has ended, or was told before
            stdin.write(b"left\n")
            stdin.close()

    try:
        yield tell
    finally:
        tell()
        with suppress(subprocess.TimeoutExpired):
            shell.wait(END_TIMEOUT_S)
