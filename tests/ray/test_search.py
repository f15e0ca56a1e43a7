"""`falcon_ray.search` and the command line from end to end, on a Ray that is there already."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from ray import serve

import falcon_ray
from falcon_ray.cli import main
from falcon_ray.report.journal import read_events
from falcon_ray.report.record import Role, TrialRecord
from falcon_ray.runtime import serve_apps
from falcon_ray.runtime.app_builder import AppArguments, build
from falcon_ray.space.observation import TrialStatus
from tests.ray.processes import wait_until

# The first test waits for a whole search.
pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("no_app_left"),
]


def _counted(search: falcon_ray.SearchResult) -> list[TrialRecord]:
    """The trials that count: on a busy machine the infrastructure may break another one."""
    return [each for each in search.trials if each.observation.status is not TrialStatus.FAILED]


def test_a_search_names_the_measured_configuration_that_buys_most(
    tiny_search: falcon_ray.SearchResult,
) -> None:
    counted = _counted(tiny_search)
    assert len(counted) == 3
    for trial in counted:
        assert trial.observation.status is TrialStatus.MEASURED, trial.observation.reason
    configurations = [trial.observation.configuration for trial in counted]
    assert len(set(configurations)) == 3
    best = tiny_search.best
    assert best is not None
    assert tiny_search.nothing_feasible is None
    assert best.requests_per_dollar > 0
    confirmed = {each.role: each.observation for each in tiny_search.record.confirmations}
    assert confirmed[Role.BEST].configuration in configurations
    assert best.configuration in {each.configuration for each in confirmed.values()}


def test_the_table_has_a_row_for_each_trial(tiny_search: falcon_ray.SearchResult) -> None:
    table = tiny_search.to_dataframe()
    n_trials = len(tiny_search.trials)
    assert list(table["trial"]) == list(range(1, n_trials + 1))
    assert (table["requests_per_dollar"] > 0).sum() == 3
    in_directory = (tiny_search.directory / "trials.csv").read_text()
    assert in_directory.splitlines()[0].split(",") == list(table.columns)
    assert len(in_directory.splitlines()) == 1 + n_trials


def test_the_journal_tells_the_search_from_start_to_end(
    tiny_search: falcon_ray.SearchResult,
) -> None:
    names = [event.name for event in read_events(tiny_search.directory)]
    n_confirmations = len(tiny_search.record.confirmations)
    assert names == [
        "search_started",
        *["trial_started", "trial_ended"] * len(tiny_search.trials),
        *["confirmation_started", "confirmation_ended"] * n_confirmations,
        "search_ended",
    ]
    # Two rounds of the best, the runner-up and, where it is neither, the baseline.
    assert n_confirmations in {4, 6}
    assert not tiny_search.record.interrupted


def test_the_report_says_what_the_result_says(tiny_search: falcon_ray.SearchResult) -> None:
    report = json.loads((tiny_search.directory / "report.json").read_text())
    best = tiny_search.best
    assert best is not None
    assert report["sentence"] == best.sentence
    assert report["recommendation"]["configuration"] == dict(best.configuration)
    assert len(report["trials"]) == len(tiny_search.trials)
    assert report["machinery_overhead"]["median_s"] > 0


def test_an_export_is_a_serve_config_with_the_recommendation(
    tiny_search: falcon_ray.SearchResult, targets: Path, tmp_path: Path
) -> None:
    path = tiny_search.export(tmp_path / "serve.yaml")
    best = tiny_search.best
    assert best is not None
    (application,) = yaml.safe_load(path.read_text())["applications"]
    assert application["args"]["configuration"] == dict(best.configuration)
    assert application["args"]["model"] == f"{targets}/tiny.py:tiny"
    exported_at_the_end = (tiny_search.directory / "serve.yaml").read_text()
    assert path.read_text() == exported_at_the_end


def test_a_finished_search_is_not_measured_again(tiny_search: falcon_ray.SearchResult) -> None:
    journal = tiny_search.directory / "journal.jsonl"
    before = journal.read_bytes()
    again = falcon_ray.search(resume=tiny_search.directory)
    assert journal.read_bytes() == before
    assert again.record == tiny_search.record


def test_any_serve_application_can_be_searched_and_exported(targets: Path, tmp_path: Path) -> None:
    result = falcon_ray.search(
        app=f"{targets}/echo.py:echo",
        max_trials=2,
        confirm=False,
        warm_up_s=0.5,
        measure_s=1.0,
        output_dir=tmp_path / "run",
    )
    by_pause: dict[object, float] = {}
    for trial in result.trials:
        measured = trial.observation.measurement
        assert measured is not None, trial.observation.reason
        pause_ms = trial.observation.configuration["pause_ms"]
        assert measured.extra == {"n_words": 3, "pause_ms": pytest.approx(pause_ms)}
        by_pause[pause_ms] = measured.saturation_rps
    assert set(by_pause) == {2, 20}
    assert by_pause[2] > by_pause[20]
    # 1000 ms / 20 ms of answers a second for each request that the replica works on, of which
    # Serve gives it five where its deployment does not say.
    assert by_pause[20] < 5 * 1000 / 20

    (application,) = yaml.safe_load(result.export(tmp_path / "serve.yaml").read_text())[
        "applications"
    ]
    assert application["import_path"] == "falcon_ray.runtime.app_builder:build"
    serve_apps.deploy(build(AppArguments(**application["args"])), "exported")
    try:
        wait_until(lambda: _is_running("exported"), "the exported app runs", timeout_s=30)
        handle = serve.get_app_handle("exported")
        answer = handle.speak.remote(["four"]).result(timeout_s=30)
    finally:
        serve_apps.delete("exported", timeout_s=30)
    assert answer == {"words": ["four"], "pause_s": 0.002}


def _is_running(name: str) -> bool:
    state = serve_apps.app_state(name)
    return state is not None and state.status == "RUNNING"


def test_a_search_that_finds_nothing_feasible_ends_with_exit_code_3(
    targets: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    directory = tmp_path / "run"
    # The median needs only 5 requests for a verdict, which keeps the loads short.
    code = _run_command(
        monkeypatch,
        ["search", f"{targets}/tiny.py:tiny", "--max-trials", "1", "--no-confirm"],
        ["--search-space", "batch_size=1", "--search-space", "batch_wait_ms=0"],
        ["--search-space", "dtype=float32", "--search-space", "replicas=1"],
        ["--search-space", "cpu_cores=1", "--warm-up-s", "0.5", "--measure-s", "1"],
        ["--latency-budget-ms", "0.001", "--latency-percentile", "50"],
        ["--output-dir", str(directory)],
    )
    assert code == 3
    said = " ".join(capsys.readouterr().out.split())

    result = falcon_ray.search(resume=directory)
    assert result.best is None
    nothing = result.nothing_feasible
    assert nothing is not None
    assert nothing.sentence in said
    assert nothing.closest is not None
    assert nothing.closest.configuration["batch_size"] == 1
    assert nothing.excess_ms is not None
    assert nothing.excess_ms > 0
    assert not (directory / "serve.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["tiny.py:nothing"], "has no 'nothing'", id="missing factory"),
        pytest.param(["nowhere.py:tiny"], "no such file", id="missing file"),
        pytest.param(["tiny.py:raising"], "nowhere to be found", id="factory raises"),
        pytest.param(
            ["tiny.py:tiny", "--space-constraints", "batch_size > 1000"],
            "'batch_size > 1000'",
            id="empty space",
        ),
        pytest.param(["tiny.py:tiny", "--usd-per-hour", "0"], "usd_per_hour", id="free node"),
    ],
)
def test_bad_input_is_one_line_and_deploys_nothing(
    arguments: Sequence[str],
    said: str,
    *,
    targets: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(targets)
    code = _run_command(
        monkeypatch, ["search", *arguments], ["--output-dir", str(tmp_path / "run")]
    )
    assert code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("falcon-ray: ")
    assert said in line
    assert not (tmp_path / "run").exists()


def test_a_directory_that_holds_a_search_is_not_searched_again(
    tiny_search: falcon_ray.SearchResult,
    targets: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = (tiny_search.directory / "journal.jsonl").read_bytes()
    code = _run_command(
        monkeypatch,
        ["search", f"{targets}/tiny.py:tiny", "--output-dir", str(tiny_search.directory)],
    )
    assert code == 2
    assert f"--resume {tiny_search.directory}" in capsys.readouterr().err
    assert (tiny_search.directory / "journal.jsonl").read_bytes() == before


def _run_command(monkeypatch: pytest.MonkeyPatch, *arguments: Sequence[str]) -> int:
    """Exit code of the command line, run in this process."""
    line = ["falcon-ray", *(each for part in arguments for each in part)]
    monkeypatch.setattr(sys, "argv", line)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code
