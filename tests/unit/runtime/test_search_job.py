from dataclasses import replace

import pytest

from falcon_ray.report.record import Conclusion, SearchRecord
from falcon_ray.runtime.search_job import is_complete
from falcon_ray.runtime.search_request import SearchRequest
from tests.unit.report.searches import batch, measured, measurement, search

CONCLUSION = Conclusion(
    recommended=batch(1), expected_gain=None, probability_of_better=None, n_trials=1
)


def ended(*, out_of_budget: bool) -> SearchRecord:
    """A search of one trial of three that has an end and a limit of 2 USD."""
    record = search([measured(batch(1), measurement(100.0))])
    conclusion = replace(CONCLUSION, out_of_budget=out_of_budget)
    return replace(record, conclusion=conclusion, max_cost_usd=2.0)


def asked(max_cost_usd: float | None) -> SearchRequest:
    return SearchRequest(model="zoo:tiny", max_trials=3, confirm=False, max_cost_usd=max_cost_usd)


@pytest.mark.parametrize(
    ("max_cost_usd", "complete"), [(2.0, True), (1.0, True), (2.01, False), (None, False)]
)
def test_a_search_that_its_limit_ended_goes_on_only_with_a_higher_one(
    *, max_cost_usd: float | None, complete: bool
) -> None:
    assert is_complete(ended(out_of_budget=True), asked(max_cost_usd)) is complete


def test_a_search_that_ended_otherwise_goes_on_until_its_trials_are_done() -> None:
    assert not is_complete(ended(out_of_budget=False), asked(2.0))


def test_a_search_that_its_limit_ended_still_lacks_its_confirmation() -> None:
    confirming = replace(asked(2.0), confirm=True, confirm_rounds=1)
    assert not is_complete(ended(out_of_budget=True), confirming)
