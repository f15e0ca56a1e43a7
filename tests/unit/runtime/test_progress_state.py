import io
from collections import Counter
from dataclasses import replace

import pytest
from rich.console import Console

from falcon_ray.report.record import SearchHeader
from falcon_ray.runtime.progress.live_table import live_table
from falcon_ray.runtime.progress.state import SearchProgress, Stage, accelerator, stage_of
from falcon_ray.runtime.progress.wording import dollars
from falcon_ray.space.configuration import Configuration, ConfigurationSpace
from falcon_ray.space.cost import Pricing
from falcon_ray.space.observation import Measurement, TrialStatus
from tests.unit.report.searches import HEADER, gpu_instance, measured, not_measured

HEADING = "running  waiting  provisioning  measured  infeasible  failed"


def on(gpu_type: str, batch_size: int = 1) -> Configuration:
    return Configuration({"gpu_type": gpu_type, "batch_size": batch_size})


GPUS: SearchHeader = replace(
    HEADER,
    space=ConfigurationSpace.of({"gpu_type": ["T4", "L4"], "batch_size": list(range(1, 65))}),
    pricing=Pricing((gpu_instance("g4", "T4", 0.5), gpu_instance("g6", "L4", 1.0))),
)


def drawn(progress: SearchProgress, *, height: int = 40, width: int = 80) -> list[str]:
    text = io.StringIO()
    Console(file=text, width=width).print(live_table(progress, now_s=100.0, height=height))
    return [line.rstrip() for line in text.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"gpu_type": "L4", "batch_size": 1}, "L4"),
        ({"gpu_share": 0.5}, "GPU"),
        ({"cpu_cores": 2}, "CPU"),
    ],
)
def test_a_configuration_is_counted_with_what_it_runs_on(
    values: dict[str, str | int | float], name: str
) -> None:
    assert accelerator(Configuration(values)) == name


@pytest.mark.parametrize(
    ("phase", "stage"),
    [
        ("waiting", Stage.WAITING),
        ("waiting for an L4", Stage.WAITING),
        ("provisioning: g6 in 40 s", Stage.PROVISIONING),
        ("deploying", Stage.RUNNING),
        ("", Stage.RUNNING),
    ],
)
def test_the_first_word_of_a_phase_tells_what_a_trial_waits_for(phase: str, stage: Stage) -> None:
    assert stage_of(phase) is stage


def test_trials_are_counted_by_what_they_run_on_and_what_they_are_at() -> None:
    progress = SearchProgress(header=GPUS)
    for label, gpu_type in (("1", "T4"), ("2", "L4"), ("3", "L4"), ("4", "T4"), ("5", "L4")):
        progress = progress.started(label, on(gpu_type), now_s=0.0)
    progress = progress.at_phase("2", "waiting").at_phase("3", "provisioning")
    failed = not_measured(on("T4"), TrialStatus.FAILED, "the node is lost")
    progress = progress.with_end("4", failed, usd=None, is_fresh=False)
    l4, t4 = progress.counts()
    assert (l4.name, t4.name) == ("L4", "T4")
    assert l4.stages == Counter([Stage.RUNNING, Stage.WAITING, Stage.PROVISIONING])
    assert t4.stages == Counter([Stage.RUNNING])
    assert (l4.statuses, t4.statuses) == (Counter(), Counter([TrialStatus.FAILED]))


def test_what_an_unknown_trial_does_changes_nothing() -> None:
    progress = SearchProgress(header=GPUS).started("1", on("T4"), now_s=0.0)
    assert progress.at_phase("7", "waiting") == progress


def test_a_trial_that_ends_late_is_best_only_if_it_is_better() -> None:
    progress = SearchProgress(header=GPUS)
    for label, batch_size, rate_rps in (("1", 1, 20.0), ("2", 2, 10.0), ("3", 4, 30.0)):
        trial = measured(on("T4", batch_size), Measurement(saturation_rps=rate_rps))
        progress = progress.with_end(label, trial, usd=0.25, is_fresh=False)
        again = measured(on("T4", batch_size), Measurement(saturation_rps=99.0))
        progress = progress.with_end(label, again, usd=0.25, is_fresh=True)
    # 30 requests/s * 3600 s/h / 0.5 USD/h
    assert progress.best_score == pytest.approx(216_000)
    assert progress.best_label == "3"
    assert progress.n_ended == 3
    assert progress.usd == pytest.approx(6 * 0.25)


def test_the_table_shows_counts_running_trials_the_best_and_the_spend() -> None:
    progress = SearchProgress(header=GPUS, max_trials=9, n_before=2, usd=0.5, max_cost_usd=5.0)
    trial = measured(on("L4", 8), Measurement(saturation_rps=100.0))
    progress = progress.started("Trial 3", on("L4", 8), now_s=10.0)
    progress = progress.started("Trial 4", on("T4", 2), now_s=30.0)
    progress = progress.started("Trial 5", on("L4", 4), now_s=91.5)
    progress = progress.at_phase("Trial 4", "waiting for a T4")
    progress = progress.at_phase("Trial 5", "measuring")
    progress = progress.with_end("Trial 3", trial, usd=0.75, is_fresh=False)
    assert drawn(progress) == [
        f"    {HEADING}",
        "L4        1        -             -         1           -       -",
        "T4        -        1             -         -           -       -",
        "",
        "Trial 5   8 s  measuring         gpu_type=L4 batch_size=4",
        "Trial 4  70 s  waiting for a T4  gpu_type=T4 batch_size=2",
        # 100 requests/s * 3600 s/h / 1.0 USD/h
        "Best so far: 360,000 requests per dollar: Trial 3, gpu_type=L4 batch_size=8",
        "3 of 9 trials ended; spent 1.25 of 5.00 USD",
    ]


def test_before_anything_is_measured_there_is_no_best_and_no_budget_is_none() -> None:
    lines = drawn(SearchProgress(header=GPUS, max_trials=9))
    assert lines[-2:] == ["Best so far: none", "0 of 9 trials ended; spent 0.00 USD"]


def many(n: int) -> SearchProgress:
    progress = SearchProgress(header=GPUS, max_trials=n)
    for i in range(n):
        progress = progress.started(f"Trial {i}", on("L4", i + 1), now_s=0.0)
    return progress


def test_of_many_trials_ten_are_listed_and_the_rest_is_counted() -> None:
    lines = drawn(many(16))
    assert sum(line.startswith("Trial ") for line in lines) == 10
    assert "and 6 more" in lines


def test_everything_fits_a_low_terminal_and_a_narrow_one() -> None:
    lines = drawn(many(16), height=12, width=40)
    assert len(lines) <= 12
    assert max(map(len, lines)) <= 40
    assert "and 11 more" in lines


def test_small_amounts_of_money_keep_their_digits() -> None:
    assert [dollars(each) for each in (0.0, 0.00084, 0.1, 1234.5)] == [
        "0.00",
        "0.0008",
        "0.10",
        "1,234.50",
    ]
