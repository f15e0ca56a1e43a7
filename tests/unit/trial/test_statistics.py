import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from falcon_ray.space.configuration import FloatArray
from falcon_ray.trial.statistics import (
    Estimate,
    SloVerdict,
    group_centres_s,
    percentiles_ms,
    requests_to_certify,
    share_verdict,
    throughput,
    trend_is_significant,
)

BATCH = 8
SERVICE_S = 0.05
TRUE_RPS = BATCH / SERVICE_S
RUNS = 500


def clumps(intervals_s: FloatArray, sizes: NDArray[np.int64] | int = BATCH) -> FloatArray:
    """Completion times of batches that take `intervals_s`, one after the other."""
    return np.repeat(np.cumsum(intervals_s), sizes)


def deterministic(rng: np.random.Generator, n: int) -> FloatArray:
    return clumps(SERVICE_S * (1 + 0.03 * rng.standard_normal(n)))


def exponential(rng: np.random.Generator, n: int) -> FloatArray:
    return clumps(SERVICE_S * (0.5 + 0.5 * rng.exponential(size=n)))


def autoregressive(rng: np.random.Generator, n: int) -> FloatArray:
    shocks = 0.1 * rng.standard_normal(n)
    noise = [shocks[0]]
    for shock in shocks[1:]:
        noise.append(0.5 * noise[-1] + math.sqrt(1 - 0.5**2) * shock)
    return clumps(SERVICE_S * (1 + np.array(noise)))


