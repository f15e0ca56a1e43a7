import io
from dataclasses import replace

import pytest
from rich.console import Console

from falcon_ray.report.record import SearchHeader
from falcon_ray.runtime.progress import RichDisplay
from falcon_ray.space.objective import Objective, Slo
from falcon_ray.space.observation import Measurement, Observation
from falcon_ray.space.workload import Scenario
from tests.unit.report.searches import HEADER, SLO, batch, infeasible, measured


def lines(objective: Objective, *observations: Observation) -> list[str]:
    """What is shown of a search: its first line, then one for each trial."""
    text = io.StringIO()
    display = RichDisplay(Console(file=text, width=200))
    header: SearchHeader = replace(HEADER, objective=objective)
    display.search_started(header, n_done=0, max_trials=3)
    for observation in observations:
        display.trial_ended(observation, wall_s=14.4)
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
    assert lines(Objective(), trial, trial)[1:] == [
        "  100 requests/s at saturation (±2.0 %); 7,200,000 requests per dollar, best so far, 14 s",
        "  100 requests/s at saturation (±2.0 %); 7,200,000 requests per dollar, 14 s",
    ]


def test_what_is_best_so_far_counts_from_before_and_not_from_measuring_again() -> None:
    text = io.StringIO()
    display = RichDisplay(Console(file=text, width=200))
    # 100 requests/s * 3600 s/h / 0.05 USD/h = 7,200,000; 120 requests/s are 8,640,000.
    display.search_started(HEADER, n_done=1, max_trials=3, best=7_500_000.0)
    for rate_rps, is_fresh in ((100.0, False), (130.0, True), (120.0, False)):
        trial = measured(batch(1), Measurement(saturation_rps=rate_rps))
        display.trial_ended(trial, wall_s=1.0, is_fresh=is_fresh)
    said = ["best so far" in line for line in text.getvalue().splitlines()[1:]]
    assert said == [False, False, True]


def test_a_trial_under_an_slo_ends_with_the_verdict() -> None:
    met = Measurement(saturation_rps=100.0, capacity_rps=60.0, slo_verdict="met")
    violated = Measurement(saturation_rps=100.0, floor_latency_ms=80.0, slo_verdict="violated")
    first, second = lines(SLO, measured(batch(1), met), measured(batch(1), violated))[1:]
    # 60 requests/s * 3600 s/h / 0.05 USD/h
    assert first == (
        "  100 requests/s at saturation, 60/s certified; SLO met; 4,320,000 requests per dollar, "
        "best so far, 14 s"
    )
    assert second.startswith("  100 requests/s at saturation; SLO violated; p99 80 ms at the light")


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
    assert lines(Objective(), infeasible(batch(1)))[1].startswith("  infeasible: ")
