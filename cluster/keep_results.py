"""Runs a search on the head as a job, and copies its run directory into the bucket.

Usage: python keep_results.py --bucket BUCKET --region REGION -- COMMAND [ARGUMENT...]

The directory is copied whenever the search says something, so that a head that is lost, or ended
by its budget, takes no more with it than the trial that runs, and once more at the end. The last
line of the command, one JSON object, stays the last line and is told where the results are; the
exit code is the command's. It needs boto3 and no other module of ours. It does not know what a
search is beyond the lines that name its directory.
"""

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import boto3
from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError

PERIOD_S = 60.0
DIRECTORY_LINE = "Run directory: "
PREFIX = "runs"
_ERRORS = (Boto3Error, BotoCoreError, ClientError, OSError)


class Copy:
    """A directory's copy in a bucket.

    Args:
        s3: A client of boto3.
        bucket: Its name.
        directory: What is copied, under `runs/` and its own name.
    """

    def __init__(self, s3: Any, bucket: str, directory: Path) -> None:  # noqa: ANN401 - boto3's
        self._s3 = s3
        self._bucket = bucket
        self._directory = directory
        self._copied: dict[Path, tuple[int, int]] = {}
        self._lock = threading.Lock()

    @property
    def uri(self) -> str:
        """Where it is."""
        return f"s3://{self._bucket}/{PREFIX}/{self._directory.name}/"

    def refresh(self) -> None:
        """Copy the files that are new or have changed since they were copied."""
        with self._lock:
            for file in sorted(self._directory.rglob("*")):
                if file.is_file() and not file.is_symlink():
                    with contextlib.suppress(FileNotFoundError):  # it was a temporary one
                        self._refresh(file)

    def _refresh(self, file: Path) -> None:
        about = file.stat()
        version = (about.st_mtime_ns, about.st_size)
        if self._copied.get(file) != version:
            name = file.relative_to(self._directory).as_posix()
            key = f"{PREFIX}/{self._directory.name}/{name}"
            self._s3.upload_file(str(file), self._bucket, key)
            self._copied[file] = version


def run(
    command: Sequence[str],
    copy_of: Callable[[Path], Copy],
    *,
    say: Callable[[str], object],
    period_s: float = PERIOD_S,
) -> int:
    """Run the command, say what it says, and keep its directory.

    Args:
        command: With the line "Run directory: ..." somewhere, and one JSON object at the end.
        copy_of: The copy of a directory.
        say: Takes a line.
        period_s: Longest time between copies.

    Returns:
        Its exit code; as a shell has it, where a signal ended it.
    """
    copy: Copy | None = None
    held: str | None = None
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
            )
        )
        assert process.stdout is not None
        copying: _Copying | None = None
        for line in process.stdout:
            if held is not None:
                say(held)
            text = line.rstrip("\n")
            held = text if text.startswith("{") else None
            if held is None:
                say(text)
            if copy is None and text.startswith(DIRECTORY_LINE):
                copy = copy_of(Path(text.removeprefix(DIRECTORY_LINE)))
                copying = stack.enter_context(_Copying(copy, period_s))
            if copying is not None:
                copying.wake()
    code = process.returncode
    uri = None if copy is None else _kept(copy, say)
    if held is not None:
        say(_told(held, uri))
    return 128 - code if code < 0 else code


class _Copying:
    """Copies in a thread until the context exits: when it is woken, and every so often.

    Args:
        copy: What is refreshed.
        period_s: Longest time between refreshes.
    """

    def __init__(self, copy: Copy, period_s: float) -> None:
        self._copy = copy
        self._period_s = period_s
        self._woken = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def wake(self) -> None:
        """Copy soon."""
        self._woken.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._woken.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._woken.wait(self._period_s)
            if self._ended:
                return
            self._woken.clear()
            with contextlib.suppress(*_ERRORS):  # the last copy says why
                self._copy.refresh()


def _kept(copy: Copy, say: Callable[[str], object]) -> str | None:
    try:
        copy.refresh()
    except _ERRORS as error:
        say(f"The results are on the head alone, they cannot be copied to {copy.uri}: {error}")
        return None
    say(f"Results: {copy.uri}")
    return copy.uri


def _told(line: str, uri: str | None) -> str:
    """The line with `results` in its object, where it is one."""
    try:
        record = json.loads(line)
    except ValueError:
        return line
    return json.dumps(record | {"results": uri}) if isinstance(record, dict) else line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bucket", required=True)
    parser.add_argument("--region", required=True)
    parser.add_argument("command", nargs="+")
    given = parser.parse_args(arguments)
    s3 = boto3.client("s3", region_name=given.region)
    # Ray ends a job with SIGTERM to all its processes, and a machine that shuts down adds SIGHUP;
    # what the search has written is still kept.
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, lambda *_: None)
    return run(
        given.command,
        lambda directory: Copy(s3, given.bucket, directory),
        say=lambda line: print(line, flush=True),
    )


if __name__ == "__main__":
    sys.exit(main())
