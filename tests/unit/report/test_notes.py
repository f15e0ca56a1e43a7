from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from falcon_ray.report.notes import notes
from falcon_ray.report.recommendation import recommend
from falcon_ray.report.record import Role, SearchHeader, SearchRecord
from falcon_ray.space.configuration import Configuration, ConfigurationSpace
from falcon_ray.space.cost import Pricing
from falcon_ray.space.observation import Measurement, Observation
from tests.unit.report.searches import (
    HEADER,
    SLO,
    batch,
    failed,
    gpu_instance,
    measured,
    measurement,
    search,
)

SLO_HEADER = replace(HEADER, objective=SLO, capacity_step=0.05)


def told(record: SearchRecord, directory: Path | None = None) -> str:
    return "\n".join(notes(record, recommend(record), directory))


def with_enforcement(size: int, enforcement: Mapping[str, str]) -> Observation:
    return measured(batch(size), replace(measurement(100.0), enforcement=enforcement))


def under_slo(size: int, verdict: str, capacity_rps: float | None) -> Observation:
    found = measurement(300.0, capacity_rps=capacity_rps, floor_latency_ms=20.0)
    return measured(batch(size), replace(found, slo_verdict=verdict))


def test_the_verdict_on_every_trial_is_told() -> None:
    trials = [under_slo(1, "met", 90.0), under_slo(8, "violated", None), under_slo(16, "met", 95.0)]
    text = told(search(trials, header=SLO_HEADER))
    assert "SLO by trial: met in 1, 3; violated in 2." in text
    assert "Trial 2, violated: p99 20 ms at the lightest load" in text
    told_of_rates = (
        "the next rate that was tried, at most 5 % higher, was not certified (trials 1, 3)."
    )
    assert told_of_rates in text


def test_a_certified_rate_of_a_trial_that_was_cut_short_is_a_lower_bound() -> None:
    cut = measured(
        batch(8),
        replace(measurement(300.0, capacity_rps=60.0), slo_verdict="met", cut_short="late"),
    )
    text = told(search([under_slo(1, "met", 90.0), cut], header=SLO_HEADER))
    assert "at most 5 % higher, was not certified (trial 1)." in text
    assert "Certified rates of trial 2: lower bounds" in text


def test_without_an_slo_there_is_no_verdict() -> None:
    assert "SLO" not in told(search([measured(batch(1), measurement(100.0))]))


def test_the_way_of_the_load_is_told() -> None:
    over_http = replace(measurement(100.0), load_path="http", n_drivers=4)
    text = told(search([measured(batch(1), over_http), measured(batch(8), measurement(90.0))]))
    assert "Load: through Serve's HTTP proxy (trial 1), closed loop with every queue full." in text
    assert "Load: through a Serve deployment handle (trial 2), closed loop" in text
    assert "Drivers, where more than one sent the load: 4 in 1." in text


def test_a_compute_limit_that_no_dimension_asks_for_is_not_missed() -> None:
    enforcement = {"cpu": "affinity", "memory": "none", "compute": "none"}
    text = told(search([with_enforcement(1, enforcement)]))
    assert "Limits: cpu affinity, memory none." in text


def test_a_gpu_share_that_nothing_enforces_is_told() -> None:
    space = ConfigurationSpace.of({"gpu_type": ["T4"], "gpu_share": [0.5, 1.0]})
    header: SearchHeader = replace(
        HEADER, space=space, baseline=None, pricing=Pricing((gpu_instance("g4", "T4", 0.5),))
    )
    enforcement = {"cpu": "affinity", "memory": "torch", "compute": "none"}
    found = replace(measurement(100.0), enforcement=enforcement)
    half = Configuration({"gpu_type": "T4", "gpu_share": 0.5})
    text = told(search([measured(half, found)], header=header))
    assert "Limits: cpu affinity, memory torch; not enforced: compute." in text


def test_limits_that_differ_between_trials_are_told_apart() -> None:
    trials = [with_enforcement(1, {"cpu": "affinity"}), with_enforcement(8, {"cpu": "threads"})]
    text = told(search(trials))
    assert "Limits (trial 1): cpu affinity." in text
    assert "Limits (trial 2): cpu threads." in text


def test_the_environment_is_told_without_what_was_searched() -> None:
    def on(threads: str) -> Measurement:
        facts = {"device": "cpu AVX2", "torch": "2.9.1", "threads": threads, "dtype": "float32"}
        facts |= {"cores": threads} | ({"warning": "no daemon"} if threads == "2" else {})
        return replace(measurement(100.0), environment=facts)

    text = told(search([measured(batch(1), on("1")), measured(batch(8), on("2"))]))
    assert "Environment: device cpu AVX2, torch 2.9.1, threads 1 or 2, ray 2.60.0." in text
    assert "Warning in trial 2: no daemon" in text


def test_a_trial_that_was_cut_short_says_why() -> None:
    cut = replace(measurement(50.0), cut_short="the incumbent is out of reach")
    text = told(search([measured(batch(1), measurement(100.0)), measured(batch(8), cut)]))
    assert "Cut short, the incumbent is out of reach: 2." in text
    over = told(search([measured(batch(8), cut)], header=SLO_HEADER))
    assert "Trial 1, cut short: the incumbent is out of reach" in over


def test_a_load_that_could_not_keep_up_is_a_failure_with_its_reason() -> None:
    late = failed(batch(8), "client-limited: the drivers were 9 ms late")
    text = told(search([measured(batch(1), measurement(100.0)), late]))
    assert "Trial 2, failed: client-limited: the drivers were 9 ms late" in text


def test_the_model_s_own_rate_is_that_of_the_trial_where_confirmations_lack_it() -> None:
    """140 of 280 is 50 %."""
    trial = measured(batch(16), measurement(140.0, model_rps=280.0))
    text = told(search([trial], [(Role.BEST, measured(batch(16), measurement(139.0)))]))
    assert "Serve's path delivers 140 of the 280 requests/s" in text
    assert "(50 %)" in text


@pytest.mark.parametrize("n_files", [0, 2])
def test_raw_requests_are_the_last_line_where_there_are_any(tmp_path: Path, n_files: int) -> None:
    (tmp_path / "requests").mkdir()
    for number in range(n_files):
        (tmp_path / "requests" / f"trial-{number}.parquet").touch()
    lines = list(notes(search([]), recommend(search([])), tmp_path))
    expected = [f"Raw requests: 2 Parquet files in {tmp_path}/requests."] * (n_files > 0)
    assert [line for line in lines if line.startswith("Raw")] == expected
    assert lines[-1:] == expected or n_files == 0
