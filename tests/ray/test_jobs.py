"""`ray job submit` of the entry points, with the package uploaded from a clean copy."""

import json
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.ray.conftest import TARGETS
from tests.ray.heads import Head, started_head
from tests.ray.processes import Command

# A head with a dashboard, and two jobs.
pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
JOB_TIMEOUT_S = 150.0
WITNESS = """
import pathlib
import falcon_ray
_title = pathlib.Path("/proc/self/cmdline").read_text().replace("\\0", " ")
with pathlib.Path({file!r}).open("a") as _file:
    _file.write(f"{{_title}}\\t{{falcon_ray.__file__}}\\n")
"""
OPTIONS = (
    *("--max-trials", "1", "--no-confirm", "--warm-up-s", "0.5", "--measure-s", "1"),
    *("--search-space", "batch_size=2", "--search-space", "dtype=float32"),
    *("--search-space", "cpu_cores=1", "--search-space", "replicas=1"),
    *("--search-space", "batch_wait_ms=0", "--output-dir", "mine"),
)


@dataclass(frozen=True)
class Ended:
    """How a job ended, and what `ray job submit` showed of it."""

    submit_code: int
    output: str

    @property
    def last(self) -> dict[str, Any]:
        """The object in the last line that the job itself printed."""
        lines = [line for line in self.output.splitlines() if line.startswith('{"command"')]
        return json.loads(lines[-1])


@dataclass(frozen=True)
class Place:
    """A head, and what is submitted to it.

    Attributes:
        head: That runs.
        copy: A clean copy of the checkout, with a model of the user's beside it.
        runs: Where the head's environment says that runs are kept.
        witnesses: Written by every process that imports the model.
        scratch: For what commands say.
    """

    head: Head
    copy: Path
    runs: Path
    witnesses: Path
    scratch: Path

    def submit(self, *entry_point: str) -> Ended:
        """Submit and wait."""
        command = Command(
            *("ray", "job", "submit", "--address", self.head.dashboard),
            *("--working-dir", str(self.copy), "--", *entry_point),
            environment=self.head.environment,
            directory=self.scratch,
        )
        with command:
            return Ended(command.wait(timeout_s=JOB_TIMEOUT_S), command.output)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    scratch = tmp_path_factory.mktemp("jobs")
    copy, runs, witnesses = scratch / "copy", scratch / "runs", scratch / "witnesses"
    compiled = shutil.ignore_patterns("__pycache__")
    for folder in ("falcon_ray", "scripts"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=compiled)
    for file in (".gitignore", ".rayignore", "pyproject.toml"):
        shutil.copy(ROOT / file, copy)
    model = (TARGETS / "tiny.py").read_text(encoding="utf-8")
    (copy / "tiny.py").write_text(model + WITNESS.format(file=str(witnesses)), encoding="utf-8")
    with started_head(scratch, FALCON_RAY_RUNS=str(runs)) as head:
        yield Place(head, copy, runs, witnesses, scratch)


@pytest.fixture(scope="module")
def searched(place: Place) -> Ended:
    """A search that ended well."""
    return place.submit("python", "scripts/search.py", "tiny.py:tiny", *OPTIONS)


def test_a_search_as_a_job_ends_with_what_it_found(place: Place, searched: Ended) -> None:
    assert searched.submit_code == 0, searched.output
    last = searched.last
    assert (last["exit_code"], last["error"], last["trials"]) == (0, None, 1)
    assert last["recommended"]["batch_size"] == 2
    assert last["requests_per_dollar"] > 0
    # What it wrote outlives the directory that it ran in.
    assert last["directory"] == str(place.runs / "mine")
    assert (place.runs / "mine" / "journal.jsonl").is_file()
    assert (place.runs / "mine" / "report.json").is_file()


def test_progress_and_the_size_of_the_upload_are_shown_as_lines(searched: Ended) -> None:
    lines = searched.output.splitlines()
    assert any(line.startswith("Working directory: ") and " MiB in " in line for line in lines)
    assert any(line.startswith("Trial 1: ") for line in lines)


def test_every_process_of_a_job_imports_what_was_uploaded(place: Place, searched: Ended) -> None:
    assert searched.submit_code == 0, searched.output
    seen = dict(line.split("\t") for line in place.witnesses.read_text().splitlines())
    assert any("ServeReplica" in title for title in seen)
    assert any("scripts/search.py" in title for title in seen)
    for title, file in seen.items():
        assert "working_dir_files" in file, title


def test_a_wrong_flag_ends_a_job_with_2_and_one_line(place: Place) -> None:
    ended = place.submit("python", "scripts/search.py", "tiny.py:tiny", "--max-trails", "1")
    assert ended.submit_code == 1
    assert "exit code 2" in ended.output
    assert ended.last["exit_code"] == 2
    assert "--max-trails" in ended.last["error"]
    assert "Traceback" not in ended.output


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"RAY_AUTH_TOKEN": secrets.token_hex(32)}, "refuses our token"),
        ({"RAY_AUTH_MODE": "disabled"}, "refuses our token"),
    ],
    ids=["wrong", "none"],
)
def test_a_wrong_token_is_one_line(place: Place, change: dict[str, str], expected: str) -> None:
    command = Command(
        *("falcon-ray", "search", f"{TARGETS}/tiny.py:tiny", "--dry-run"),
        *("--address", place.head.address),
        environment={**place.head.environment, "PYTHONPATH": str(ROOT), **change},
        directory=place.scratch,
    )
    with command:
        assert command.wait(timeout_s=60) == 4, command.output
    (line,) = command.output.splitlines()
    assert expected in line


def test_the_dashboard_given_as_address_says_how_to_submit(place: Place) -> None:
    command = Command(
        *("falcon-ray", "search", f"{TARGETS}/tiny.py:tiny", "--dry-run"),
        *("--address", place.head.dashboard.removeprefix("http://")),
        environment={**place.head.environment, "PYTHONPATH": str(ROOT)},
        directory=place.scratch,
    )
    with command:
        assert command.wait(timeout_s=30) == 4, command.output
    assert f"ray job submit --address {place.head.dashboard}" in command.output
