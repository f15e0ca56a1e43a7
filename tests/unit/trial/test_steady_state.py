import math

import numpy as np
import pytest

from falcon_ray.errors import InputError
from falcon_ray.space.configuration import FloatArray
from falcon_ray.trial.known_service import BatchTimes, KnownService
from falcon_ray.trial.requests import RequestLog
from falcon_ray.trial.statistics import Estimate
from falcon_ray.trial.steady_state import (
    PrecisionRule,
    PrecisionVerdict,
    WarmUpRule,
    WarmUpVerdict,
    steady,
)

BATCH = 8
POLL_S = 0.25


def log_of(done_s: FloatArray, *, ok: bool = True) -> RequestLog:
    return RequestLog(
        intended_s=done_s, sent_s=done_s, done_s=done_s, ok=np.full(done_s.size, ok, np.bool_)
    )


def known(
    *,
    batch_s: float,
    noise_cv: float,
    noise_correlation: float = 0.0,
    depth: float = 0.0,
    recovers_in_s: float = 1.0,
    seed: int,
) -> FloatArray:
    """Completions of a service with a known answer, for 21 s."""
    law = KnownService(
        batch_size=BATCH,
        service_s=batch_s,
        noise_cv=noise_cv,
        noise_correlation=noise_correlation,
        warm_up_depth=depth,
        warm_up_batches=recovers_in_s / batch_s,
    )
    times_s = BatchTimes(law, np.random.default_rng(seed)).take(round(26.0 / batch_s))
    done_s = np.repeat(np.cumsum(times_s), BATCH)
    return done_s[done_s < 21.0]


@pytest.mark.parametrize(
    ("batch_s", "noise_cv", "noise_correlation", "depth", "recovers_in_s"),
    [
        (0.05, 0.05, 0.0, 0.0, 1.0),
        (0.02, 0.1, 0.5, 0.0, 1.0),
        (0.02, 0.05, 0.0, 0.2, 1.0),
        (0.05, 0.1, 0.5, 0.2, 1.0),
        (0.05, 0.1, 0.0, 0.2, 2.0),
        (0.02, 0.1, 0.5, 0.2, 2.0),
    ],
)
def test_the_interval_of_a_measurement_covers_the_truth_in_90_of_100_runs(
    batch_s: float, noise_cv: float, noise_correlation: float, depth: float, recovers_in_s: float
) -> None:
    covered, errors = 0, list[float]()
    for seed in range(100):
        done_s = known(
            batch_s=batch_s,
            noise_cv=noise_cv,
            noise_correlation=noise_correlation,
            depth=depth,
            recovers_in_s=recovers_in_s,
            seed=seed,
        )
        rate = measure_by_the_rules(done_s)
        covered += rate.ci_low <= BATCH / batch_s <= rate.ci_high
        errors.append(rate.mean * batch_s / BATCH - 1)
    assert covered >= 90
    assert abs(np.mean(errors)) < 0.02


def service(
    *, until_s: float, batch_s: float, slow: float = 0.0, recovers_in_s: float = 4.0, seed: int = 0
) -> FloatArray:
    """Completions of full batches with 3 % noise, `slow` at first and at full speed later."""
    rng = np.random.default_rng(seed)
    now_s, done_s = 0.0, list[float]()
    while now_s < until_s:
        speed = 1 - slow * max(0.0, 1 - now_s / recovers_in_s)
        now_s += batch_s * (1 + 0.03 * rng.standard_normal()) / speed
        done_s.append(now_s)
    done = np.repeat(done_s, BATCH)
    return done[done < until_s]


def warm_up_verdict(done_s: FloatArray, elapsed_s: float, *, ok: bool = True) -> WarmUpVerdict:
    return WarmUpRule().judge(log_of(done_s, ok=ok), elapsed_s=elapsed_s, granularity=BATCH)


def test_warm_up_takes_its_minimum_even_when_level() -> None:
    done_s = service(until_s=1.4, batch_s=0.02)
    assert warm_up_verdict(done_s, 1.4) is WarmUpVerdict.KEEP_WARMING


def test_steady_throughput_is_level() -> None:
    assert warm_up_verdict(service(until_s=2.0, batch_s=0.02), 2.0) is WarmUpVerdict.LEVEL


@pytest.mark.parametrize("elapsed_s", [1.75, 2.5, 3.25, 4.0, 4.75, 5.5])
def test_perfectly_regular_batches_are_level(elapsed_s: float) -> None:
    # 0.07 has no exact binary form: sums of it drift in their last digits, ever the same way.
    done_s = np.repeat(np.cumsum(np.full(int(elapsed_s / 0.07), 0.07)), BATCH)
    assert warm_up_verdict(done_s, elapsed_s) is WarmUpVerdict.LEVEL


def test_throughput_that_still_rises_is_not_level() -> None:
    done_s = service(until_s=2.0, batch_s=0.02, slow=0.2)
    assert warm_up_verdict(done_s, 2.0) is WarmUpVerdict.KEEP_WARMING


def test_throughput_that_falls_is_not_level_either() -> None:
    done_s = service(until_s=2.0, batch_s=0.02, slow=-0.2)
    assert warm_up_verdict(done_s, 2.0) is WarmUpVerdict.KEEP_WARMING


def test_warm_up_gives_up_at_its_maximum_and_says_so() -> None:
    done_s = service(until_s=12.0, batch_s=0.02, slow=0.5, recovers_in_s=20.0)
    assert warm_up_verdict(done_s, 12.0) is WarmUpVerdict.GAVE_UP


