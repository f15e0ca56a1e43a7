import math
from dataclasses import replace

import pytest

from falcon_ray.errors import (
    ClusterError,
    FalconRayError,
    InputError,
    NothingFeasibleError,
    SearchInterruptedError,
)
from falcon_ray.report.contender import Standing
from falcon_ray.report.nothing_feasible import NothingFeasible
from falcon_ray.report.recommendation import Recommendation, recommend
from falcon_ray.report.record import Role, SearchRecord
from falcon_ray.report.valuation import Verdict, value
from falcon_ray.space.configuration import Configuration, ConfigurationSpace
from falcon_ray.space.objective import Objective
from falcon_ray.space.observation import Observation
from falcon_ray.space.workload import Scenario
from tests.unit.report.searches import (
    HEADER,
    PRICING,
    SLO,
    batch,
    failed,
    infeasible,
    measured,
    measurement,
    search,
)

SLO_HEADER = replace(HEADER, objective=SLO, capacity_step=0.05)

B1 = measured(batch(1), measurement(100.0))
B16 = measured(batch(16), measurement(140.0))
FRESH_B1 = measured(batch(1), measurement(100.0, spread=1.04))
FRESH_B16 = measured(batch(16), measurement(138.0, spread=1.03))


def found(record: SearchRecord) -> Recommendation:
    result = recommend(record)
    assert isinstance(result, Recommendation)
    return result


def nothing(record: SearchRecord) -> NothingFeasible:
    result = recommend(record)
    assert isinstance(result, NothingFeasible)
    return result


def under_slo(
    batch_size: int, capacity_rps: float | None, floor_latency_ms: float = 20.0
) -> Observation:
    return measured(
        batch(batch_size),
        measurement(300.0, capacity_rps=capacity_rps, floor_latency_ms=floor_latency_ms),
    )


def test_the_fresh_numbers_are_quoted_and_not_the_trials() -> None:
    """138 requests/s * 3600 s/h / 0.05 USD/h = 9,936,000; the interval as in test_comparison."""
    best = found(search([B1, B16], [(Role.BEST, FRESH_B16), (Role.BASELINE, FRESH_B1)]))
    assert best.configuration == batch(16)
    assert (best.standing, best.is_baseline) == (Standing.CONFIRMED, False)
    assert best.requests_per_dollar == pytest.approx(9_936_000)
    assert best.requests_per_second == pytest.approx(138.0)
    assert (best.chosen.usd_per_hour, best.chosen.instance_type) == (pytest.approx(0.05), "c4")
    assert best.sentence == (
        "batch_size=16 serves 9,940,000 requests per dollar, "
        "38 % more than the baseline (95 % interval 31 % to 45 % from one deployment each)."
    )


def test_in_a_tie_the_baseline_is_kept() -> None:
    """hypot(ln 1.03, ln 1.04) = 0.04911; 1.02 e^-0.04911 = 0.9711, 1.02 e^0.04911 = 1.0713."""
    fresh = measured(batch(16), measurement(102.0, spread=1.03))
    best = found(search([B1, B16], [(Role.BEST, fresh), (Role.BASELINE, FRESH_B1)]))
    assert (best.configuration, best.is_baseline, best.gain) == (batch(1), True, None)
    assert best.sentence == (
        "Keep the baseline batch_size=1, which serves 7,200,000 requests per dollar: "
        "no difference from the baseline shown by batch_size=16 "
        "(2.0 % more, 95 % interval -2.9 % to 7.1 % from one deployment each)."
    )


def fresh(batch_size: int, *rates_rps: float) -> list[tuple[Role, Observation]]:
    """Fresh deployments whose intervals are so narrow that only their spread counts."""
    role = {1: Role.BASELINE, 8: Role.RUNNER_UP, 16: Role.BEST}[batch_size]
    return [(role, measured(batch(batch_size), measurement(r, spread=1.001))) for r in rates_rps]


B8 = measured(batch(8), measurement(130.0))


