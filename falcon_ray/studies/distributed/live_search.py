"""A search in a process of its own, as a user starts it, on a cluster of emulated GPUs.

It knows the command and the journal. It does not know Ray, nor what happens to the cluster.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from falcon_ray.errors import InputError
from falcon_ray.report.journal import JOURNAL_NAME, read_events
from falcon_ray.report.record import SearchRecord, read_search

LOG_NAME = "said.log"
_PROGRAM = "from falcon_ray.cli import main; main()"
_POLL_S = 0.1


class GaveUpError(Exception):
    """What was waited for did not come; the message is one line."""


@dataclass(frozen=True, slots=True)
class LiveSearch:
    """A search that was started.

    Attributes:
        directory: Its run directory.
        log: What its processes said, those of a resumed one too.
        process: Its process.
    """

    directory: Path
    log: Path
    process: "subprocess.Popen[bytes]"

    @property
    def app_prefix(self) -> str:
        """What the names of its applications begin with; it has begun by then."""
        return f"falcon-{self.record().header.search_id}-"

    def record(self) -> SearchRecord:
        """What its journal says so far."""
        return read_search(self.directory)

    def journal(self) -> bytes:
        """The whole lines of its journal so far."""
        path = self.directory / JOURNAL_NAME
        content = path.read_bytes() if path.exists() else b""
        return content[: content.rfind(b"\n") + 1]

    def count(self, event: str) -> int:
        """How often something happened so far."""
        with contextlib.suppress(InputError):
            return sum(each.name == event for each in read_events(self.directory))
        return 0

    def wait_until(self, condition: Callable[[], bool], what: str, *, timeout_s: float) -> None:
        """Wait while the search runs.

        Raises:
            GaveUpError: The search ended before, or it took too long.
        """
        deadline = time.monotonic() + timeout_s
        while not condition():
            if self.process.poll() is not None:
                raise GaveUpError(f"the search ended before {what}: {self.said()}")
            if time.monotonic() > deadline:
                raise GaveUpError(f"waited {timeout_s:g} s in vain until {what}: {self.said()}")
            time.sleep(_POLL_S)

    def wait_until_said(self, words: str, *, timeout_s: float) -> None:
        """Wait for words of its own, or of what speaks for it once it has ended.

        Raises:
            GaveUpError: They were not said in time.
        """
        deadline = time.monotonic() + timeout_s
        while words not in self.log.read_text(errors="replace"):
            if time.monotonic() > deadline:
                raise GaveUpError(f"nobody said {words!r}: {self.said()}")
            time.sleep(_POLL_S)

    def end(self, *, timeout_s: float) -> int:
        """Wait for its end; the exit code.

        Raises:
            GaveUpError: It took too long.
        """
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise GaveUpError(f"the search hung for {timeout_s:g} s: {self.said()}") from None

    def said(self) -> str:
        """The end of what it said, in one line."""
        return " ".join(self.log.read_text(errors="replace").split())[-400:]


@contextmanager
def live_search(
    directory: Path, *arguments: str, address: str, store: Path
) -> Iterator[LiveSearch]:
    """Start one, and kill it on exit where it has not ended.

    Args:
        directory: Its run directory; one that has a journal is resumed.
        arguments: Of a new search.
        address: Of the cluster.
        store: Where the cluster keeps its knowledge.
    """
    log = directory.with_name(f"{directory.name}-{LOG_NAME}")
    resumed = (directory / JOURNAL_NAME).exists()
    where = ("--resume", str(directory)) if resumed else ("--output-dir", str(directory))
    with log.open("ab") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", _PROGRAM, "search"),
                *(() if resumed else arguments),
                *where,
                *("--address", address, "--store", str(store)),
            ],
            cwd=directory.parent,
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield LiveSearch(directory, log, process)
    finally:
        process.kill()
        process.wait()
