import math

import numpy as np
import pytest

from falcon_ray.errors import InputError
from falcon_ray.space.configuration import FloatArray
from falcon_ray.space.objective import Slo
from falcon_ray.trial.arrivals import Poisson
from falcon_ray.trial.capacity import CapacitySearch
from falcon_ray.trial.load_points import CAPACITY_STEP
from falcon_ray.trial.slo_rule import SloRule
from falcon_ray.trial.statistics import SloVerdict, design_effect
from tests.fakes import batch_completions_s

SLO = Slo(latency_budget_ms=40.0)
RULE = SloRule()
SECONDS = 30.0
SERVICE_S, BATCH = 0.01, 8


def latencies_ms(
    rate_rps: float, rng: np.random.Generator, seconds: float = SECONDS
) -> tuple[FloatArray, FloatArray]:
    """When requests of a known service were done, and how long they took."""
    due_s = Poisson().draw(rate_rps, seconds, rng)
    done_s = batch_completions_s(due_s, BATCH, SERVICE_S)
    return done_s, (done_s - due_s) * 1e3


def offer(rate_rps: float, rng: np.random.Generator) -> SloVerdict:
    """A load that is looked at as a trial does."""
    done_s, latency_ms = latencies_ms(rate_rps, rng)
    for look_s in RULE.looks_s(SECONDS):
        error = RULE.error(last=look_s == SECONDS)
        verdict = RULE.judge(latency_ms[done_s <= look_s], SLO, error=error)
        if verdict is not SloVerdict.UNDECIDED:
            return verdict
    return SloVerdict.UNDECIDED


def true_capacity_rps() -> float:
    """Where 1 % of very many requests are over the limit, by bisection."""
    low_rps, high_rps = 400.0, 800.0
    for _ in range(9):
        rate_rps = (low_rps + high_rps) / 2
        latency_ms = latencies_ms(rate_rps, np.random.default_rng(0), 300.0)[1]
        if np.mean(latency_ms > SLO.latency_budget_ms) <= 0.01:
            low_rps = rate_rps
        else:
            high_rps = rate_rps
    return low_rps


def test_capacity_is_found_to_5_percent_in_8_loads_of_a_known_service() -> None:
    true_rps = true_capacity_rps()
    found = list[float]()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        search = CapacitySearch(BATCH / SERVICE_S, resolution=CAPACITY_STEP)
        n_points = 0
        while (rate_rps := search.next_rate()) is not None:
            search.record(rate_rps, offer(rate_rps, rng))
            n_points += 1
        assert n_points <= 8
        assert search.capacity_rps is not None
        found.append(search.capacity_rps / true_rps)
    within = np.abs(np.array(found) - 1) <= 0.05
    assert np.mean(within) >= 0.9
    assert max(found) <= 1.07


def test_looks_double_up_to_the_end_of_the_load() -> None:
    assert RULE.looks_s(30.0) == (1.875, 3.75, 7.5, 15.0, 30.0)


def test_the_error_is_spread_over_the_looks_and_most_is_kept_for_the_last() -> None:
    errors = [RULE.error(last=False)] * 4 + [RULE.error(last=True)]
    assert sum(errors) == pytest.approx(0.05)
    assert errors[0] == pytest.approx(0.0025)  # a fifth of 5 % over four looks
    assert SloRule(n_looks=1).error(last=True) == pytest.approx(0.05)


def test_an_early_look_takes_more_requests_than_the_last() -> None:
    early, last = RULE.error(last=False), RULE.error(last=True)
    # A fifth is left out: 0.99 ** 321 = 0.0397 is below 4 % for 401.25, and for 0.25 % it takes
    # 597 of 746.25.
    assert RULE.judge(np.full(402, 1.0), SLO, error=last) is SloVerdict.MET
    assert RULE.judge(np.full(402, 1.0), SLO, error=early) is SloVerdict.UNDECIDED
    assert RULE.judge(np.full(747, 1.0), SLO, error=early) is SloVerdict.MET