def test_the_spread_between_deployments_is_in_the_interval() -> None:
    """Rates r e^-0.01 and r e^0.01: squares 2 * 0.01^2 each, of three over 3 df, so s^2 = 0.0002.

    Dunnett's value for three groups of two is 3.8665; 3.8665 * 0.014142 * sqrt(1/2 + 1/2) =
    0.05468, and 1.4 e^-0.05468 = 1.3255, 1.4 e^0.05468 = 1.4787.
    """
    low, high = math.exp(-0.01), math.exp(0.01)
    confirmations = [
        *fresh(16, 140 * low, 140 * high),
        *fresh(8, 120 * low, 120 * high),
        *fresh(1, 100 * low, 100 * high),
    ]
    best = found(search([B1, B8, B16], confirmations))
    assert best.gain is not None
    assert (best.gain.value, best.gain.low, best.gain.high) == pytest.approx(
        (0.4, 0.3255, 0.4787), abs=2e-4
    )
    assert best.requests_per_second == pytest.approx(140.0)
    assert best.sentence == (
        "batch_size=16 serves 10,100,000 requests per dollar, 40 % more than the baseline "
        "(95 % interval 33 % to 48 %, 2 deployments each)."
    )


def test_the_runner_up_is_taken_when_it_is_better_afresh() -> None:
    """The root of 135 * 136 over 120 * 121 is 1.1245."""
    confirmations = [*fresh(16, 120, 121), *fresh(8, 135, 136), *fresh(1, 100, 101)]
    best = found(search([B1, B8, B16], confirmations))
    assert best.configuration == batch(8)
    assert best.note == (
        "Measured afresh, the runner-up batch_size=8 served 12 % more requests per dollar than "
        "the search's own choice batch_size=16."
    )


def test_equally_good_contenders_leave_the_choice_to_the_search() -> None:
    confirmations = [*fresh(8, 130, 131), *fresh(16, 130, 131), *fresh(1, 100, 101)]
    best = found(
        search([B1, B8, B16], [*confirmations[2:4], *confirmations[:2], *confirmations[4:]])
    )
    assert (best.configuration, best.note) == (batch(16), "")


def test_certified_rates_within_a_step_of_each_other_are_equally_good() -> None:
    """104 is 4 % above 100, and the step of certified rates is 5 %; 106 is above it."""
    trials = [under_slo(1, 50.0), under_slo(8, 100.0), under_slo(16, 110.0)]
    for runner_up_rps, chosen in ((104.0, 16), (106.0, 8)):
        confirmations = [
            (Role.BEST, under_slo(16, 100.0)),
            (Role.RUNNER_UP, under_slo(8, runner_up_rps)),
            (Role.BASELINE, under_slo(1, 50.0)),
        ]
        best = found(search(trials, confirmations, header=SLO_HEADER))
        assert best.configuration == batch(chosen)


def test_a_best_that_is_not_reproduced_leaves_the_runner_up() -> None:
    confirmations = [
        (Role.BEST, infeasible(batch(16), "out of memory")),
        *fresh(8, 130, 131),
        *fresh(1, 100, 101),
    ]
    best = found(search([B1, B8, B16], confirmations))
    assert (best.configuration, best.standing) == (batch(8), Standing.CONFIRMED)
    assert best.note == (
        "The search's own choice batch_size=16 was not reproduced when measured again: "
        "out of memory"
    )


def test_one_deployment_that_could_not_be_served_is_one_too_many() -> None:
    broken = (Role.BEST, infeasible(batch(16), "out of memory"))
    best = found(search([B1, B16], [*fresh(16, 140), broken]))
    assert best.standing is Standing.NOT_REPRODUCED
    assert "when measured again (in 1 of 2 deployments: out of memory)" in best.sentence


def test_a_best_that_is_not_reproduced_leaves_the_baseline_where_that_is_confirmed() -> None:
    """100 requests/s * 3600 s/h / 0.05 USD/h = 7,200,000."""
    broken = (Role.BEST, infeasible(batch(16), "out of memory"))
    best = found(search([B1, B16], [broken, (Role.BASELINE, FRESH_B1)]))
    assert (best.configuration, best.is_baseline) == (batch(1), True)
    assert (best.standing, best.gain) == (Standing.CONFIRMED, None)
    assert best.sentence == (
        "Keep the baseline batch_size=1, which serves 7,200,000 requests per dollar: "
        "batch_size=16 was not reproduced when measured again (out of memory)."
    )


@pytest.mark.parametrize("baseline", [infeasible(batch(1)), failed(batch(1))])
def test_where_neither_can_be_served_again_nothing_is_relied_on(baseline: Observation) -> None:
    confirmations = [(Role.BEST, infeasible(batch(16))), (Role.BASELINE, baseline)]
    best = found(search([B1, B16], confirmations))
    assert (best.configuration, best.standing) == (batch(16), Standing.NOT_REPRODUCED)
    assert "do not rely on it: nothing is exported" in best.sentence


