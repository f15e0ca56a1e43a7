from dataclasses import replace

import pytest

from falcon_ray.errors import OverBudgetError
from falcon_ray.report.record import InterruptedConfirmation, InterruptedTrial, Role, SearchRecord
from falcon_ray.runtime.search_spend import SearchSpend
from falcon_ray.space.observation import Observation, TrialTimes
from falcon_ray.space.spend import TrialLimits
from tests.unit.report.searches import batch, failed, measured, measurement, search

# One replica costs 0.05 USD/h, and a quarter of its node.
USD_PER_S = 0.05 / 3600
SERVED = measured(batch(1), measurement(100.0))
LIMITS = TrialLimits(longest_trial_s=1000.0)


def books(limits: TrialLimits = LIMITS) -> SearchSpend:
    return SearchSpend(search(()), limits, max_cost_usd=None, confirm_rounds=0)


def cost(
    observation: Observation, *, held_at_most_s: float = 0.0, limits: TrialLimits = LIMITS
) -> float | None:
    spending = books(limits)
    spending.start("a", observation.configuration)
    usd = spending.end("a", observation, held_at_most_s=held_at_most_s)
    assert usd is None or spending.spent_usd == usd
    return usd


def test_a_trial_pays_for_the_seconds_that_it_held_its_resources_and_for_no_wait() -> None:
    times = TrialTimes(wait_s=900.0, deploy_s=10.0, warm_up_s=20.0, measure_s=30.0, teardown_s=4.0)
    assert cost(replace(SERVED, times=times), held_at_most_s=500.0) == pytest.approx(64 * USD_PER_S)


def test_a_trial_whose_process_died_pays_from_its_deployment_on() -> None:
    died = failed(batch(1))
    assert died.times == TrialTimes()
    assert cost(died, held_at_most_s=20.0) == pytest.approx(20 * USD_PER_S)
    assert cost(died, held_at_most_s=0.0) == 0.0


def test_a_trial_whose_nodes_never_came_costs_nothing_and_one_that_waited_in_vain_neither() -> None:
    waited = replace(failed(batch(1)), times=TrialTimes(wait_s=600.0))
    assert cost(replace(waited, never_began=True), held_at_most_s=600.0) == 0.0
    assert cost(waited, held_at_most_s=600.0) == 0.0


@pytest.mark.parametrize(
    ("longest_start_s", "start_usd"),
    # A whole node costs 0.2 USD/h.
    [(600.0, 90 * 0.2 / 3600), (0.0, 0.0)],
)
def test_the_start_of_a_node_is_charged_only_where_an_autoscaler_adds_nodes(
    longest_start_s: float, start_usd: float
) -> None:
    times = TrialTimes(wait_s=100.0, provision_s=90.0, deploy_s=10.0)
    limits = TrialLimits(longest_trial_s=1000.0, longest_start_s=longest_start_s)
    usd = cost(replace(SERVED, times=times), limits=limits)
    assert usd == pytest.approx(10 * USD_PER_S + start_usd)


def test_a_limit_too_low_for_a_single_trial_is_refused_before_the_first_only() -> None:
    # A trial costs 1000 s * 0.05 USD/h = 0.014 USD at worst; its confirmation twice the baseline
    # and twice the trial.
    def limited(record: SearchRecord) -> SearchSpend:
        return SearchSpend(record, LIMITS, max_cost_usd=0.02, confirm_rounds=2)

    with pytest.raises(OverBudgetError):
        limited(search(())).check()
    for record in (search([SERVED]), search([failed(batch(1))])):
        limited(record).check()
    assert "max_cost_usd" in limited(search([SERVED])).why_not(batch(8))


def test_what_is_left_of_a_limit_may_go_into_the_confirmation() -> None:
    def ended(usd: float) -> SearchSpend:
        record = search([SERVED])
        trials = tuple(replace(each, usd=usd) for each in record.trials)
        return SearchSpend(
            replace(record, trials=trials), LIMITS, max_cost_usd=0.05, confirm_rounds=1
        )

    assert ended(0.03).may_confirm(batch(1))  # 0.03 + 0.014 USD
    assert not ended(0.04).may_confirm(batch(1))


def test_what_was_interrupted_before_counts_at_worst() -> None:
    record = search(
        [SERVED], interrupted=(InterruptedTrial(number=2, configuration=batch(8), why=""),)
    )
    fresh = InterruptedConfirmation(role=Role.BEST, configuration=batch(8))
    record = replace(record, interrupted_confirmations=(fresh, fresh))
    spending = SearchSpend(record, LIMITS, max_cost_usd=None, confirm_rounds=0)
    # The trial without a recorded cost, the interrupted one and two fresh measurements.
    assert spending.spent_usd == pytest.approx(4 * 1000 * USD_PER_S)
