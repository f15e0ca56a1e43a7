import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NoReturn

import click
import pytest
import yaml

from falcon_ray.cli import commands, main
from falcon_ray.report.journal import Journal, read_events
from falcon_ray.report.record import SearchHeader
from falcon_ray.runtime.search_request import SearchRequest, request_of
from falcon_ray.space.observation import Observation
from tests.unit.report.searches import (
    HEADER,
    SLO,
    batch,
    infeasible,
    measured,
    measurement,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what Ray warns of when it is imported is not ours to mend
    import ray

    from falcon_ray.runtime import search_job  # noqa: F401 - so that no command imports it first

TINY = """
from torch import nn
import torch
def make(): return nn.Linear(3, 2)
def make_inputs(n): return torch.ones(n, 3)
def broken(): raise RuntimeError("no weights")
def misfit(): return nn.Linear(4, 2)
misfit_inputs = make_inputs
def interrupted(): raise KeyboardInterrupt
"""

SERVE = {
    "name": "tiny",
    "import_path": "falcon_ray.runtime.torch_app:build",
    "arguments": {"model": "/home/me/tiny.py:make", "seed": 7},
}
ASKED = {
    "model": "tiny.py:make",
    "seed": 7,
    "max_trials": 3,
    "search_space": {"batch_size": [1, 8, 16], "dtype": ["float32"]},
    "baseline": {"batch_size": 1},
    "space_constraints": ["batch_size <= 16"],
    "input_shape": [3, 4],
}
FOUND = (
    measured(batch(1), measurement(100.0)),
    infeasible(batch(8)),
    measured(batch(16), measurement(140.0)),
)


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said."""

    exit_code: int
    out: str
    err: str


class Terminal:
    """Runs commands in a directory of their own."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: Path
    ) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        self.home = home

    def run(self, *arguments: str) -> Ended:
        self._monkeypatch.setattr(sys, "argv", ["falcon-ray", *arguments])
        code: str | int | None = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        said = self._capsys.readouterr()
        assert not ray.is_initialized()
        return Ended(int(code or 0), said.out, said.err)

    def complaint(self, *arguments: str, exit_code: int = 2) -> str:
        """The one line that a command ends with which cannot go on."""
        ended = self.run(*arguments)
        assert ended.exit_code == exit_code
        (line,) = ended.err.splitlines()
        assert "Traceback" not in line
        return line.removeprefix("falcon-ray: ")