def test_a_round_that_failed_leaves_a_wider_interval() -> None:
    """Rates of 16 and of the baseline as before, once without the second of the baseline.

    Two df from 16 and 8, whose s = 0.014142 as above; Dunnett's value for sizes 2, 2 and 1 is
    5.276, and 5.276 * 0.014142 * sqrt(1/2 + 1) = 0.09138.
    """
    low, high = math.exp(-0.01), math.exp(0.01)
    confirmations = [
        *fresh(16, 140 * low, 140 * high),
        *fresh(8, 120 * low, 120 * high),
        *fresh(1, 100),
        (Role.BASELINE, failed(batch(1))),
    ]
    best = found(search([B1, B8, B16], confirmations))
    assert best.gain is not None
    assert math.log((1 + best.gain.high) / 1.4) == pytest.approx(0.09138, abs=1e-4)
    assert best.sentence.endswith("2 and 1 deployments).")


def test_where_a_rate_is_given_the_price_decides() -> None:
    """Two replicas cost 0.1 USD/h and one 0.05: 0.1 / 0.05 - 1 = 100 % more requests a dollar."""
    one, two = (Configuration({"replicas": n, "dtype": "float32"}) for n in (1, 2))
    header = replace(
        HEADER,
        space=ConfigurationSpace.of({"replicas": [1, 2], "dtype": ["float32"]}),
        objective=Objective(SLO.slo, offered_rps=40.0),
        baseline=two,
    )
    served = [
        measured(each, measurement(100.0, capacity_rps=40.0, floor_latency_ms=20.0))
        for each in (one, two)
    ]
    confirmations = [(Role.BEST, served[0]), (Role.BASELINE, served[1])]
    best = found(search(served, confirmations, header=header))
    assert best.sentence == (
        "replicas=1 serves 2,880,000 requests per dollar at 40 requests/s with 99 % of requests "
        "within 50 ms, 100 % more than the baseline (by price alone)."
    )


def test_without_confirmation_the_trials_number_is_not_confirmed() -> None:
    best = found(search([B1, B16]))
    assert (best.standing, best.gain) == (Standing.NOT_CONFIRMED, None)
    assert best.sentence == (
        "batch_size=16 served 10,100,000 requests per dollar in its trial; "
        "not confirmed, because it was not measured again."
    )


def test_a_confirmation_that_failed_confirms_nothing() -> None:
    best = found(search([B1, B16], [(Role.BEST, failed(batch(16)))]))
    assert best.standing is Standing.NOT_CONFIRMED
    assert best.sentence.endswith("not confirmed, because the second trial failed: node lost.")


def test_a_best_that_cannot_be_served_again_is_not_relied_on() -> None:
    best = found(search([B1, B16], [(Role.BEST, infeasible(batch(16)))]))
    assert best.standing is Standing.NOT_REPRODUCED
    assert best.requests_per_dollar == pytest.approx(10_080_000)
    assert "but not when measured again (out of memory); do not rely on it" in best.sentence


def test_the_baseline_may_be_the_best() -> None:
    slow = measured(batch(8), measurement(90.0))
    best = found(search([B1, slow], [(Role.BEST, FRESH_B1)]))
    assert best.is_baseline
    assert best.sentence == (
        "batch_size=1 serves 7,200,000 requests per dollar and is the baseline: "
        "2 trials found nothing better."
    )


def test_a_baseline_that_is_better_after_all_is_recommended() -> None:
    """80 / 100 = 0.8 and hypot(ln 1.03, ln 1.04) = 0.04911: -24 % to -16 %."""
    fresh = measured(batch(16), measurement(80.0, spread=1.03))
    best = found(search([B1, B16], [(Role.BEST, fresh), (Role.BASELINE, FRESH_B1)]))
    assert (best.configuration, best.is_baseline) == (batch(1), True)
    assert best.sentence == (
        "Keep the baseline batch_size=1, which serves 7,200,000 requests per dollar: measured "
        "again, batch_size=16 serves 20 % less than the baseline "
        "(95 % interval -24 % to -16 % from one deployment each)."
    )


def test_without_a_baseline_the_rate_has_its_interval() -> None:
    """138 / 1.03 * 72,000 = 9,650,000 and 138 * 1.03 * 72,000 = 10,230,000."""
    header = replace(HEADER, baseline=None)
    best = found(search([B1, B16], [(Role.BEST, FRESH_B16)], header=header))
    assert best.sentence == (
        "batch_size=16 serves 9,940,000 requests per dollar "
        "(95 % interval 9,650,000 to 10,200,000 within one deployment)."
    )


