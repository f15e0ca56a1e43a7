from pathlib import Path
from typing import Any

import pytest

from falcon_ray.report.record import SearchHeader
from falcon_ray.runtime.model_reference import ModelReference
from falcon_ray.runtime.references import Reference
from falcon_ray.runtime.search_plan import describe_plan
from falcon_ray.runtime.search_request import SearchRequest, request_of
from falcon_ray.runtime.search_setup import CheckedTarget, search_header
from falcon_ray.runtime.target import ModelTarget
from falcon_ray.space.configuration import ConfigurationSpace
from falcon_ray.space.defaults import NodeShape

TWO_CORES = NodeShape(cpus=2, ram_gib=7.6, gpu_type=None, n_gpus=0)
SMALL = ConfigurationSpace.of(
    {"cpu_cores": [1, 2], "batch_size": [1, 8], "replicas": [1, 2]}, ["cpu_cores * replicas <= 2"]
)
TARGET = CheckedTarget(
    ModelTarget(ModelReference(Reference("/home/me/tiny.py:make", "/home/me"))),
    request=None,
    space=SMALL,
)


def header(request: SearchRequest) -> SearchHeader:
    return search_header(request, TARGET, [TWO_CORES], directory=Path("/home/me"))


def plan_lines(**values: object) -> list[str]:
    request = request_of({"model": "tiny.py:make", **values})
    return describe_plan(request, header(request))


def load_line(**values: object) -> str:
    (line,) = [each for each in plan_lines(**values) if each.startswith("load: ")]
    return line


def test_a_dry_run_says_the_space_and_what_it_would_take() -> None:
    assert plan_lines(max_trials=3, usd_per_hour=0.5) == [
        "8 combinations of cpu_cores {1, 2}, batch_size {1, 8}, replicas {1, 2}",
        "constraint: cpu_cores * replicas <= 2",
        "6 candidates; baseline: cpu_cores=1 batch_size=1 replicas=1",
        "load: scenario offline, path handle",
        "confirmation: the best two and the baseline are measured again, in turn, 2 rounds",
        # 6 s of deployment, 4 of warm-up, 8 of measurement and 2 of the model alone; three
        # trials and 2 * 3 of the confirmation: 9 * 20 s = 180 s.
        "9 deployments of at most 20 s each without load points: about 3.0 minutes",
        "priced as cpu-node-2-8gib: 0.5 USD/h (given)",
    ]


@pytest.mark.parametrize(
    ("values", "n"),
    [
        ({"max_trials": 3, "confirm": False}, 3),
        ({"max_trials": 50, "confirm": False}, 6),  # the space has no more
        ({"max_trials": 50, "confirm_rounds": 1}, 9),  # the best two and the baseline
        ({"max_trials": 1, "confirm_rounds": 3}, 7),  # 1 + 3 * (the best and the baseline)
    ],
)
def test_a_dry_run_counts_the_deployments(values: dict[str, Any], n: int) -> None:
    assert any(line.startswith(f"{n} deployments") for line in plan_lines(**values))


def test_a_dry_run_says_what_is_measured_again() -> None:
    said = "confirmation: the best and the baseline are measured again, in turn, 1 round"
    assert said in plan_lines(max_trials=1, confirm_rounds=1)
    assert not any(line.startswith("confirmation") for line in plan_lines(confirm=False))


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"load_path": "replica"}, "load: scenario offline, path replica"),
        ({"scenario": "single_stream"}, "load: scenario single_stream, path handle"),
        (
            {"latency_budget_ms": 50},
            (
                "load: scenario server, path handle, random arrivals (Poisson), up to the highest "
                "rate within the limit"
            ),
        ),
        (
            {"latency_budget_ms": 50, "offered_rps": 40, "load_path": "http"},
            "load: scenario server, path http, random arrivals (Poisson), at 40/s",
        ),
    ],
)
def test_a_dry_run_says_the_load(values: dict[str, Any], line: str) -> None:
    assert load_line(**values) == line


def test_a_dry_run_says_what_is_in_a_trace(tmp_path: Path) -> None:
    trace = tmp_path / "arrivals.txt"
    trace.write_text("0\n0.5\n2\n", encoding="utf-8")
    # Two gaps in two seconds.
    assert load_line(latency_budget_ms=50, arrival_trace=trace) == (
        "load: scenario server, path handle, arrivals as in a trace of 3 (1/s on average), up to "
        "the highest rate within the limit"
    )


def test_a_dry_run_says_what_certifying_an_slo_costs() -> None:
    lines = plan_lines(latency_budget_ms=50.0)
    (line,) = [each for each in lines if each.startswith("certifying")]
    # The last of five looks may be wrong in 4 % of all cases: 0.99 ** 321 < 0.04 < 0.99 ** 320, and
    # the first fifth does not count: 321 / 0.8 = 401.25. (402 + 3 * sqrt(402)) / 120 s = 3.85/s.
    assert line == (
        "certifying p99 takes 402 requests per load point, none of them over the limit: "
        "40.2 s at 10/s, 4.02 s at 100/s, 0.402 s at 1000/s; up to 8 load points a trial, each "
        "of at most 30 s, or at low rates 120 s; the lowest rate that can be certified is 3.85/s"
    )


def test_a_dry_run_says_what_certifying_one_rate_costs() -> None:
    # 402 requests / 40 requests/s = 10.05 s
    said = "certifying p99 takes 402 requests, none of them over the limit: 10.1 s at 40/s"
    assert f"{said}; the load lasts at most 30 s" in (
        plan_lines(latency_budget_ms=50.0, offered_rps=40)
    )


@pytest.mark.parametrize("values", [{}, {"scenario": "single_stream", "latency_budget_ms": 50.0}])
def test_where_no_rate_is_offered_a_dry_run_certifies_none(values: dict[str, Any]) -> None:
    assert not any(line.startswith("certifying") for line in plan_lines(**values))