@pytest.fixture
def terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Terminal]:
    (tmp_path / "tiny.py").write_text(TINY, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield Terminal(monkeypatch, capsys, tmp_path)
    sys.modules.pop("falcon_target_tiny", None)


def write_journal(
    directory: Path,
    observations: Sequence[Observation] = FOUND,
    *,
    header: SearchHeader = HEADER,
    end_reason: str | None = "all 3 trials are done",
) -> None:
    """The journal of a search with these trials."""
    settings = {
        "request": request_of(ASKED).to_json() | {"confirm": False},
        "serve": SERVE,
        "directory": str(directory),
        "nodes": "1 x 2 CPUs",
    }
    with Journal.create(directory, replace(header, settings=settings).to_json()) as journal:
        for number, each in enumerate(observations, start=1):
            journal.trial_started(number, each.configuration, why="next", expected={})
            journal.trial_ended(number, each, wall_s=14.0)
        if end_reason is not None:
            journal.search_ended(end_reason)


def strict_json(text: str) -> Any:  # noqa: ANN401 - whatever was printed
    """JSON without the NaN and the infinities that Python would accept."""

    def refuse(name: str) -> NoReturn:
        pytest.fail(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def flags_of_search() -> dict[str, click.Parameter]:
    return {str(each.name): each for each in commands.commands["search"].params}


def test_every_field_of_a_request_is_a_flag_and_every_flag_a_field() -> None:
    of_the_command_itself = {"file", "dry_run", "output_format"}
    names = {each.name for each in fields(SearchRequest)}
    assert flags_of_search().keys() - of_the_command_itself == names
    assert not names & of_the_command_itself


def test_a_flag_is_its_field_with_dashes() -> None:
    for name in {each.name for each in fields(SearchRequest)} - {"model"}:
        assert f"--{name.replace('_', '-')}" in flags_of_search()[name].opts


def test_no_flag_has_a_default_that_would_hide_what_the_file_says() -> None:
    parsed = commands.commands["search"].make_context("search", []).params
    assert {parsed[each.name] for each in fields(SearchRequest)} == {None, ()}


def test_the_defaults_that_the_help_names_are_those_of_the_request() -> None:
    request = request_of({"model": "resnet50"})
    for name, parameter in flags_of_search().items():
        _, marker, rest = str(getattr(parameter, "help", "")).partition("[default: ")
        value = getattr(request, name, None)
        if marker and value is not None:
            assert rest == f"{value:g}]" if isinstance(value, float) else f"{value}]"


def test_help_ends_well(terminal: Terminal) -> None:
    for arguments in (["--help"], ["-h"], ["search", "--help"], ["report", "-h"]):
        ended = terminal.run(*arguments)
        assert (ended.exit_code, ended.err) == (0, "")
        assert ended.out.startswith("Usage:")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["search"], "name what to serve: a model"),
        (["search", "tiny.py:make", "--app", "shop:build"], "name what to serve: a model"),
        (["search", "no_such_shop:make"], "no module named 'no_such_shop': run from the directory"),
        (["search", "no_such.py:make"], "no_such.py: no such file; give a path relative to"),
        (["search", "tiny.py:mke"], "/tiny.py has no 'mke'; it has nn, torch, make, make_inputs"),
        (["search", "mobilenet"], "did you mean 'mobilenet_v3'?"),
        (["search", "tiny.py:broken"], "/tiny.py:broken() failed: RuntimeError: no weights"),
        (["search", "tiny.py:misfit"], "misfit fails on its example input (float32[2, 3])"),
        (["search", "tiny.py:interrupted_inputs"], "has no 'interrupted_inputs'"),
        (["search", "-f", "none.yaml"], "none.yaml cannot be read: No such file or directory"),
        (["search", "--resume", "none"], "none is no directory; give the --output-dir of"),
        (["search", "--resume", "."], ". holds no journal.jsonl; give the --output-dir of an"),
        (["search", "--resume", ".", "--dry-run"], "a dry run plans a new search"),
        (["report", "none"], "none is no directory"),
        (["report", "."], ". holds no journal.jsonl"),
        (["export", "none"], "none is no directory"),
    ],
)
def test_a_target_or_directory_that_is_not_there_is_one_line_and_exit_code_2(
    arguments: list[str], expected: str, terminal: Terminal
) -> None:
    assert expected in terminal.complaint(*arguments)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--search-space", "batch_size"], "--search-space 'batch_size': write NAME=VALUE, e.g."),
        (["--search-space", "=8"], "--search-space '=8': write NAME=VALUE"),
        (["--search-space", "batch_size="], "--search-space 'batch_size=': write NAME=VALUE"),
        (["--baseline", "8"], "--baseline '8': write NAME=VALUE, e.g. batch_size=8"),
        (["--input-shape", "3,x"], "--input-shape '3,x': write whole numbers, e.g. 3,224,224"),
        (["--input-shape", "3,-1"], "input_shape must hold positive whole numbers, got -1"),
        (["--max-trials", "0"], "max_trials must be at least 1, got 0"),
        (["--time-budget-s", "-1"], "time_budget_s must be a positive number, got -1.0"),
        (["--latency-budget-ms", "0"], "latency_budget_ms must be a positive number, got 0.0"),
        (["--latency-percentile", "95"], "latency_percentile needs a limit"),
        (["--usd-per-hour", "0"], "usd_per_hour must be a positive number, got 0.0"),
        (["--usd-per-hour", "nan"], "usd_per_hour must be a positive number, got nan"),
        (["--max-output-error", "-0.1"], "max_output_error must be a positive number, got -0.1"),
        (["--seed", "-1"], "seed must not be negative, got -1"),
        (["--scenario", "server"], "the server scenario needs a latency limit; give latency_budg"),
        (["--scenario", "sever"], "there is no scenario 'sever'; did you mean 'server'? known are"),
        (["--load-path", "grpc"], "there is no load_path 'grpc'; known are handle, http, replica"),
        (["--offered-rps", "0"], "offered_rps must be a positive number, got 0.0"),
        (["--offered-rps", "40"], "a rate is offered in the server scenario only, not in offline"),
        (["--arrival-trace", "a.txt"], "arrival_trace says when a server's requests arrive, and"),
        (["--confirm-rounds", "0"], "confirm_rounds must be at least 1, got 0; to measure nothing"),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_value_that_cannot_be_meant_is_one_line_and_exit_code_2(
    flags: list[str], expected: str, dry: list[str], terminal: Terminal
) -> None:
    assert terminal.complaint("search", "tiny.py:make", *flags, *dry).startswith(expected)
    assert not (terminal.home / "runs").exists()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("0\n2\n1\n", "line 3: 1 s is earlier than the 2 s before it; sort the times"),
        ("0\n-1\n", "line 2: -1 s is negative"),
        ("0\nsoon\n", "line 2: 'soon' is not a number"),
        ("", "needs at least 2 arrivals, got 0"),
    ],
)
def test_a_trace_that_is_none_is_one_line_and_exit_code_2(
    content: str, expected: str, terminal: Terminal
) -> None:
    (terminal.home / "arrivals.txt").write_text(content, encoding="utf-8")
    flags = ("--latency-budget-ms", "50", "--arrival-trace", "arrivals.txt")
    said = terminal.complaint("search", "tiny.py:make", *flags)
    assert said.startswith(f"arrival trace {terminal.home / 'arrivals.txt'}")
    assert expected in said
    missing = terminal.complaint("search", "tiny.py:make", *flags[:3], "none.txt")
    assert "none.txt cannot be read" in missing


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("max_trails: 6\n", "unknown key 'max_trails'; did you mean 'max_trials'? known are"),
        ("max-trials: 6\n", "unknown key 'max-trials'; did you mean 'max_trials'? known are"),
        ("max_trials: many\n", "max_trials must be a whole number, got 'many'"),
        ("load-path: http\n", "unknown key 'load-path'; did you mean 'load_path'? known are"),
        ("scenario: servers\n", "there is no scenario 'servers'; did you mean 'server'? known"),
        ("search_space: {batch_size: 8}\n", "search_space: batch_size must be a list of values"),
        ("- model\n", "search.yaml must hold keys and values"),
        ("model: [\n", "search.yaml is no YAML: "),
        ("app: shop:build\n", "name what to serve: a model"),  # beside the model that is given
    ],
)
def test_a_file_that_cannot_be_meant_is_one_line_and_exit_code_2(
    content: str, expected: str, terminal: Terminal
) -> None:
    (terminal.home / "search.yaml").write_text(content, encoding="utf-8")
    said = terminal.complaint("search", "tiny.py:make", "-f", "search.yaml")
    assert said.startswith(expected)