def test_few_batches_are_not_level() -> None:
    # 0.5 s a batch: 3 in 1.9 s, 11 in 5.9 s.
    assert warm_up_verdict(service(until_s=1.9, batch_s=0.5), 1.9) is WarmUpVerdict.KEEP_WARMING
    assert warm_up_verdict(service(until_s=5.9, batch_s=0.5), 5.9) is WarmUpVerdict.LEVEL
    assert warm_up_verdict(service(until_s=12.0, batch_s=2.0), 12.0) is WarmUpVerdict.GAVE_UP


def test_failed_requests_do_not_warm_anything() -> None:
    done_s = service(until_s=2.0, batch_s=0.02)
    assert warm_up_verdict(done_s, 2.0, ok=False) is WarmUpVerdict.KEEP_WARMING
    assert warm_up_verdict(np.empty(0), 12.0) is WarmUpVerdict.GAVE_UP


def test_a_slow_first_batch_does_not_prolong_the_warm_up() -> None:
    done_s = service(until_s=2.0, batch_s=0.05)
    done_s = np.concatenate([done_s[:BATCH], done_s[BATCH:] + 0.9])
    assert warm_up_verdict(done_s, 2.9) is WarmUpVerdict.LEVEL


@pytest.mark.parametrize(
    ("half_width", "elapsed_s", "verdict"),
    [
        (0.01, 2.9, PrecisionVerdict.KEEP_MEASURING),  # it takes its minimum in any case
        (0.01, 3.0, PrecisionVerdict.PRECISE),
        (0.031, 9.9, PrecisionVerdict.KEEP_MEASURING),
        (0.031, 10.0, PrecisionVerdict.GAVE_UP),
        (None, 9.9, PrecisionVerdict.KEEP_MEASURING),
        (None, 10.0, PrecisionVerdict.GAVE_UP),
    ],
)
def test_a_measurement_ends_when_its_interval_is_narrow_or_time_is_up(
    half_width: float | None, elapsed_s: float, verdict: PrecisionVerdict
) -> None:
    rate = None if half_width is None else Estimate(1.0, 1.0 - half_width, 1.0 + half_width)
    assert PrecisionRule().judge(rate, elapsed_s=elapsed_s) is verdict


def test_a_rate_takes_five_whole_rounds_of_measuring() -> None:
    done_s = np.repeat(np.arange(20.0), BATCH)
    warm, short = log_of(done_s[: 15 * BATCH]), log_of(done_s[16 * BATCH :])
    assert steady(warm, short, granularity=BATCH) is None
    measured = log_of(done_s[15 * BATCH :])
    found = steady(warm, measured, granularity=BATCH)
    assert found is not None
    assert found.rate.mean == pytest.approx(BATCH)  # a batch a second
    alone = steady(log_of(done_s[:0]), measured, granularity=BATCH)
    assert alone is not None
    assert alone.rate.mean == pytest.approx(BATCH)


def test_failed_requests_are_no_throughput() -> None:
    done_s = np.repeat(np.arange(20.0), BATCH)
    assert steady(log_of(done_s), log_of(done_s, ok=False), granularity=BATCH) is None


def test_senseless_rules_are_refused() -> None:
    with pytest.raises(InputError, match="min_s <= max_s"):
        WarmUpRule(min_s=13.0)
    with pytest.raises(InputError, match="max_unsettled must be positive"):
        WarmUpRule(max_unsettled=0.0)
    with pytest.raises(InputError, match="min_s <= max_s"):
        PrecisionRule(min_s=-1.0)
    with pytest.raises(InputError, match="relative_half_width must be positive"):
        PrecisionRule(relative_half_width=math.nan)


def done_between(log: RequestLog, start_s: float, end_s: float) -> RequestLog:
    inside = (log.done_s >= start_s) & (log.done_s < end_s)
    return log_of(log.done_s[inside])


def measure_by_the_rules(done_s: FloatArray) -> Estimate:
    """What a trial does: warm up, then measure, asking a rule every quarter of a second."""
    log, warm_up, precision = log_of(done_s), WarmUpRule(), PrecisionRule(max_s=8.0)
    start_s = POLL_S
    while (
        warm_up.judge(done_between(log, 0.0, start_s), elapsed_s=start_s, granularity=BATCH)
        is WarmUpVerdict.KEEP_WARMING
    ):
        start_s += POLL_S
    taken_s = 0.0
    while True:
        taken_s += POLL_S
        measured = done_between(log, start_s, start_s + taken_s)
        found = steady(done_between(log, 0.0, start_s), measured, granularity=BATCH)
        rate = None if found is None else found.rate
        if precision.judge(rate, elapsed_s=taken_s) is not PrecisionVerdict.KEEP_MEASURING:
            assert rate is not None
            return rate


def measure_by_three_windows(done_s: FloatArray) -> float:
    """What perf_analyzer does: the mean of three 1 s windows in a row within 10 % of it."""
    counts = np.bincount(done_s.astype(np.intp)).astype(np.float64)
    for last in range(3, counts.size + 1):
        recent = counts[last - 3 : last]
        if np.all(np.abs(recent / recent.mean() - 1) <= 0.1):
            return float(recent.mean())
    raise AssertionError("the service never settled")


@pytest.mark.parametrize(
    ("batch_s", "largest_error"),
    [(0.02, 0.01), (0.05, 0.015), (0.2, 0.025)],
)
def test_a_slow_warm_up_costs_less_than_half_the_error_of_three_windows(
    batch_s: float, largest_error: float
) -> None:
    true_rps = BATCH / batch_s
    ours, theirs = list[float](), list[float]()
    for seed in range(20):
        done_s = service(until_s=17.0, batch_s=batch_s, slow=0.2, seed=seed)
        ours.append(abs(measure_by_the_rules(done_s).mean / true_rps - 1))
        theirs.append(abs(measure_by_three_windows(done_s) / true_rps - 1))
    assert np.mean(ours) < largest_error
    assert np.mean(theirs) > 2 * np.mean(ours)
