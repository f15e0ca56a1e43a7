"""A search whose own process is killed after its first trial, and resumed.

Nothing that was measured may be lost or measured again, and what the killed process left on the
cluster has to be gone in the end. The module knows the command and the journal, nothing of Ray.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from falcon_ray.report.journal import JOURNAL_NAME, read_events
from falcon_ray.runtime.testbed import faulty_targets

MAX_TRIALS = 2
TIMEOUT_S = 120.0

_COMMAND = Path(sys.executable).parent / "falcon-ray"
_LOG = "searches.log"
_POLL_S = 0.05
_OPTIONS = (
    *("--max-trials", str(MAX_TRIALS), "--no-confirm", "--warm-up-s", "0.5", "--measure-s", "1"),
    *("--search-space", "batch_size=1,2", "--search-space", "cpu_cores=1"),
    *("--search-space", "replicas=1", "--search-space", "batch_wait_ms=0"),
    *("--search-space", "dtype=float32"),
)


def kill_and_resume(address: str, directory: Path) -> str:
    """Search, kill, resume; what went wrong, or empty.

    Args:
        address: Of the Ray that outlives the search.
        directory: An empty one, for the journal and what the searches say.
    """
    run = directory / "run"
    model = f"{faulty_targets.__name__}:healthy"
    try:
        with _search(address, directory, model, "--output-dir", str(run), *_OPTIONS) as first:
            # The next trial has begun: there is something to leave behind.
            _wait_for_trial(run, MAX_TRIALS, first)
            first.kill()
        before = _whole_lines(run)
        with _search(address, directory, "--resume", str(run)) as second:
            code = second.wait(TIMEOUT_S)
    except (TimeoutError, subprocess.TimeoutExpired) as error:
        return f"{error}; it said: {_said(directory)}"
    if code:
        return f"the resumed search ended with {code}: {_said(directory)}"
    if not _whole_lines(run).startswith(before):
        return "the journal from before the kill has changed"
    ended = [each.fields["trial"] for each in read_events(run) if each.name == "trial_ended"]
    if len(ended) != MAX_TRIALS or len(set(ended)) != MAX_TRIALS:
        return f"{MAX_TRIALS} trials were asked for and those that ended are {ended}"
    return ""


@contextmanager
def _search(address: str, directory: Path, *arguments: str) -> "Iterator[subprocess.Popen[bytes]]":
    """A search that is running; killed on exit where it has not ended."""
    # What it learns is no knowledge of the user's.
    environment = {**os.environ, "FALCON_RAY_PROFILE": str(directory / "profile")}
    with (directory / _LOG).open("ab") as output:
        command = subprocess.Popen(
            [_COMMAND, "search", *arguments, "--address", address],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield command
    finally:
        command.kill()
        command.wait()


def _wait_for_trial(run: Path, n: int, command: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while _whole_lines(run).count(b'"trial_started"') < n:
        if command.poll() is not None or time.monotonic() > deadline:
            raise TimeoutError(f"the search ended or hung before trial {n} began")
        time.sleep(_POLL_S)


def _whole_lines(run: Path) -> bytes:
    path = run / JOURNAL_NAME
    content = path.read_bytes() if path.exists() else b""
    return content[: content.rfind(b"\n") + 1]


def _said(directory: Path) -> str:
    return (directory / _LOG).read_text(errors="replace").strip()[-500:]
