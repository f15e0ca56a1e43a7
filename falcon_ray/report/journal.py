"""The journal of a search: one JSON line per event, on disk before the search goes on.

An event is acknowledged when `append` returns; from then on a killed driver loses nothing of
it. The journal knows lines, locks and torn writes. It does not know what an event means;
`record.py` reads that.
"""

import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

from falcon_ray.errors import FalconRayError, InputError
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.observation import Observation

logger = logging.getLogger(__name__)

JOURNAL_NAME = "journal.jsonl"
SCHEMA_VERSION = 1

Clock: TypeAlias = Callable[[], datetime]


def utc_now() -> datetime:
    """The time of day that events are stamped with."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a journal.

    Attributes:
        name: What happened, e.g. `trial_ended`.
        time: When, in UTC.
        fields: The rest of the line.
        line: Its number in the file, from 1, for messages.
    """

    name: str
    time: datetime
    fields: Mapping[str, Any]
    line: int


class Journal:
    """The one writer of a search's journal; a context manager that gives the lock back.

    Made by `create` or `open`.
    """

    def __init__(self, descriptor: int, path: Path, clock: Clock) -> None:
        self._descriptor = descriptor
        self._path = path
        self._clock = clock

    @classmethod
    def create(
        cls, directory: Path, header: Mapping[str, object], *, clock: Clock = utc_now
    ) -> Self:
        """Begin a journal with its `search_started` event, making the directory if need be.

        Args:
            directory: The run directory; it may exist, but not hold a search.
            header: What `SearchHeader.to_json` gives.
            clock: Stamps the events.

        Raises:
            InputError: The directory holds a search or cannot be written.
        """
        path = directory / JOURNAL_NAME
        try:
            directory.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL
            descriptor = os.open(path, flags, 0o644)
        except OSError as error:
            raise InputError(_why_not_created(directory, error)) from None
        journal = cls(descriptor, path, clock)
        try:
            journal._lock()
            journal.append("search_started", schema_version=SCHEMA_VERSION, **header)
            _sync_directory(directory)
            _sync_directory(directory.absolute().parent)
        except BaseException:
            path.unlink(missing_ok=True)
            journal.close()
            raise
        return journal

    @classmethod
    def open(cls, directory: Path, *, clock: Clock = utc_now) -> Self:
        """Go on with the journal of an earlier search, without the line it was killed in.

        Raises:
            InputError: There is no journal, it cannot be read, or another search writes it.
        """
        path = directory / JOURNAL_NAME
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND)
        except OSError as error:
            raise InputError(_why_not_opened(directory, error)) from None
        journal = cls(descriptor, path, clock)
        try:
            journal._lock()
            events, whole = _parse(path.read_bytes(), path)
            torn = os.fstat(descriptor).st_size - whole
            if torn:
                logger.warning("%s: dropped %d bytes of a torn last line", path, torn)
                os.ftruncate(descriptor, whole)
                os.fsync(descriptor)
            logger.info("%s: resumed after %d events", path, len(events))
        except BaseException:
            journal.close()
            raise
        return journal

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the lock back; further events are refused. Closing twice does no harm."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def search_resumed(self, *, max_cost_usd: float | None = None) -> None:
        """Note that a new driver goes on with the search, and what it may cost in all."""
        self.append("search_resumed", max_cost_usd=max_cost_usd)

    def trial_started(
        self,
        number: int,
        configuration: Configuration,
        *,
        why: str,
        expected: Mapping[str, float],
    ) -> None:
        """Note that a configuration is about to be deployed, and what is expected of it."""
        self.append(
            "trial_started",
            trial=number,
            configuration=dict(configuration),
            why=why,
            expected=dict(expected),
        )

    def trial_ended(
        self, number: int, observation: Observation, *, wall_s: float, usd: float | None = None
    ) -> None:
        """Note how a trial ended, `wall_s` seconds after its start, teardown included.

        Args:
            number: Of the trial.
            observation: How it ended.
            wall_s: Seconds from its start.
            usd: What it cost; None where nobody knows.
        """
        self.append(
            "trial_ended", trial=number, observation=observation.to_json(), wall_s=wall_s, usd=usd
        )

    def confirmation_started(
        self, role: str, configuration: Configuration, *, round_number: int = 1
    ) -> None:
        """Note that `best`, `runner_up` or `baseline` is about to be measured afresh."""
        self.append(
            "confirmation_started",
            role=role,
            configuration=dict(configuration),
            round=round_number,
        )

    def confirmation_ended(
        self,
        role: str,
        observation: Observation,
        *,
        wall_s: float,
        round_number: int = 1,
        usd: float | None = None,
    ) -> None:
        """Note a fresh measurement of `best`, `runner_up` or `baseline`; rounds count from 1."""
        self.append(
            "confirmation_ended",
            role=role,
            observation=observation.to_json(),
            wall_s=wall_s,
            round=round_number,
            usd=usd,
        )

    def search_ended(
        self,
        reason: str,
        *,
        recommended: Configuration | None = None,
        expected_gain: float | None = None,
        probability_of_better: float | None = None,
        stopped_early: bool = False,
        out_of_budget: bool = False,
    ) -> None:
        """Note that the search stopped by itself.

        Args:
            reason: e.g. `all 6 trials are done`.
            recommended: The configuration that is believed to be the best; None without one.
            expected_gain: Of one more trial, relative to the best; None where nobody knows.
            probability_of_better: That anything untried is clearly better, likewise.
            stopped_early: Whether it ended because of that, before its trials were done.
            out_of_budget: Whether it ended because one more trial could exceed its limit of
                dollars.
        """
        self.append(
            "search_ended",
            reason=reason,
            recommended=None if recommended is None else dict(recommended),
            expected_gain=expected_gain,
            probability_of_better=probability_of_better,
            stopped_early=stopped_early,
            out_of_budget=out_of_budget,
        )

    def append(self, event: str, **fields: object) -> None:
        """Write one event and return when it is on disk; the events above have their methods.

        Raises:
            FalconRayError: The disk did not take the line. The journal is as it was before.
        """
        if self._descriptor < 0:
            raise ValueError(f"{self._path} is closed; it takes no event {event!r}")
        stamp = self._clock().isoformat(timespec="milliseconds")
        line = json.dumps({"event": event, "time": stamp, **fields}).encode() + b"\n"
        before = os.fstat(self._descriptor).st_size
        try:
            written = 0
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
            os.fsync(self._descriptor)
        except BaseException as error:
            # Ctrl-C in mid-write as well: a later event must not continue half a line.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, before)
            if not isinstance(error, OSError):
                raise
            raise FalconRayError(
                f"{self._path} did not take the event {event!r}: {error.strerror}; mend that, "
                f"then continue with --resume {self._path.parent}"
            ) from error

    def _lock(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"another search is writing to {self._path.parent}; wait for it to end, "
                "or choose another --output-dir"
            ) from None
        except OSError as error:
            raise InputError(
                f"{self._path} cannot be locked: {error.strerror}; "
                "choose an --output-dir on a local disk"
            ) from None


