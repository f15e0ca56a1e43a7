"""What several replicas say of themselves, as one."""

import math
from typing import Any

import pytest

from falcon_ray.runtime.serve_backend import facts_of


def _said(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - of each field
    return {
        "service_time_ms": 10.0,
        "output_error": 0.0,
        "enforcement": {"cpu": "affinity", "compute": "mps", "memory": "torch"},
        "environment": {"device": "first"},
    } | changes


def test_the_median_time_and_the_largest_error_are_those_of_all() -> None:
    said = [
        _said(),
        _said(service_time_ms=30.0, output_error=0.2),
        _said(service_time_ms=12.0, output_error=None),
        _said(service_time_ms=None),
    ]
    facts = facts_of(said, {})
    assert (facts.service_time_ms, facts.output_error) == (12.0, 0.2)


def test_outputs_that_are_no_numbers_are_not_hidden_by_another_replica() -> None:
    error = facts_of([_said(output_error=math.nan), _said(output_error=0.5)], {}).output_error
    assert error is not None
    assert math.isnan(error)


@pytest.mark.parametrize(
    ("limit", "ways", "weakest"),
    [
        ("cpu", ("affinity", "threads"), "threads"),
        ("cpu", ("threads", "none"), "none"),
        ("compute", ("none", "mps"), "none"),
        ("memory", ("torch", "torch"), "torch"),
    ],
)
def test_a_limit_is_as_strong_as_in_the_weakest_replica(
    limit: str, ways: tuple[str, str], weakest: str
) -> None:
    facts = facts_of([_said(enforcement={limit: way}) for way in ways], {})
    assert facts.enforcement == {limit: weakest}


def test_a_limit_that_one_replica_does_not_speak_of_is_none_there() -> None:
    said = [_said(enforcement={"cpu": "affinity"}), _said(enforcement={})]
    assert facts_of(said, {}).enforcement == {"cpu": "none"}


def test_a_warning_of_any_replica_is_kept() -> None:
    said = [_said(), _said(environment={"device": "second", "warning": "shared"})]
    environment = facts_of(said, {"ray": "2"}).environment
    assert environment == {"device": "first", "warning": "shared", "ray": "2"}
