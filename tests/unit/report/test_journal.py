import datetime as dt
import json
import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from falcon_ray.errors import FalconRayError, InputError
from falcon_ray.report.journal import JOURNAL_NAME, Journal, holds_journal, read_events

HEADER = {"search_id": "s1"}
NOON = dt.datetime(2026, 1, 2, 12, tzinfo=dt.UTC)


def create(directory: Path) -> Path:
    """A journal with three whole lines; returns its path."""
    with Journal.create(directory, HEADER, clock=lambda: NOON) as journal:
        journal.append("trial_started", trial=1)
        journal.append("trial_ended", trial=1)
    return directory / JOURNAL_NAME


def names(directory: Path) -> list[str]:
    return [event.name for event in read_events(directory)]


def test_events_are_lines_of_json_with_their_time_in_utc(tmp_path: Path) -> None:
    path = create(tmp_path / "new" / "run")
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert lines[0] == {
        "event": "search_started",
        "time": "2026-01-02T12:00:00.000+00:00",
        "schema_version": 1,
        "search_id": "s1",
    }
    assert [line["event"] for line in lines] == ["search_started", "trial_started", "trial_ended"]


def test_events_are_read_back_in_order_with_their_line_numbers(tmp_path: Path) -> None:
    create(tmp_path)
    events = read_events(tmp_path)
    assert [(event.name, event.line) for event in events[1:]] == [
        ("trial_started", 2),
        ("trial_ended", 3),
    ]
    assert (events[1].time, events[1].fields) == (NOON, {"trial": 1})


def test_resuming_appends_behind_what_is_there(tmp_path: Path) -> None:
    create(tmp_path)
    with Journal.open(tmp_path) as journal:
        journal.search_resumed()
    assert names(tmp_path) == ["search_started", "trial_started", "trial_ended", "search_resumed"]


def test_an_infinite_number_survives(tmp_path: Path) -> None:
    with Journal.create(tmp_path, HEADER) as journal:
        journal.append("trial_ended", wall_s=float("inf"))
    assert read_events(tmp_path)[1].fields == {"wall_s": float("inf")}


def test_a_last_line_torn_anywhere_is_dropped_and_the_next_one_is_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = create(tmp_path)
    content = path.read_bytes()
    start = content.rstrip(b"\n").rfind(b"\n") + 1
    for end in range(start + 1, len(content)):
        path.write_bytes(content[:end])
        assert names(tmp_path) == ["search_started", "trial_started"]
        with caplog.at_level(logging.WARNING), Journal.open(tmp_path) as journal:
            assert path.read_bytes() == content[:start]
            journal.append("search_resumed")
        assert names(tmp_path) == ["search_started", "trial_started", "search_resumed"]
        assert f"dropped {end - start} bytes" in caplog.text


def test_reading_leaves_a_torn_line_to_its_writer(tmp_path: Path) -> None:
    path = create(tmp_path)
    with path.open("ab") as file:
        file.write(b'{"event": "tri')
    before = path.read_bytes()
    assert len(read_events(tmp_path)) == 3
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "line", [b"{half", b"[]", b"7", b"null", b"{}", b'{"event": "x"}', b"\xff", b"", b'{"time": 1}']
)
def test_a_corrupt_line_in_the_middle_is_named(tmp_path: Path, line: bytes) -> None:
    path = create(tmp_path)
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], line, lines[2], b""]))
    for read in (read_events, Journal.open):
        with pytest.raises(InputError, match="line 2 is corrupt") as caught:
            read(tmp_path)
        assert "\n" not in str(caught.value)


def test_a_refused_journal_is_left_as_it_is_and_unlocked(tmp_path: Path) -> None:
    path = create(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole + b"garbage\n" + b"torn")
    with pytest.raises(InputError, match="line 4"):
        Journal.open(tmp_path)
    assert path.read_bytes() == whole + b"garbage\n" + b"torn"
    path.write_bytes(whole)
    Journal.open(tmp_path).close()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = create(tmp_path)
    path.write_text(path.read_text("utf-8").replace('"schema_version": 1', '"schema_version": 2'))
    with pytest.raises(InputError, match=r"schema version 2 .* reads up to 1; upgrade falcon_ray"):
        read_events(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "ends before its first event"),
        (b'{"event": "search_sta', "ends before its first event"),
        (b'{"event": "x", "time": "2026-01-02T12:00:00+00:00"}\n', "no journal of falcon_ray"),
    ],
)
def test_a_journal_without_a_start_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / JOURNAL_NAME).write_bytes(content)
    with pytest.raises(InputError, match=message):
        Journal.open(tmp_path)


