import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from falcon_ray.errors import InputError
from falcon_ray.report.atomic import write_text
from falcon_ray.report.files import write_report
from falcon_ray.report.record import InterruptedTrial, Role, SearchHeader, SearchRecord
from falcon_ray.space.observation import Observation
from tests.unit.report.searches import (
    HEADER,
    SLO,
    batch,
    infeasible,
    measured,
    measurement,
    search,
)

B1 = measured(batch(1), measurement(100.0))
B16 = measured(batch(16), measurement(140.0, path_limited=True))


def written(directory: Path, record: SearchRecord) -> tuple[dict[str, Any], list[dict[str, str]]]:
    report, trials = write_report(directory, record)
    with trials.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return json.loads(report.read_text("utf-8"), parse_constant=_no_constant), rows


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def test_the_report_holds_what_the_record_holds(tmp_path: Path) -> None:
    stopped = InterruptedTrial(number=3, configuration=batch(8), why="try it")
    record = search(
        [B1, infeasible(batch(8)), B16],
        [(Role.BEST, B16), (Role.BASELINE, B1)],
        interrupted=(stopped,),
    )
    report, _ = written(tmp_path, record)
    assert report["schema_version"] == 1
    assert report["sentence"].startswith(
        "batch_size=16 serves 10,100,000 requests per dollar, 40 %"
    )
    assert report["recommendation"]["configuration"] == {"batch_size": 16, "dtype": "float32"}
    assert report["recommendation"]["gain"]["value"] == pytest.approx(0.4)
    assert report["recommendation"]["gain"]["shows_difference"] is True
    assert report["nothing_feasible"] is None
    assert [each["verdict"] for each in report["trials"]] == ["feasible", "infeasible", "feasible"]
    assert report["trials"][0]["requests_per_dollar"] == pytest.approx(7_200_000)
    assert report["interrupted_trials"][0]["why"] == "try it"
    confirmations = [(each["role"], each["round"]) for each in report["confirmations"]]
    assert confirmations == [("best", 1), ("baseline", 1)]
    contenders = report["recommendation"]["contenders"]
    assert [(each["role"], each["standing"]) for each in contenders] == [
        ("best", "confirmed"),
        ("baseline", "confirmed"),
    ]
    assert contenders[0]["gain"]["n_deployments"] == [1, 1]
    assert contenders[0]["rate_interval_rps"] == pytest.approx([140 / 1.02, 140 * 1.02])
    # a million over 140 * 72,000 requests per dollar
    assert contenders[0]["usd_per_million_requests"] == pytest.approx(0.09921, abs=1e-5)
    assert report["request_files"] == []
    # 15 and 17 s of wall time, less 10 s of warm-up and measurement
    assert report["machinery_overhead"]["median_s"] == 6.0
    assert report["search"]["end_reason"] == "3 trials were allowed"


def test_the_report_can_be_turned_back_into_objects(tmp_path: Path) -> None:
    report, _ = written(tmp_path, search([B1, B16]))
    assert SearchHeader.from_json(report["search"]) == HEADER
    assert Observation.from_json(report["trials"][1]) == B16


def test_a_number_that_is_not_finite_is_null(tmp_path: Path) -> None:
    endless = replace(measurement(100.0), saturation_rps_ci_high=float("inf"))
    report, _ = written(tmp_path, search([measured(batch(1), endless)]))
    assert report["trials"][0]["measurement"]["saturation_rps_ci_high"] is None


def test_nothing_feasible_says_so_with_its_exit_code(tmp_path: Path) -> None:
    over = measured(batch(1), measurement(100.0, floor_latency_ms=62.0))
    report, rows = written(tmp_path, search([over], header=replace(HEADER, objective=SLO)))
    assert report["recommendation"] is None
    assert report["nothing_feasible"] == {
        "closest_configuration": {"batch_size": 1, "dtype": "float32"},
        "excess_ms": 12.0,
        "exit_code": 3,
    }
    assert (rows[0]["status"], rows[0]["requests_per_dollar"]) == ("over_slo", "")


def test_one_row_for_each_trial_with_units_in_the_columns(tmp_path: Path) -> None:
    _, rows = written(tmp_path, search([B1, infeasible(batch(8), "too big, by far"), B16]))
    assert [row["trial"] for row in rows] == ["1", "2", "3"]
    first, second, third = rows
    assert (first["batch_size"], first["dtype"], first["status"]) == ("1", "float32", "feasible")
    assert float(first["saturation_rps"]) == 100.0
    assert float(first["latency_p99_ms"]) == 21.5
    assert float(first["tokens_per_s"]) == 3.5
    assert float(first["usd_per_hour"]) == pytest.approx(0.05)
    assert float(first["requests_per_dollar"]) == pytest.approx(7_200_000)
    # 7,200,000 / 1.02 and its inverse for a million: 1e6 / 7.2e6
    assert float(first["requests_per_dollar_ci_low"]) == pytest.approx(7_058_824, abs=1)
    assert float(first["usd_per_million_requests"]) == pytest.approx(0.13889, abs=1e-5)
    assert (first["load_path"], first["n_drivers"], first["slo_verdict"]) == ("handle", "1", "")
    assert (first["measure_s"], first["wall_s"], first["path_limited"]) == ("8.0", "15.0", "False")
    assert (second["saturation_rps"], second["reason"]) == ("", "too big, by far")
    assert third["path_limited"] == "True"


def test_the_files_with_raw_requests_are_named(tmp_path: Path) -> None:
    (tmp_path / "requests").mkdir()
    (tmp_path / "requests" / "trial-1.parquet").touch()
    report, _ = written(tmp_path, search([B1]))
    assert report["request_files"] == ["requests/trial-1.parquet"]


def test_a_search_without_trials_has_files_too(tmp_path: Path) -> None:
    report, rows = written(tmp_path, search([], end_reason=None))
    assert (report["trials"], rows) == ([], [])
    assert report["nothing_feasible"]["exit_code"] == 5


def test_files_are_written_anew_and_nothing_else_is_left(tmp_path: Path) -> None:
    write_report(tmp_path, search([B1]))
    _, rows = written(tmp_path, search([B1, B16]))
    assert len(rows) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "trials.csv"]


def test_a_file_is_replaced_and_never_changed_in_place(tmp_path: Path) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text("old and long")
    with path.open() as reader:
        write_text(path, "new")
        assert reader.read() == "old and long"
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new", 0o644)


def test_a_link_keeps_pointing_to_its_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("file")
    write_text(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "text"


def test_a_file_that_cannot_be_written_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "absent" / "file", tmp_path / "folder"):
        with pytest.raises(InputError, match=r"cannot be written: .*; choose another path"):
            write_text(path, "text")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("emulated", [True, False])
def test_what_stems_from_emulated_gpus_says_so(*, emulated: bool, tmp_path: Path) -> None:
    record = search([B1, infeasible(batch(8))], header=replace(HEADER, emulated=emulated))
    report, rows = written(tmp_path, record)
    assert report["emulated"] is emulated
    assert report["search"]["emulated"] is emulated
    assert [row["emulated"] for row in rows] == 2 * [str(emulated)]
    assert report["sentence"].startswith("On emulated GPUs (pred") is emulated