def holds_journal(directory: Path) -> bool:
    """Whether a search was begun in this directory."""
    return (directory / JOURNAL_NAME).exists()


def read_events(directory: Path) -> tuple[Event, ...]:
    """Every acknowledged event of a journal, also while a search is writing to it.

    Raises:
        InputError: There is no journal, a newer falcon_ray wrote it, or a line is corrupt.
    """
    path = directory / JOURNAL_NAME
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(_why_not_opened(directory, error)) from None
    events, whole = _parse(content, path)
    if whole < len(content):
        logger.info("%s: left out %d bytes of a torn last line", path, len(content) - whole)
    return events


def _parse(content: bytes, path: Path) -> tuple[tuple[Event, ...], int]:
    """The events of a journal, and how many bytes its whole lines take.

    A line counts once its newline is there: `append` returns only after that.
    """
    whole = content.rfind(b"\n") + 1
    lines = content[:whole].split(b"\n")[:-1]
    events = tuple(_event(line, number, path) for number, line in enumerate(lines, start=1))
    if not events:
        raise InputError(
            f"{path} ends before its first event: the search did not start; remove the file "
            "and search again"
        )
    version = events[0].fields.get("schema_version")
    if events[0].name != "search_started" or not isinstance(version, int):
        raise InputError(
            f"{path}, line 1: expected the event search_started with a schema_version; "
            "this is no journal of falcon_ray, choose another directory"
        )
    if version > SCHEMA_VERSION:
        raise InputError(
            f"{path} has schema version {version} and this falcon_ray reads up to "
            f"{SCHEMA_VERSION}; upgrade falcon_ray"
        )
    return events, whole


def _event(line: bytes, number: int, path: Path) -> Event:
    try:
        fields: dict[str, Any] = dict(json.loads(line))
        name, time = fields.pop("event"), fields.pop("time")
        return Event(str(name), datetime.fromisoformat(time), fields, number)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}, line {number} is corrupt ({type(error).__name__}: {error}); restore the "
            "file from a copy, or keep the lines before it and --resume from those"
        ) from None


def _why_not_created(directory: Path, error: OSError) -> str:
    path = directory / JOURNAL_NAME
    for each in (directory, path):
        if each.is_symlink() and not each.exists():
            return (
                f"{each} is a symbolic link to {each.readlink()}, which does not exist; "
                "remove the link or choose another --output-dir"
            )
    if holds_journal(directory):
        return (
            f"{directory} already holds a search; continue it with --resume {directory}, "
            "or choose another --output-dir"
        )
    return f"{directory} cannot be written: {error.strerror}; choose another --output-dir"


def _why_not_opened(directory: Path, error: OSError) -> str:
    path = directory / JOURNAL_NAME
    if not directory.is_dir():
        return f"{directory} is no directory; give the --output-dir of an earlier search"
    if isinstance(error, FileNotFoundError):
        return f"{directory} holds no {JOURNAL_NAME}; give the --output-dir of an earlier search"
    return f"{path} cannot be opened: {error.strerror}; check its permissions"


def _sync_directory(directory: Path) -> None:
    """Make a new directory entry survive a power failure, as fsync(2) asks for."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        logger.info("%s: the directory cannot be synced: %s", directory, error.strerror)