def test_a_flag_outweighs_the_file(terminal: Terminal) -> None:
    (terminal.home / "search.yaml").write_text("model: tiny.py:make\nseed: -5\n", encoding="utf-8")
    assert "got -5" in terminal.complaint("search", "-f", "search.yaml")
    assert "got -7" in terminal.complaint("search", "-f", "search.yaml", "--seed", "-7")


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_directory_that_holds_a_search_is_left_as_it_is(
    dry: list[str], terminal: Terminal
) -> None:
    write_journal(terminal.home / "used")
    before = (terminal.home / "used" / "journal.jsonl").read_bytes()
    said = terminal.complaint("search", "tiny.py:make", "--output-dir", "used", *dry)
    assert said == (
        "used holds another search; go on with it by --resume used, or give another --output-dir"
    )
    assert (terminal.home / "used" / "journal.jsonl").read_bytes() == before


def test_an_unknown_flag_is_exit_code_2_without_a_traceback(terminal: Terminal) -> None:
    ended = terminal.run("search", "--max-trails", "6")
    assert (ended.exit_code, ended.out) == (2, "")
    assert "No such option '--max-trails'" in ended.err
    assert "Traceback" not in ended.err


def test_an_interrupt_before_the_search_is_exit_code_5(terminal: Terminal) -> None:
    ended = terminal.run("search", "tiny.py:interrupted")
    assert ended.exit_code == 5
    # The first line is the one on which the terminal shows ^C.
    assert ended.err == "\nfalcon-ray: interrupted\n"


def test_the_report_of_a_search_is_printed_from_its_journal(terminal: Terminal) -> None:
    write_journal(terminal.home / "done")
    ended = terminal.run("report", "done")
    assert (ended.exit_code, ended.err) == (0, "")
    text = " ".join(ended.out.split())
    # 140 requests/s * 3600 s/h / 0.05 USD/h = 10,080,000 requests per dollar, in three digits.
    assert text.startswith("batch_size=16 served 10,100,000 requests per dollar")
    assert "out of memory" in text


def test_the_report_as_json_is_json_and_nothing_else(terminal: Terminal) -> None:
    write_journal(terminal.home / "done")
    ended = terminal.run("report", "done", "--format", "json")
    assert (ended.exit_code, ended.err) == (0, "")
    said = strict_json(ended.out)
    assert said["recommendation"]["configuration"] == {"batch_size": 16, "dtype": "float32"}
    assert said["recommendation"]["requests_per_dollar"] == pytest.approx(140 * 3600 / 0.05)
    assert [each["status"] for each in said["trials"]] == ["measured", "infeasible", "measured"]


def test_a_search_that_was_interrupted_is_reported_as_far_as_it_came(terminal: Terminal) -> None:
    write_journal(terminal.home / "part", FOUND[:1], end_reason=None)
    ended = terminal.run("report", "part", "--format", "json")
    assert ended.exit_code == 0
    assert strict_json(ended.out)["search"]["end_reason"] is None


