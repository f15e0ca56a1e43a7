import io
import pickle
from dataclasses import replace

import pytest
from rich.console import Console

from falcon_ray.report.record import SearchHeader
from falcon_ray.report.valuation import value
from falcon_ray.runtime.progress import DisplayGroup, PhaseCallback, RichDisplay, SilentDisplay
from falcon_ray.runtime.progress.state import SearchProgress
from falcon_ray.runtime.progress.wording import best_so_far, spend
from falcon_ray.space.objective import Objective, Slo
from falcon_ray.space.observation import Measurement, Observation, TrialStatus
from falcon_ray.space.workload import Scenario
from tests.unit.report.searches import HEADER, SLO, batch, infeasible, measured, not_measured


def lines(objective: Objective, *observations: Observation) -> list[str]:
    """What is shown of a search: its first line, then one for each trial."""
    text = io.StringIO()
    display = RichDisplay(Console(file=text, width=200))
    header: SearchHeader = replace(HEADER, objective=objective)
    display.search_started(header, n_done=0, max_trials=3)
    for observation in observations:
        display.trial_ended("Trial 1", observation, wall_s=14.4)
    return text.getvalue().splitlines()


@pytest.mark.parametrize(
    ("objective", "aim"),
    [
        (Objective(), "most requests per dollar at saturation"),
        (SLO, "most requests per dollar with p99 within 50 ms"),
        (
            Objective(Slo(latency_budget_ms=50), offered_rps=40),
            "most requests per dollar at 40/s with p99 within 50 ms",
        ),
        (
            Objective(scenario=Scenario.SINGLE_STREAM),
            "most requests per dollar with one in flight",
        ),
        (
            Objective(Slo(latency_budget_ms=50), Scenario.SINGLE_STREAM),
            "most requests per dollar with one in flight and p99 within 50 ms",
        ),
    ],
)
def test_a_search_begins_with_its_aim(objective: Objective, aim: str) -> None:
    assert lines(objective)[0].endswith(f"; aim: {aim}")


def test_a_trial_ends_with_its_rate_and_what_a_dollar_buys() -> None:
    trial = measured(batch(1), Measurement(saturation_rps=100.0, saturation_rps_ci_low=98.0))
    # 100 requests/s * 3600 s/h / 0.05 USD/h
    told = "Trial 1: 100 requests/s at saturation (±2.0 %); 7,200,000 requests per dollar"
    assert lines(Objective(), trial, trial)[1:] == [f"{told}, best so far, 14 s", f"{told}, 14 s"]


def test_what_is_best_so_far_counts_from_before_and_not_from_measuring_again() -> None:
    text = io.StringIO()
    display = RichDisplay(Console(file=text, width=200))
    # 100 requests/s * 3600 s/h / 0.05 USD/h = 7,200,000; 120 requests/s are 8,640,000.
    before = measured(batch(8), Measurement(saturation_rps=7_500_000 * 0.05 / 3600))
    best = value(before, HEADER.objective, HEADER.pricing)
    display.search_started(HEADER, n_done=1, max_trials=3, best=best)
    for rate_rps, is_fresh in ((100.0, False), (130.0, True), (120.0, False)):
        trial = measured(batch(1), Measurement(saturation_rps=rate_rps))
        display.trial_ended("Trial 2", trial, wall_s=1.0, is_fresh=is_fresh)
    said = ["best so far" in line for line in text.getvalue().splitlines()[1:]]
    assert said == [False, False, True]


def test_a_trial_under_an_slo_ends_with_the_verdict() -> None:
    met = Measurement(saturation_rps=100.0, capacity_rps=60.0, slo_verdict="met")
    violated = Measurement(saturation_rps=100.0, floor_latency_ms=80.0, slo_verdict="violated")
    first, second = lines(SLO, measured(batch(1), met), measured(batch(1), violated))[1:]
    # 60 requests/s * 3600 s/h / 0.05 USD/h
    assert first == (
        "Trial 1: 100 requests/s at saturation, 60/s certified; SLO met; "
        "4,320,000 requests per dollar, best so far, 14 s"
    )
    assert second.startswith(
        "Trial 1: 100 requests/s at saturation; SLO violated; p99 80 ms at the light"
    )


def test_a_single_stream_says_its_own_rate() -> None:
    alone = Measurement(saturation_rps=100.0, single_stream_rps=20.0)
    objective = Objective(scenario=Scenario.SINGLE_STREAM)
    assert (
        "100 requests/s at saturation, 20/s with one in flight; 1,440,000 requests"
        in (lines(objective, measured(batch(1), alone))[1])
    )


def test_a_trial_that_was_cut_short_says_why() -> None:
    short = Measurement(saturation_rps=100.0, cut_short="at most 110/s, 180/s are to be beaten")
    assert lines(Objective(), measured(batch(1), short))[1].endswith(
        "; cut short: at most 110/s, 180/s are to be beaten, 14 s"
    )


def test_a_trial_without_a_measurement_says_why() -> None:
    assert lines(Objective(), infeasible(batch(1)))[1].startswith("Trial 1: infeasible: ")


