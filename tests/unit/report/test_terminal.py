import io
from dataclasses import replace

import pytest
from rich.console import Console

from falcon_ray.report.record import InterruptedTrial, Role, SearchHeader, SearchRecord
from falcon_ray.report.terminal import print_report
from falcon_ray.space.configuration import ConfigurationSpace
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
B16 = measured(batch(16), measurement(140.0, model_rps=280.0, path_limited=True))
WIDE = replace(
    HEADER,
    space=ConfigurationSpace.of(
        {
            "cpu_cores": [1, 2],
            "batch_size": [1, 16],
            "batch_wait_ms": [0, 10],
            "dtype": ["float32", "bfloat16"],
            "replicas": [1, 2],
        }
    ),
)


def printed(record: SearchRecord, width: int = 80) -> list[str]:
    """The lines that a console without colour shows, without trailing blanks."""
    out = io.StringIO()
    print_report(Console(file=out, width=width), record)
    assert "\x1b" not in out.getvalue()
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert max(map(len, lines)) <= width
    return lines


def prose(record: SearchRecord) -> str:
    return " ".join(" ".join(printed(record)).split())


FULL = search(
    [B1, infeasible(batch(8), "[red]out of memory[/red] :boom:"), B16],
    [(Role.BEST, B16), (Role.BASELINE, B1)],
    interrupted=(InterruptedTrial(number=4, configuration=batch(8), why="try it"),),
)


def test_the_first_sentence_comes_first() -> None:
    assert prose(FULL).startswith(
        "batch_size=16 serves 10,100,000 requests per dollar, 40 % more than the baseline "
        "(95 % interval 36 % to 44 % from one deployment each)."
    )


def test_the_table_shows_every_trial_and_marks_the_best_and_the_baseline() -> None:
    cells = [line.split() for line in printed(FULL)]
    assert ["1", "b", "1", "100", "2.0", "21.5", "0.05", "7,200,000"] in cells
    assert ["2", "8", "0.05", "infeasible"] in cells
    assert ["3", "*", "16", "140", "2.0", "21.5", "0.05", "10,100,000"] in cells
    assert ["again", "*", "16", "140", "2.0", "21.5", "0.05", "10,100,000"] in cells
    assert ["again", "b", "1", "100", "2.0", "21.5", "0.05", "7,200,000"] in cells
    assert not any(row[:1] == ["mean"] for row in cells)


def test_several_rounds_end_with_their_means() -> None:
    """The geometric mean of 100 and 121 is 110, worth 110 * 72,000 = 7,920,000."""
    second = measured(batch(1), measurement(121.0))
    record = search(
        [B1, B16],
        [(Role.BEST, B16), (Role.BASELINE, B1), (Role.BASELINE, second), (Role.BEST, B16)],
    )
    cells = [line.split() for line in printed(record)]
    assert ["mean", "*", "b", "1", "110", "0.05", "7,920,000"] in cells
    assert sum(row[:1] == ["again"] for row in cells) == 4


def test_the_interval_is_half_its_length_over_the_rate() -> None:
    """(105 - 92) / 2 / 100 = 6.5 %."""
    wide = replace(measurement(100.0), saturation_rps_ci_low=92.0, saturation_rps_ci_high=105.0)
    cells = [line.split() for line in printed(search([measured(batch(1), wide)]))]
    assert ["1", "*", "b", "1", "100", "6.5", "21.5", "0.05", "7,200,000"] in cells


@pytest.mark.parametrize(
    "fact",
    [
        "the same everywhere: dtype=float32",
        "Trial 2, infeasible: [red]out of memory[/red] :boom:",
        "Trial 4, no end recorded: batch_size=8 dtype=float32",
        "Serve's path delivers 140 of the 280 requests/s that the model answers",
        "Serve's path (the load's driver included), not the model, set the rate of trial 3:",
        "bookkeeping took 6.0 s per trial (median of 2)",
        "Price: c4 0.2 USD/h, us-east-1, 2026-01-01 (list price).",
        "its price scales all scores alike.",
        "Stopped: 3 trials were allowed.",
    ],
)
def test_what_to_know_beside_the_table(fact: str) -> None:
    assert fact in prose(FULL)


def wide_search(header: SearchHeader = WIDE) -> SearchRecord:
    candidates = header.space.candidates
    observations = [
        measured(each, measurement(1000.0 + i, capacity_rps=900.0, floor_latency_ms=9.0))
        for i, each in enumerate(candidates[::7])
    ]
    return search(observations, header=header)


def test_five_dimensions_fit_80_columns_each_in_its_own() -> None:
    lines = printed(wide_search())
    assert any("dtype" in line and "replicas" in line for line in lines)
    assert not any("…" in line for line in lines)


def test_in_a_narrow_terminal_dimensions_share_a_column() -> None:
    lines = printed(wide_search(), width=56)
    assert any("configuration" in line for line in lines)
    assert any("cpu_cores=1" in line for line in lines)


def test_the_slos_own_percentile_is_shown() -> None:
    assert SLO.slo is not None
    slo = replace(SLO, slo=replace(SLO.slo, latency_percentile=90.0))
    cells = [line.split() for line in printed(wide_search(replace(WIDE, objective=slo)))]
    assert any(row[-4:-2] == ["900", "15.0"] for row in cells)


def test_nothing_feasible_leads_with_how_near_it_was() -> None:
    over = measured(batch(1), measurement(100.0, floor_latency_ms=62.0))
    text = prose(search([over], header=replace(HEADER, objective=SLO)))
    assert text.startswith("None of 1 trials served 99 % of requests within 50 ms; closest was")
    assert "over SLO" in text
    assert "±%" not in text
    assert "* recommended" not in text


def test_a_search_without_trials_has_no_table() -> None:
    assert printed(search([], end_reason=None)) == [
        "No trial has ended yet; resume the search.",
        "Stopped: not yet; it is running, or was interrupted.",
    ]


def test_the_report_on_emulated_gpus_says_so_first_and_explains_it() -> None:
    text = prose(replace(FULL, header=replace(HEADER, emulated=True)))
    assert text.startswith("On emulated GPUs (predicted, not measured): batch_size=16 serves")
    assert "Emulated: no GPU did any work. Replicas took the times" in text
    assert "mulated" not in prose(FULL)


def test_nothing_feasible_on_emulated_gpus_says_so_first() -> None:
    record = search([infeasible(batch(8))], header=replace(HEADER, emulated=True))
    assert prose(record).startswith("On emulated GPUs (predicted, not measured): None of 1 trials")