def test_requests_to_certify_are_those_of_the_last_look_and_the_ones_left_out() -> None:
    needed, last = RULE.requests_to_certify(SLO), RULE.error(last=True)
    assert needed == 402  # 321 / 0.8 = 401.25
    assert RULE.judge(np.full(needed, 1.0), SLO, error=last) is SloVerdict.MET
    assert RULE.judge(np.full(needed - 1, 1.0), SLO, error=last) is SloVerdict.UNDECIDED


def test_a_load_can_be_met_until_too_many_that_count_are_over_the_limit() -> None:
    latency_ms = np.full(1000, 1.0)
    latency_ms[450::100] = 99.0  # 6 of the 1000 so far, all beyond the first fifth of 2000
    # Of 1600 that count, 6 over the limit are met at 4 %: at a share of 1 % fewer than 7 of 16
    # come by chance in 0.4 % of all loads.
    assert RULE.can_still_be_met(latency_ms, SLO, n_to_come=1000)
    latency_ms[430::30] = 99.0
    assert not RULE.can_still_be_met(latency_ms, SLO, n_to_come=1000)
    # All of them lie in the fifth that is left out once 4000 more have come.
    assert RULE.can_still_be_met(latency_ms, SLO, n_to_come=4000)


def test_a_simulated_load_that_is_given_up_would_not_have_been_certified() -> None:
    n_given_up, rate_rps = 0, 1.01 * true_capacity_rps()
    for seed in range(40):
        latency_ms = latencies_ms(rate_rps, np.random.default_rng(seed))[1]
        half = latency_ms.size // 2
        given_up = not RULE.can_still_be_met(
            latency_ms[:half], SLO, n_to_come=latency_ms.size - half
        )
        n_given_up += given_up
        verdict = RULE.judge(latency_ms, SLO, error=RULE.error(last=True))
        assert not given_up or verdict is not SloVerdict.MET
    assert n_given_up > 0


def test_the_first_requests_find_an_empty_queue_and_do_not_count() -> None:
    latency_ms = np.full(1000, 1.0)
    latency_ms[:200] = math.inf
    assert RULE.judge(latency_ms, SLO, error=0.05) is SloVerdict.MET


def test_requests_that_are_slow_together_count_for_less() -> None:
    together, apart = np.full(2000, 1.0), np.full(2000, 1.0)
    together[1000:1030] = apart[400::53] = 99.0  # 30 and 31 of the 1600 that count
    assert RULE.judge(apart, SLO, error=0.05) is SloVerdict.VIOLATED
    assert RULE.judge(together, SLO, error=0.05) is SloVerdict.UNDECIDED


def test_nothing_answered_decides_nothing() -> None:
    assert RULE.judge(np.empty(0), SLO, error=0.05) is SloVerdict.UNDECIDED


def test_a_design_effect_is_the_variance_between_stretches_over_that_by_chance() -> None:
    events = np.zeros(200, np.bool_)
    events[:10] = True
    # One of 20 stretches has all 10 events: variance 10 ** 2 / 20 = 5, by chance 0.5 * 0.95.
    assert design_effect(events) == pytest.approx(5 / (0.5 * 0.95))
    assert design_effect(np.zeros(200, np.bool_)) == 1.0
    assert design_effect(np.arange(200) % 10 == 0) == 1.0  # more even than chance is no credit


def test_senseless_rules_are_refused() -> None:
    with pytest.raises(InputError, match="n_looks must be at least 1"):
        SloRule(n_looks=0)
    with pytest.raises(InputError, match="early_share must lie"):
        SloRule(early_share=1.0)
    with pytest.raises(InputError, match="settling_share must lie"):
        SloRule(settling_share=1.0)
    with pytest.raises(InputError, match="confidence must lie"):
        SloRule(confidence=95.0)