def test_without_a_baseline_the_interval_holds_the_spread_between_deployments() -> None:
    """s = 0.014142 with 1 df, t = 12.706: 12.706 * 0.014142 / sqrt(2) = 0.12706.

    140 * 72,000 = 10,080,000; times e^-0.12706 it is 8,880,000, times e^0.12706 11,400,000.
    """
    header = replace(HEADER, baseline=None)
    rates = 140 * math.exp(-0.01), 140 * math.exp(0.01)
    best = found(search([B1, B16], fresh(16, *rates), header=header))
    assert best.sentence == (
        "batch_size=16 serves 10,100,000 requests per dollar "
        "(95 % interval 8,880,000 to 11,400,000, 2 deployments)."
    )


@pytest.mark.parametrize(
    ("baseline", "told"),
    [
        (None, "; the baseline was not measured again, so there is no comparison."),
        (failed(batch(1)), "; there is no comparison, the baseline's trial failed: node lost."),
        (infeasible(batch(1)), "; the baseline cannot do that (out of memory)."),
    ],
)
def test_a_baseline_without_a_measurement_is_no_comparison(
    baseline: Observation | None, told: str
) -> None:
    confirmations = [(Role.BEST, FRESH_B16)]
    if baseline is not None:
        confirmations.append((Role.BASELINE, baseline))
    best = found(search([B1, B16], confirmations))
    assert best.gain is None
    assert best.sentence == f"batch_size=16 serves 9,940,000 requests per dollar{told}"


def test_what_the_search_confirmed_is_chosen_over_a_higher_raw_score() -> None:
    lucky = measured(batch(8), measurement(150.0))
    best = found(search([B1, lucky, B16], [(Role.BEST, FRESH_B16)]))
    assert best.configuration == batch(16)


def test_a_confirmation_before_later_trials_does_not_choose() -> None:
    later = measured(batch(8), measurement(150.0))
    record = search([B1, B16, later], [(Role.BEST, FRESH_B16)], n_trials_before=2)
    best = found(record)
    assert (best.configuration, best.standing) == (batch(8), Standing.NOT_CONFIRMED)


def test_infeasible_and_failed_trials_are_never_chosen() -> None:
    assert found(search([infeasible(batch(8)), failed(batch(16)), B1])).configuration == batch(1)


def test_under_an_slo_the_certified_rate_is_compared_at_its_resolution() -> None:
    """120 * 3600 / 0.05 = 8,640,000; 120/105 - 1 = 14 % to 126/100 - 1 = 26 %."""
    trials = [under_slo(1, 100.0), under_slo(16, 120.0)]
    confirmations = [(Role.BEST, trials[1]), (Role.BASELINE, trials[0])]
    best = found(search(trials, confirmations, header=SLO_HEADER))
    assert best.sentence == (
        "batch_size=16 serves 8,640,000 requests per dollar with 99 % of requests within 50 ms, "
        "20 % more than the baseline (14 % to 26 % at the 5 % resolution of certified rates, "
        "one deployment each)."
    )


def test_over_several_deployments_certified_rates_keep_their_step() -> None:
    """Equal rates have no spread, so the step alone is left: 1.2 / 1.05 to 1.2 * 1.05."""
    trials = [under_slo(1, 100.0), under_slo(16, 120.0)]
    confirmations = [(Role.BEST, trials[1]), (Role.BASELINE, trials[0])] * 2
    best = found(search(trials, confirmations, header=SLO_HEADER))
    assert best.sentence.endswith(
        "20 % more than the baseline (95 % interval 14 % to 26 %, 2 deployments each, "
        "5 % steps of certified rates)."
    )


def test_a_configuration_without_a_certified_rate_has_no_score() -> None:
    trials = [under_slo(1, 100.0), under_slo(16, None, floor_latency_ms=80.0)]
    assert found(search(trials, header=SLO_HEADER)).configuration == batch(1)
    valued = value(trials[1], SLO, PRICING)
    assert (valued.verdict, valued.score) == (Verdict.OVER_SLO, None)
    assert valued.reason == "p99 80 ms at the lightest load, over the budget of 50 ms"


def test_a_baseline_over_the_slo_says_by_how_much() -> None:
    trials = [under_slo(1, None, floor_latency_ms=80.0), under_slo(16, 120.0)]
    confirmations = [(Role.BEST, trials[1]), (Role.BASELINE, trials[0])]
    best = found(search(trials, confirmations, header=SLO_HEADER))
    assert best.sentence.endswith(
        "; the baseline cannot do that (p99 80 ms at the lightest load, over the budget of 50 ms)."
    )