def test_a_second_writer_is_refused_until_the_first_is_closed(tmp_path: Path) -> None:
    with Journal.create(tmp_path, HEADER):
        with pytest.raises(InputError, match=f"another search is writing to {tmp_path}"):
            Journal.open(tmp_path)
        assert names(tmp_path) == ["search_started"]
    Journal.open(tmp_path).close()


def test_a_used_directory_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = create(tmp_path)
    before = path.read_bytes()
    with pytest.raises(InputError, match=f"already holds a search; .*--resume {tmp_path}"):
        Journal.create(tmp_path, HEADER)
    assert path.read_bytes() == before


def test_an_existing_directory_without_a_search_is_used(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert not holds_journal(tmp_path)
    create(tmp_path)
    assert holds_journal(tmp_path)


def test_a_directory_without_a_journal_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no journal.jsonl; give the --output-dir"):
        Journal.open(tmp_path)
    with pytest.raises(InputError, match="is no directory"):
        read_events(tmp_path / "absent")


def test_what_cannot_be_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / JOURNAL_NAME).symlink_to("nowhere")
    for directory, message in [
        ("file", "cannot be written"),
        ("file/below", "cannot be written: Not a directory"),
        ("dangling", "is a symbolic link to nowhere, which does not exist"),
        ("run", "is a symbolic link to nowhere, which does not exist"),
    ]:
        with pytest.raises(InputError, match=message):
            Journal.create(tmp_path / directory, HEADER)
    assert not (tmp_path / "nowhere").exists()


def test_a_file_system_that_refuses_writing_is_an_input_error() -> None:
    with pytest.raises(InputError, match=r"/proc/self/run cannot be written: .*choose another"):
        Journal.create(Path("/proc/self/run"), HEADER)


def test_a_closed_journal_takes_nothing(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, HEADER)
    journal.close()
    journal.close()
    with pytest.raises(ValueError, match="is closed"):
        journal.search_resumed()


@contextmanager
def largest_file(size: int) -> Generator[None]:
    """A disk that is full once a file has this many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_half_a_line_on_a_full_disk_is_taken_back(tmp_path: Path) -> None:
    with Journal.create(tmp_path, HEADER) as journal:
        path = tmp_path / JOURNAL_NAME
        whole = path.read_bytes()
        with (
            largest_file(len(whole) + 10),
            pytest.raises(FalconRayError, match=f"did not take .*--resume {tmp_path}"),
        ):
            journal.append("trial_started", trial=1)
        assert path.read_bytes() == whole
        journal.append("trial_started", trial=1)
    assert names(tmp_path) == ["search_started", "trial_started"]


def test_a_journal_whose_header_did_not_fit_leaves_the_directory_usable(tmp_path: Path) -> None:
    with largest_file(10), pytest.raises(FalconRayError, match="did not take"):
        Journal.create(tmp_path, HEADER)
    create(tmp_path)


def test_sigkill_loses_no_acknowledged_event_and_frees_the_lock(tmp_path: Path) -> None:
    program = (
        "import itertools, pathlib, sys\n"
        "from falcon_ray.report.journal import Journal\n"
        "journal = Journal.create(pathlib.Path(sys.argv[1]), {})\n"
        "for i in itertools.count():\n"
        "    journal.append('trial_ended', trial=i, padding='x' * 5000)\n"
        "    print(i, flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        acknowledged = [int(writer.stdout.readline()) for _ in range(20)]
        with pytest.raises(InputError, match="another search"):
            Journal.open(tmp_path)
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged += [int(line) for line in writer.stdout if line.endswith(b"\n")]
    with Journal.open(tmp_path) as journal:
        journal.search_resumed()
    numbers = [event.fields["trial"] for event in read_events(tmp_path)[1:-1]]
    assert numbers[: len(acknowledged)] == acknowledged
    assert len(numbers) - len(acknowledged) <= 1