def partial_batches(rng: np.random.Generator, n: int) -> FloatArray:
    # Sizes of 4 to 8, 6 on average. Mean interval 0.0375 s, so 6 / 0.0375 s = 160 rps.
    sizes = rng.integers(BATCH // 2, BATCH + 1, n)
    intervals_s = 0.75 * SERVICE_S * (1 + 0.03 * rng.standard_normal(n)) * (0.5 + sizes / 12)
    return clumps(intervals_s, sizes)


def two_replicas(rng: np.random.Generator, n: int) -> FloatArray:
    # Each takes 0.1 s per batch of 8: 80 rps each.
    done_s = [
        rng.uniform(0, 0.1) + clumps(2 * SERVICE_S * (1 + 0.03 * rng.standard_normal(n)))
        for _ in range(2)
    ]
    return np.concatenate(done_s)


@pytest.mark.parametrize(
    ("service", "granularity"),
    [
        (deterministic, BATCH),
        (exponential, BATCH),
        (autoregressive, BATCH),
        (partial_batches, BATCH),
        (two_replicas, 2 * BATCH),
    ],
)
@pytest.mark.parametrize("duration_s", [2.0, 4.0])
def test_interval_covers_the_true_rate_about_as_often_as_it_says(
    service: Callable[[np.random.Generator, int], FloatArray], granularity: int, duration_s: float
) -> None:
    rng = np.random.default_rng(3)
    covered, errors = 0, list[float]()
    for _ in range(RUNS):
        start_s = rng.uniform(0.5, 1.0)
        done_s = service(rng, 200)
        inside = (done_s >= start_s) & (done_s < start_s + duration_s)
        estimate = throughput(done_s[inside], granularity=granularity)
        assert estimate is not None
        covered += estimate.ci_low <= TRUE_RPS <= estimate.ci_high
        errors.append(estimate.mean / TRUE_RPS - 1)
    # The true coverage is 92 to 97 %. 500 runs know it to sqrt(0.95 * 0.05 / 500) = 1 %, and the
    # bounds leave two of these.
    assert 0.90 <= covered / RUNS <= 0.99
    # One batch too many would be 8 / (160 rps * 2 s) = 2.5 % of the shortest sample.
    assert abs(np.mean(errors)) < 0.01 + 2 * np.std(errors) / math.sqrt(RUNS)


@pytest.mark.parametrize("cut", range(BATCH))
def test_regular_batches_give_the_exact_rate_wherever_the_sample_starts(cut: int) -> None:
    done_s = clumps(np.full(31, 0.1))[cut:]
    estimate = throughput(done_s, granularity=BATCH)
    assert estimate is not None
    assert estimate.mean == pytest.approx(80.0)  # 8 requests every 0.1 s
    assert estimate.relative_half_width < 1e-6


def test_interval_is_that_of_batch_means() -> None:
    estimate = throughput(np.array([0.0, 1.0, 2.0, 4.0, 5.0]), granularity=1)
    # Steps of 1, 1, 2, 1 s: 5 s in all, 1.25 s on average, off by -.25, -.25, .75, -.25; their
    # squares sum to 0.75, the error of the sum is sqrt(4 / 3 * 0.75) = 1 s. Student's t at
    # 97.5 % with 3 degrees of freedom is 3.182: 5 +- 3.182 s for 4 requests.
    assert estimate is not None
    assert estimate.mean == pytest.approx(4 / 5)
    assert estimate.ci_low == pytest.approx(4 / 8.182, rel=1e-3)
    assert estimate.ci_high == pytest.approx(4 / 1.818, rel=1e-3)


def test_correlated_blocks_widen_the_interval() -> None:
    def half_s(steps_s: list[float]) -> float:
        estimate = throughput(np.cumsum([0.0, *steps_s]), granularity=1)
        assert estimate is not None
        return 8 / estimate.ci_low - 12.0

    # Off by -.5 four times, then by .5 four times: lag-1 correlation (3 - 1 + 3) / 8 + 1 / 8 =
    # 0.75, capped at 0.7, so wider by sqrt(1.7 / 0.3) than in an order that alternates.
    drifting, alternating = half_s([1.0] * 4 + [2.0] * 4), half_s([1.0, 2.0] * 4)
    assert drifting == pytest.approx(alternating * math.sqrt(1.7 / 0.3))


def test_order_of_completions_does_not_matter() -> None:
    done_s = exponential(np.random.default_rng(0), 40)
    shuffled = np.random.default_rng(1).permutation(done_s)
    assert throughput(shuffled, granularity=BATCH) == throughput(done_s, granularity=BATCH)


@pytest.mark.parametrize("n", [0, 1, BATCH, 5 * BATCH - 1])
def test_too_few_completions_say_nothing(n: int) -> None:
    assert throughput(np.arange(float(n)), granularity=BATCH) is None


def test_five_whole_groups_are_enough() -> None:
    assert throughput(np.arange(5.0 * BATCH), granularity=BATCH) is not None


def test_completions_all_at_one_time_say_nothing() -> None:
    assert throughput(np.ones(100), granularity=1) is None


def test_upper_end_is_infinite_where_the_sample_bounds_nothing() -> None:
    # Steps of 0, 0, 0, 1 s: the error of the sum, sqrt(4 / 3 * 0.75) = 1 s, times 3.182
    # exceeds the sum of 1 s.
    estimate = throughput(np.array([0.0, 0.0, 0.0, 0.0, 1.0]), granularity=1)
    assert estimate is not None
    assert estimate.ci_high == math.inf
    assert estimate.relative_half_width == math.inf


def test_group_centres_are_means_of_whole_groups() -> None:
    centres_s = group_centres_s(np.array([4.0, 1.0, 2.0, 3.0, 9.0]), 2)
    assert centres_s.tolist() == [1.5, 3.5]  # (1 + 2) / 2, (3 + 4) / 2; 9 has no partner


def test_granularity_and_confidence_are_checked() -> None:
    with pytest.raises(ValueError, match="granularity must be at least 1"):
        throughput(np.arange(9.0), granularity=0)
    with pytest.raises(ValueError, match="confidence must lie between 0 and 1"):
        throughput(np.arange(9.0), granularity=1, confidence=95.0)


def test_relative_half_width_is_half_the_interval_over_the_mean() -> None:
    assert Estimate(100.0, 96.0, 106.0).relative_half_width == pytest.approx(0.05)
    assert Estimate(0.0, 0.0, 1.0).relative_half_width == math.inf


def test_an_estimate_lies_in_its_interval() -> None:
    with pytest.raises(ValueError, match="ci_low <= mean <= ci_high"):
        Estimate(1.0, 2.0, 3.0)


def test_percentiles_are_measured_latencies() -> None:
    latency_ms = np.arange(1000.0, 0.0, -1.0)  # 1 to 1000 ms
    assert percentiles_ms(latency_ms) == (500.0, 900.0, 950.0, 990.0, 999.0)
    assert percentiles_ms(np.array([1.0, 2.0]), (50, 51)) == (1.0, 2.0)


def test_requests_without_an_answer_are_slower_than_any() -> None:
    latency_ms = np.array([1.0, 2.0, 3.0, math.inf])
    assert percentiles_ms(latency_ms, (75, 76)) == (3.0, math.inf)


def test_percentiles_need_latencies_and_lie_in_range() -> None:
    with pytest.raises(ValueError, match="at least one latency"):
        percentiles_ms(np.empty(0))
    with pytest.raises(ValueError, match="must lie in"):
        percentiles_ms(np.ones(3), (0.0, 50.0))


def verdict_on(*, n: int, over: int, percentile: float = 99.0) -> SloVerdict:
    return share_verdict(over, n, 1 - percentile / 100)


@pytest.mark.parametrize(
    ("n", "over", "verdict"),
    [
        (0, 0, SloVerdict.UNDECIDED),
        (298, 0, SloVerdict.UNDECIDED),  # 0.99 ** 298 = 0.0500
        (299, 0, SloVerdict.MET),  # 0.99 ** 299 = 0.0495
        (472, 1, SloVerdict.UNDECIDED),  # 0.99 ** 472 + 472 * 0.01 * 0.99 ** 471 = 0.0502
        (473, 1, SloVerdict.MET),  # 0.99 ** 473 + 473 * 0.01 * 0.99 ** 472 = 0.0498
        (100, 3, SloVerdict.UNDECIDED),  # P(3 or more of 100 at 1 %) = 0.079
        (100, 4, SloVerdict.VIOLATED),  # P(4 or more of 100 at 1 %) = 0.018
        (100, 100, SloVerdict.VIOLATED),
    ],
)
def test_verdict_is_that_of_the_binomial_bound(n: int, over: int, verdict: SloVerdict) -> None:
    assert verdict_on(n=n, over=over) is verdict


@pytest.mark.parametrize(
    ("percentile", "n"),
    [
        (50.0, 5),  # log(0.05) / log(0.5) = 4.3
        (90.0, 29),  # 28.4
        (95.0, 59),  # 58.4
        (99.0, 299),  # 298.1
        (99.9, 2995),  # 2994.2
    ],
)
def test_requests_to_certify(percentile: float, n: int) -> None:
    assert requests_to_certify(percentile) == n


@settings(deadline=None, derandomize=True, max_examples=50)
@given(percentile=st.floats(1.0, 99.9))
def test_requests_to_certify_is_where_the_verdict_turns(percentile: float) -> None:
    n = requests_to_certify(percentile)
    assert verdict_on(n=n, over=0, percentile=percentile) is SloVerdict.MET
    assert verdict_on(n=n - 1, over=0, percentile=percentile) is SloVerdict.UNDECIDED


@pytest.mark.parametrize("percentile", [0.0, 100.0])
def test_a_percentile_that_no_sample_decides_is_refused(percentile: float) -> None:
    with pytest.raises(ValueError, match="percentile must lie between 0 and 100"):
        requests_to_certify(percentile)


def test_five_values_in_order_are_a_trend_and_four_are_not() -> None:
    # Two of 5! = 120 orders are monotone, 1.7 %; two of 4! = 24 are, 8.3 %.
    assert trend_is_significant(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert trend_is_significant(np.array([5.0, 4.0, 3.0, 2.0, 1.0]))
    assert not trend_is_significant(np.array([1.0, 2.0, 3.0, 4.0]))
    assert trend_is_significant(np.array([1.0, 2.0, 3.0, 4.0]), significance=0.1)


def test_one_slow_start_is_no_trend() -> None:
    assert not trend_is_significant(np.array([100.0, 2.0, 1.0, 3.0, 1.5, 2.5, 1.2, 2.2]))


@pytest.mark.parametrize("n", [0, 1, 2, 20])
def test_equal_values_are_no_trend(n: int) -> None:
    assert not trend_is_significant(np.ones(n))


def test_chance_seldom_looks_like_a_trend() -> None:
    rng = np.random.default_rng(0)
    alarms = [trend_is_significant(rng.standard_normal(12)) for _ in range(400)]
    assert 0.02 <= np.mean(alarms) <= 0.08  # 5 % asked for, known to 1.1 %
