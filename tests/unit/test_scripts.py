"""The entry points of jobs: what a program reads of them, which is their last line."""

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from falcon_ray.cli import job
from falcon_ray.report.journal import Journal
from falcon_ray.runtime.job_package import RUNS_VARIABLE
from tests.unit.report.searches import HEADER, batch, infeasible
from tests.unit.test_cli import ASKED, write_journal

SCRIPTS = Path(__file__).parents[2] / "scripts"
NAMES = ("search", "profile", "report")


@dataclass(frozen=True)
class Ended:
    """How an entry point ended, and what it said."""

    exit_code: int
    out: str
    err: str

    @property
    def last(self) -> dict[str, Any]:
        """The object in the last line."""
        return json.loads(self.out.splitlines()[-1])


class Job:
    """Runs entry points in a directory of their own."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def run(self, name: str, *arguments: str) -> Ended:
        exit_code = getattr(job, name)(arguments)
        said = self._capsys.readouterr()
        return Ended(exit_code, said.out, said.err)


@pytest.fixture
def entry(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Job:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return Job(capsys)


def script(name: str, *arguments: str, cwd: Path) -> Ended:
    said = subprocess.run(
        [sys.executable, SCRIPTS / f"{name}.py", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return Ended(said.returncode, said.stdout, said.stderr)


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_flag_ends_in_one_line_and_exit_code_2(name: str, tmp_path: Path) -> None:
    ended = script(name, "--latncy-budget-ms", "50", cwd=tmp_path)
    assert ended.exit_code == 2
    (line,) = ended.err.splitlines() or ended.out.splitlines()[:-1]
    assert "--latncy-budget-ms" in line
    assert ended.last["exit_code"] == 2
    assert ended.last["error"] in line


@pytest.mark.parametrize(
    ("name", "flag"), [("search", "-h"), ("profile", "--help"), ("report", "-h")]
)
def test_help_is_that_of_the_command(name: str, flag: str, tmp_path: Path) -> None:
    ended = script(name, flag, cwd=tmp_path)
    assert ended.exit_code == 0
    assert ended.out.startswith(f"Usage: falcon-ray {name}")
    assert (ended.last["exit_code"], ended.last["error"]) == (0, None)


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_point_is_short_and_executable(name: str) -> None:
    path = SCRIPTS / f"{name}.py"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 60
    assert path.stat().st_mode & 0o111 == 0o111


def test_our_profile_does_not_hide_pythons_own(tmp_path: Path) -> None:
    code = (
        "import runpy, sys\n"
        f"sys.path[0] = {str(SCRIPTS)!r}\n"
        f"runpy.run_path({str(SCRIPTS / 'search.py')!r}, run_name='started')\n"
        "import cProfile, profile\n"
        "print(profile.__file__)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert str(SCRIPTS) not in said.stdout


def test_a_finished_search_is_told_in_the_last_line(entry: Job, tmp_path: Path) -> None:
    write_journal(tmp_path / "done")
    ended = entry.run("search", "--resume", "done", "--seed", str(ASKED["seed"]))
    assert ended.exit_code == 0
    assert "done is complete; nothing is measured again" in ended.out
    # 140 requests/s * 3600 s/h / 0.05 USD/h, one trial of each of three configurations.
    assert ended.last == {
        "command": "search",
        "exit_code": 0,
        "error": None,
        "directory": str(tmp_path / "done"),
        "trials": 3,
        "usd": None,
        "emulated": False,
        "recommended": {"batch_size": 16, "dtype": "float32"},
        "standing": "not confirmed",
        "requests_per_dollar": pytest.approx(10_080_000),
        "requests_per_dollar_interval": None,
        "sentence": ended.last["sentence"],
    }


def test_the_last_line_says_what_was_spent_and_that_gpus_were_emulated(
    entry: Job, tmp_path: Path
) -> None:
    write_journal(tmp_path / "done", header=replace(HEADER, emulated=True))
    with Journal.open(tmp_path / "done") as journal:
        for usd in (0.25, 0.5):
            journal.confirmation_ended("baseline", infeasible(batch(1)), wall_s=1.0, usd=usd)
    ended = entry.run("search", "--resume", "done", "--seed", str(ASKED["seed"]))
    assert (ended.last["usd"], ended.last["emulated"]) == (0.75, True)


def test_a_search_that_found_nothing_says_why_and_ends_with_3(entry: Job, tmp_path: Path) -> None:
    write_journal(tmp_path / "done", [infeasible(batch(each)) for each in (1, 8, 16)])
    ended = entry.run("search", "--resume", "done")
    assert ended.exit_code == ended.last["exit_code"] == 3
    assert ended.last["recommended"] is None
    assert ended.last["sentence"]


def test_a_search_that_cannot_begin_names_no_directory(entry: Job, tmp_path: Path) -> None:
    write_journal(tmp_path / "used")
    ended = entry.run("search", "resnet50", "--output-dir", "used")
    assert ended.exit_code == ended.last["exit_code"] == 2
    assert ended.last["directory"] is None
    assert ended.last["error"].startswith("used holds another search")
    assert ended.err == f"falcon-ray: {ended.last['error']}\n"


def test_a_run_directory_is_named_before_the_search_begins(
    entry: Job, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(RUNS_VARIABLE, str(tmp_path / "kept"))
    said = entry.run("search", "no_such_shop:make").out
    assert said.startswith(f"Run directory: {tmp_path}/kept/search-")
    (tmp_path / "flags.yaml").write_text("output_dir: mine\n", encoding="utf-8")
    said = entry.run("search", "no_such_shop:make", "-f", "flags.yaml").out
    assert said.startswith("Run directory: mine\n")


def test_a_report_is_that_of_the_command_in_one_line(entry: Job, tmp_path: Path) -> None:
    write_journal(tmp_path / "done")
    ended = entry.run("report", "done")
    assert ended.exit_code == 0
    assert ended.last["recommendation"]["configuration"] == {"batch_size": 16, "dtype": "float32"}
    assert len(ended.out.splitlines()) == 1


def test_a_report_of_nothing_says_so(entry: Job) -> None:
    ended = entry.run("report", "none")
    assert ended.exit_code == ended.last["exit_code"] == 2
    assert ended.last["error"].startswith("none is no directory")


def test_a_profile_that_cannot_be_measured_says_why(entry: Job) -> None:
    ended = entry.run("profile", "--dtype", "float31")
    assert ended.exit_code == ended.last["exit_code"] == 2
    assert ended.last["error"].startswith("dtype 'float31': choose among")