@pytest.mark.parametrize(
    ("flags", "name"), [([], "done/serve.yaml"), (["-o", "production.yaml"], "production.yaml")]
)
def test_the_recommendation_is_exported_as_a_serve_config(
    flags: list[str], name: str, terminal: Terminal
) -> None:
    write_journal(terminal.home / "done")
    ended = terminal.run("export", "done", *flags)
    assert (ended.exit_code, ended.err) == (0, "")
    assert ended.out == f"wrote {name}; deploy it by: serve run {name}\n"
    (application,) = yaml.safe_load((terminal.home / name).read_text("utf-8"))["applications"]
    assert application["name"] == "tiny"
    assert application["import_path"] == "falcon_ray.runtime.torch_app:build"
    assert application["args"] == {
        "model": "/home/me/tiny.py:make",
        "seed": 7,
        "configuration": {"batch_size": 16, "dtype": "float32"},
    }


def test_an_emulated_search_is_exported_only_when_that_is_allowed(terminal: Terminal) -> None:
    write_journal(terminal.home / "done", header=replace(HEADER, emulated=True))
    assert terminal.complaint("export", "done").startswith("search s1 ran on emulated GPUs: ")
    assert not (terminal.home / "done" / "serve.yaml").exists()
    ended = terminal.run("export", "done", "--allow-emulated")
    assert (ended.exit_code, ended.err) == (0, "")
    assert ended.out.endswith("; its numbers are predicted on emulated GPUs\n")
    text = (terminal.home / "done" / "serve.yaml").read_text("utf-8")
    assert "# EMULATED: no GPU did any work" in text
    assert "falcon_ray.runtime.torch_app:build" in text


def test_nothing_feasible_is_nothing_to_export(terminal: Terminal) -> None:
    write_journal(terminal.home / "done", [infeasible(batch(1))])
    assert terminal.complaint("export", "done").startswith("there is nothing to export: ")
    assert not (terminal.home / "done" / "serve.yaml").exists()


def test_resuming_a_complete_search_measures_nothing_and_reports(terminal: Terminal) -> None:
    write_journal(terminal.home / "done")
    before = read_events(terminal.home / "done")
    ended = terminal.run("search", "--resume", "done")
    assert (ended.exit_code, ended.err) == (0, "")
    assert "done is complete; nothing is measured again" in ended.out
    assert "batch_size=16" in ended.out
    assert "cd done && serve run serve.yaml" in " ".join(ended.out.split())
    assert read_events(terminal.home / "done") == before
    report = json.loads((terminal.home / "done" / "report.json").read_text("utf-8"))
    assert report["recommendation"]["configuration"]["batch_size"] == 16


def test_resumed_with_the_same_flags_it_is_the_same_search(terminal: Terminal) -> None:
    write_journal(terminal.home / "done")
    ended = terminal.run(
        *("search", "tiny.py:make", "--resume", "done", "--seed", "7"),
        *("--search-space", "batch_size=1,8,16", "--search-space", "dtype=float32"),
        *("--baseline", "batch_size=1", "--space-constraints", "batch_size <= 16"),
        *("--input-shape", "3,4"),
    )
    assert (ended.exit_code, ended.err) == (0, "")


def test_resumed_with_other_flags_it_would_be_another_search(terminal: Terminal) -> None:
    write_journal(terminal.home / "done")
    said = terminal.complaint("search", "--resume", "done", "--seed", "8")
    assert said == "a resumed search keeps its seed (7); leave it out, or start a new search"


def test_json_of_a_search_is_json_and_progress_goes_elsewhere(terminal: Terminal) -> None:
    write_journal(terminal.home / "done")
    ended = terminal.run("search", "--resume", "done", "--format", "json")
    assert ended.exit_code == 0
    assert strict_json(ended.out)["search"]["target"] == "zoo:tiny"
    assert ended.err == "done is complete; nothing is measured again\n"


def test_nothing_feasible_under_the_slo_is_exit_code_3_and_says_by_how_much(
    terminal: Terminal,
) -> None:
    over = (
        measured(batch(1), measurement(100.0, floor_latency_ms=80.0)),
        measured(batch(8), measurement(100.0, floor_latency_ms=60.0)),
        infeasible(batch(16)),
    )
    write_journal(terminal.home / "done", over, header=replace(HEADER, objective=SLO))
    ended = terminal.run("search", "--resume", "done")
    assert (ended.exit_code, ended.err) == (3, "")
    # 60 ms where 50 are allowed.
    assert "closest was batch_size=8, 10 ms (20 %) over" in " ".join(ended.out.split())
    assert "serve run" not in ended.out
    assert terminal.run("search", "--resume", "done", "--format", "json").exit_code == 3
