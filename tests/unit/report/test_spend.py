"""What a search cost, from its journal to the files and the text of its report."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from falcon_ray.report.files import report_json, trials_csv
from falcon_ray.report.journal import JOURNAL_NAME, Journal
from falcon_ray.report.record import SearchHeader, SearchRecord, read_search
from falcon_ray.report.spend import spend
from falcon_ray.report.terminal import print_report
from tests.unit.report.searches import HEADER, batch, infeasible, measured, measurement

B1 = measured(batch(1), measurement(100.0))
LIMITED = replace(HEADER, settings={"request": {"max_cost_usd": 2.0}})


def journaled(
    directory: Path, *, header: SearchHeader = LIMITED, usd: tuple[float | None, float | None]
) -> SearchRecord:
    """Two trials of these costs and two confirmations of 0.1 each, where the first has one."""
    with Journal.create(directory, header.to_json()) as journal:
        for number, cost in enumerate(usd, start=1):
            ended = B1 if number == 1 else infeasible(batch(8))
            journal.trial_started(number, ended.configuration, why="why", expected={})
            journal.trial_ended(number, ended, wall_s=14.0, usd=cost)
        for name in ("best", "baseline"):
            fresh = None if usd[0] is None else 0.1
            journal.confirmation_ended(name, B1, wall_s=14.0, usd=fresh)
    return read_search(directory)


def said(record: SearchRecord) -> str:
    out = io.StringIO()
    print_report(Console(file=out, width=200), record)
    return out.getvalue()


def test_trials_that_did_not_run_are_paid_as_well(tmp_path: Path) -> None:
    found = spend(journaled(tmp_path, usd=(0.4, 0.23)))
    assert found.trials_usd == pytest.approx(0.4 + 0.23)
    assert found.confirmations_usd == pytest.approx(0.1 + 0.1)
    assert found.total_usd == pytest.approx(0.83)
    assert found.n_unknown == 0


def test_the_report_says_in_one_line_what_was_spent(tmp_path: Path) -> None:
    text = said(journaled(tmp_path, usd=(0.4, 0.23)))
    assert "\nSpent 0.83 USD of at most 2.00, 0.20 of it to measure afresh.\n" in text


def test_emulated_gpus_would_have_cost_what_real_ones_do(tmp_path: Path) -> None:
    emulated = replace(LIMITED, emulated=True)
    text = said(journaled(tmp_path, header=emulated, usd=(0.4, 0.23)))
    assert "\nWould have spent 0.83 USD on real GPUs of at most 2.00, 0.20 of it to me" in text
    assert "Spent" not in text


def test_without_a_limit_none_is_named(tmp_path: Path) -> None:
    record = journaled(tmp_path, header=HEADER, usd=(0.4, 0.23))
    assert "Spent 0.83 USD, 0.20 of it to measure afresh." in said(record)
    assert spend(record).max_cost_usd is None


def test_what_nobody_knows_is_said_to_be_left_out(tmp_path: Path) -> None:
    record = journaled(tmp_path, usd=(0.001234, None))
    assert spend(record).n_unknown == 1
    assert "; what 1 without a recorded cost took is not in it." in said(record)


def test_a_trial_without_an_end_is_left_out_and_counted(tmp_path: Path) -> None:
    with Journal.create(tmp_path, LIMITED.to_json()) as journal:
        for number in (1, 2):
            journal.trial_started(number, batch(1), why="why", expected={})
        journal.trial_ended(1, B1, wall_s=14.0, usd=0.002)
    found = spend(read_search(tmp_path))
    assert (found.total_usd, found.n_unknown) == (0.002, 1)
    assert "Spent 0.002 USD" in said(read_search(tmp_path))


def test_a_journal_from_before_costs_were_kept_says_nothing_of_them(tmp_path: Path) -> None:
    journaled(tmp_path, header=HEADER, usd=(None, None))
    path = tmp_path / JOURNAL_NAME
    events = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for event in events:
        event.pop("usd", None)
    path.write_text("".join(f"{json.dumps(event)}\n" for event in events), "utf-8")
    record = read_search(tmp_path)
    assert spend(record).total_usd is None
    assert "Spent" not in said(record)
    assert report_json(record)["spend"]["total_usd"] is None


@pytest.mark.parametrize(("asked", "limit"), [({"max_cost_usd": 5.0}, 5.0), ({}, 2.0)])
def test_a_resumed_search_may_be_given_another_limit(
    tmp_path: Path, asked: dict[str, float], limit: float
) -> None:
    with Journal.create(tmp_path, LIMITED.to_json()) as journal:
        journal.append("search_resumed", **asked)
    assert read_search(tmp_path).max_cost_usd == limit


def test_the_files_hold_what_each_trial_cost(tmp_path: Path) -> None:
    record = journaled(tmp_path, usd=(0.4, None))
    report = report_json(record)
    assert [each["usd"] for each in report["trials"]] == [0.4, None]
    assert [each["usd"] for each in report["confirmations"]] == [0.1, 0.1]
    assert report["spend"] == {
        "total_usd": pytest.approx(0.6),
        "trials_usd": 0.4,
        "confirmations_usd": 0.2,
        "max_cost_usd": 2.0,
        "n_unknown": 1,
    }
    rows = list(csv.DictReader(io.StringIO(trials_csv(record))))
    assert [row["usd"] for row in rows] == ["0.4", ""]