def test_nothing_feasible_names_the_closest_and_by_how_much_it_misses() -> None:
    """62 - 50 = 12 ms, which is 24 % of 50 ms."""
    trials = [under_slo(16, None, 90.0), under_slo(1, None, 62.0), infeasible(batch(8))]
    result = nothing(search(trials, header=SLO_HEADER))
    assert result.closest is not None
    assert result.closest.configuration == batch(1)
    assert result.excess_ms == pytest.approx(12.0)
    assert result.sentence == (
        "None of 3 trials served 99 % of requests within 50 ms; closest was batch_size=1, "
        "12 ms (24 %) over at the lightest load; raise the latency budget to 62 ms or more, "
        "or widen the space."
    )
    assert isinstance(result.error, NothingFeasibleError)
    assert (str(result.error), result.error.exit_code) == (result.sentence, 3)


def test_a_latency_within_the_budget_that_was_not_certified_asks_for_more_requests() -> None:
    result = nothing(search([under_slo(1, None, 45.0)], header=SLO_HEADER))
    assert result.excess_ms == pytest.approx(-5.0)
    assert "with 45 ms at the lightest load, but too few requests" in result.sentence


@pytest.mark.parametrize(
    ("trials", "error_type", "told"),
    [
        ([], SearchInterruptedError, "No trial has ended yet"),
        ([failed(batch(1)), failed(batch(8))], ClusterError, "All 2 trials failed .* node lost"),
        ([infeasible(batch(1)), failed(batch(8))], NothingFeasibleError, "None of 2 .* out of mem"),
        ([under_slo(1, None, math.inf)], NothingFeasibleError, "None of 1 .* no request succeeded"),
    ],
)
def test_why_nothing_was_measured_decides_the_error(
    trials: list[Observation], error_type: type[FalconRayError], told: str
) -> None:
    result = nothing(search(trials, header=SLO_HEADER))
    assert (result.closest, result.error_type) == (None, error_type)
    with pytest.raises(error_type, match=told):
        raise result.error


def test_a_configuration_that_no_priced_instance_holds_is_an_input_error() -> None:
    huge = measured(Configuration({"cpu_cores": 64}), measurement(100.0))
    with pytest.raises(InputError, match="no priced instance holds cpu_cores=64"):
        value(huge, HEADER.objective, PRICING)


def test_everything_is_told_where_the_space_left_no_choice() -> None:
    header = replace(HEADER, space=ConfigurationSpace.of({"batch_size": [1], "dtype": ["float32"]}))
    assert found(search([B1], header=header)).sentence.startswith("batch_size=1 dtype=float32")


def with_verdict(verdict: str) -> Observation:
    found = measurement(300.0, floor_latency_ms=45.0)
    return measured(batch(1), replace(found, slo_verdict=verdict))


def test_failed_requests_are_not_taken_for_too_few() -> None:
    violated = with_verdict("violated")
    told = nothing(search([violated], header=SLO_HEADER)).sentence
    for text in (told, value(violated, SLO, PRICING).reason):
        assert "too many requests failed or were late" in text
        assert "too few" not in text


def test_too_few_requests_to_certify_say_what_takes_fewer() -> None:
    told = nothing(search([with_verdict("undecided")], header=SLO_HEADER)).sentence
    assert "too few requests to certify it; give a lower --latency-percentile" in told


def test_a_single_stream_without_a_rate_has_a_reason() -> None:
    alone = Objective(scenario=Scenario.SINGLE_STREAM)
    assert value(B1, alone, PRICING).reason == "single_stream_rps could not be measured"
    assert "because: single_stream_rps could not" in (
        nothing(search([B1], header=replace(HEADER, objective=alone))).sentence
    )


def test_a_single_stream_has_the_interval_of_its_own_rate() -> None:
    """20 * 72,000 = 1,440,000; 19 * 72,000 = 1,368,000 and 21 * 72,000 = 1,512,000."""
    lone = replace(
        measurement(100.0),
        single_stream_rps=20.0,
        single_stream_rps_ci_low=19.0,
        single_stream_rps_ci_high=21.0,
    )
    header = replace(HEADER, objective=Objective(scenario=Scenario.SINGLE_STREAM), baseline=None)
    observation = measured(batch(16), lone)
    best = found(search([observation], [(Role.BEST, observation)], header=header))
    assert "(95 % interval 1,370,000 to 1,510,000 within one deployment)" in best.sentence