def test_trials_that_overlap_are_one_line_each_when_they_start_and_when_they_end() -> None:
    text = io.StringIO()
    display = RichDisplay(Console(file=text, width=40))
    display.search_started(HEADER, n_done=0, max_trials=3)
    display.trial_started("Trial 1", batch(1), "far from\nthe others")
    display.trial_started("Trial 2", batch(8), "next")
    display.phase("Trial 1", "deploying")
    broken = not_measured(batch(8), TrialStatus.FAILED, "the node\nis lost")
    display.trial_ended("Trial 2", broken, wall_s=3.0, usd=0.5)
    trial = measured(batch(1), Measurement(saturation_rps=100.0))
    display.trial_ended("Trial 1", trial, wall_s=9.0, usd=0.0125)
    display.close()
    told = "Trial 1: 100 requests/s at saturation; 7,200,000 requests per dollar"
    assert text.getvalue().splitlines()[1:] == [
        "Trial 1: batch_size=1 dtype=float32; why: far from the others",
        "Trial 2: batch_size=8 dtype=float32; why: next",
        "Trial 2: failed: the node is lost, 3 s, 0.50 USD",
        f"{told}, best so far, 9 s, 0.0125 USD",
    ]


def test_an_emulated_search_says_so_in_its_first_line() -> None:
    text = io.StringIO()
    display = RichDisplay(Console(file=text, width=200))
    display.search_started(replace(HEADER, emulated=True), n_done=0, max_trials=3)
    assert "; GPUs are emulated: rates are predicted, not measured" in text.getvalue()


def test_an_emulated_trial_would_have_cost_what_is_said_on_real_gpus() -> None:
    text = io.StringIO()
    display = RichDisplay(Console(file=text, width=200))
    display.search_started(replace(HEADER, emulated=True), n_done=0, max_trials=3)
    display.trial_ended("Trial 1", infeasible(batch(1)), wall_s=3.0, usd=0.5)
    assert text.getvalue().endswith(", 3 s, 0.50 USD on real GPUs\n")


def test_an_emulated_search_stands_where_real_gpus_would_have_taken_it() -> None:
    trial = measured(batch(1), Measurement(saturation_rps=100.0))
    progress = SearchProgress(
        header=replace(HEADER, emulated=True),
        max_trials=3,
        best=value(trial, HEADER.objective, HEADER.pricing),
        usd=0.5,
        max_cost_usd=2.0,
    )
    assert spend(progress) == (
        "0 of 3 trials ended; would have spent 0.50 of 2.00 USD on real GPUs"
    )
    assert best_so_far(progress).startswith("Best so far: 7,200,000 requests per dollar, predicted")


def test_on_a_terminal_a_trial_is_told_as_a_whole_when_it_ends() -> None:
    text = io.StringIO()
    console = Console(file=text, width=200, force_terminal=True, color_system=None)
    display = RichDisplay(console, clock=lambda: 0.0)
    display.search_started(HEADER, n_done=0, max_trials=3)
    display.trial_started("Trial 1", batch(1), "next")
    display.phase("Trial 1", "warming up")
    assert "Trial 1  0 s  warming up  batch_size=1" in text.getvalue()
    display.trial_ended("Trial 1", infeasible(batch(1)), wall_s=9.0)
    told = text.getvalue()
    display.close()
    first = told.index("Trial 1: batch_size=1 dtype=float32")
    assert first < told.index("  why: next") < told.index("  infeasible: ")


class _Recorder(SilentDisplay):
    """Keeps the phases that it was told."""

    def __init__(self) -> None:
        self.phases: list[tuple[str, str]] = []

    def phase(self, label: str, text: str) -> None:
        self.phases.append((label, text))


class _Trial:
    """What a callback sees of a trial of Tune's."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id


def test_a_phase_is_told_of_its_own_trial_and_not_once_that_has_ended() -> None:
    display = _Recorder()
    callback = PhaseCallback(display, {"a1": "Trial 1", "b2": "Trial 2"}.get)
    for trial_id, result in (
        ("b2", {"phase": "deploying"}),
        ("a1", {"phase": "waiting"}),
        ("a1", {"observation": "{}"}),
        ("gone", {"phase": "removing"}),
    ):
        callback.on_trial_result(1, [], _Trial(trial_id), result)
    assert display.phases == [("Trial 2", "deploying"), ("Trial 1", "waiting")]


def test_tune_keeps_a_callback_without_its_display() -> None:
    callback = PhaseCallback(RichDisplay(Console()), lambda _: "Trial 1")
    kept: PhaseCallback = pickle.loads(pickle.dumps(callback))  # noqa: S301 - our own
    kept.on_trial_result(1, [], _Trial("a1"), {"phase": "deploying"})


def test_every_display_of_a_group_is_told_the_same() -> None:
    texts = io.StringIO(), io.StringIO()
    group = DisplayGroup(*(RichDisplay(Console(file=each, width=200)) for each in texts))
    group.search_started(HEADER, n_done=0, max_trials=3)
    group.note("a note")
    group.suggested(0.01)
    group.trial_started("Trial 1", batch(1), "next")
    group.phase("Trial 1", "deploying")
    trial = measured(batch(1), Measurement(saturation_rps=100.0))
    group.trial_ended("Trial 1", trial, wall_s=9.0, usd=0.25, is_fresh=True)
    group.close()
    first, second = (each.getvalue() for each in texts)
    assert first == second
    assert first.endswith(
        "Trial 1: 100 requests/s at saturation; 7,200,000 requests per dollar, 9 s, 0.25 USD\n"
    )
