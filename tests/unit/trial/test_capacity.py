import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falcon_ray.errors import InputError
from falcon_ray.space.objective import Slo
from falcon_ray.trial.arrivals import Poisson
from falcon_ray.trial.capacity import CapacitySearch
from falcon_ray.trial.load_points import CAPACITY_STEP, CERTIFIED_STEP
from falcon_ray.trial.statistics import SloVerdict, percentiles_ms, share_verdict

SATURATION_RPS = 100.0
SERVICE_MS = 10.0


def md1_latency_p99_ms(rate_rps: float) -> float:
    """Service time plus an exponential wait with the mean of an M/D/1 queue."""
    load = rate_rps / SATURATION_RPS
    if load >= 1:
        return math.inf
    return SERVICE_MS * (1 + load / (2 * (1 - load)) * math.log(100))


def md1_capacity_rps(budget_ms: float) -> float:
    """The rate at which `md1_latency_p99_ms` is the budget: its inverse."""
    odds = 2 * (budget_ms / SERVICE_MS - 1) / math.log(100)
    return SATURATION_RPS * odds / (1 + odds)


def searching(
    saturation_rps: float = SATURATION_RPS,
    *,
    max_points: int = 8,
    rate_to_beat_rps: float | None = None,
) -> CapacitySearch:
    """A search as fine as those of trials."""
    return CapacitySearch(
        saturation_rps,
        max_points=max_points,
        resolution=CAPACITY_STEP,
        rate_to_beat_rps=rate_to_beat_rps,
    )


def run(search: CapacitySearch, verdict_at: Callable[[float], SloVerdict]) -> list[float]:
    offered = list[float]()
    while (rate_rps := search.next_rate()) is not None:
        offered.append(rate_rps)
        search.record(rate_rps, verdict_at(rate_rps))
    return offered


def threshold(capacity_rps: float) -> Callable[[float], SloVerdict]:
    return lambda rate: SloVerdict.MET if rate <= capacity_rps else SloVerdict.VIOLATED


@pytest.mark.parametrize("budget_ms", [12.0, 15.0, 20.0, 40.0, 100.0, 500.0])
def test_capacity_under_a_queue_is_found_to_5_percent_in_8_loads(budget_ms: float) -> None:
    search = searching()
    offered = run(
        search,
        lambda rate: (
            SloVerdict.MET if md1_latency_p99_ms(rate) <= budget_ms else SloVerdict.VIOLATED
        ),
    )
    true_rps = md1_capacity_rps(budget_ms)
    assert len(offered) <= 8
    assert search.capacity_rps is not None
    assert 0.95 * true_rps <= search.capacity_rps <= true_rps


@settings(deadline=None, derandomize=True, max_examples=300)
@given(share=st.floats(0.05, 1.0), saturation_rps=st.floats(0.01, 1e6))
def test_any_capacity_above_the_lightest_load_is_found_to_5_percent_in_8_loads(
    share: float, saturation_rps: float
) -> None:
    search = searching(saturation_rps)
    offered = run(search, threshold(share * saturation_rps))
    assert len(offered) <= 8
    assert search.capacity_rps is not None
    assert share * saturation_rps / 1.04201 <= search.capacity_rps <= share * saturation_rps
    # What is told of certified rates: below 9.6 % of saturation, eight loads leave
    # (9.6 / 5) ** (1 / 16) = 1.0416; below 35 %, (35 / 9.6) ** (1 / 32) = 1.0413; else
    # 2 ** (1 / 64) = 1.0109.
    above = [saturation_rps, *(rate for rate in offered if rate > search.capacity_rps)]
    step = CAPACITY_STEP if share >= 0.35 else CERTIFIED_STEP
    assert min(above) <= (1 + step) * search.capacity_rps


def test_the_step_that_is_told_is_hardly_wider_than_the_widest_that_is_left() -> None:
    def step(share: float) -> float:
        search = searching()
        offered = run(search, threshold(share * SATURATION_RPS))
        met_rps = search.capacity_rps
        assert met_rps is not None
        return min(rate for rate in offered if rate > met_rps) / met_rps - 1

    widest = max(step(share) for share in (0.05, 0.07, 0.12, 0.3))
    assert 0.95 * CERTIFIED_STEP <= widest <= CERTIFIED_STEP


@settings(deadline=None, derandomize=True, max_examples=100)
@given(verdicts=st.lists(st.sampled_from(SloVerdict), min_size=8, max_size=8))
def test_whatever_the_verdicts_the_search_ends_and_certifies_only_what_was_met(
    verdicts: list[SloVerdict],
) -> None:
    search, left = searching(), iter(verdicts)
    offered = run(search, lambda _: next(left))
    met = [rate for rate, said in zip(offered, verdicts, strict=False) if said is SloVerdict.MET]
    assert len(set(offered)) == len(offered)
    assert all(0 < rate < SATURATION_RPS for rate in offered)
    assert search.capacity_rps == max(met, default=None)


def test_first_load_is_70_percent_of_saturation() -> None:
    assert searching(200.0).next_rate() == pytest.approx(140.0)


def test_asking_twice_gives_the_same_rate() -> None:
    search = searching()
    assert search.next_rate() == search.next_rate()


def test_a_met_rate_is_followed_by_the_geometric_mean_with_saturation() -> None:
    search = searching()
    search.record(70.0, SloVerdict.MET)
    assert search.next_rate() == pytest.approx(math.sqrt(70.0 * 100.0))


def test_nothing_is_feasible_only_after_a_very_light_load() -> None:
    search = searching()
    offered = run(search, lambda _: SloVerdict.VIOLATED)
    assert offered == pytest.approx([70.0, 35.0, 9.6, 5.0])
    assert search.capacity_rps is None


def test_undecided_sends_the_search_down_and_proves_nothing() -> None:
    search = searching()
    search.record(70.0, SloVerdict.UNDECIDED)
    assert search.capacity_rps is None
    assert search.next_rate() == pytest.approx(35.0)
    search.record(35.0, SloVerdict.MET)
    assert search.capacity_rps == 35.0
    assert search.next_rate() == pytest.approx(math.sqrt(35.0 * 70.0))


def test_search_ends_at_its_points_and_keeps_what_it_certified() -> None:
    search = searching(max_points=2)
    assert run(search, threshold(40.0)) == pytest.approx([70.0, 35.0])
    assert search.capacity_rps == pytest.approx(35.0)


def test_a_coarser_resolution_needs_fewer_loads() -> None:
    coarse, fine = CapacitySearch(SATURATION_RPS, resolution=0.5), searching()
    # 70 met: saturation is within 100 / 70 - 1 = 43 %, near enough for the coarse one.
    assert len(run(coarse, threshold(80.0))) == 1
    # (100 / 70) ** (1 / 16) = 1.0225 is not near enough for the fine one, the next is.
    assert len(run(fine, threshold(80.0))) == 6


def test_a_simulated_queue_is_certified_near_its_true_capacity() -> None:
    def latencies_ms(rate_rps: float, n: int, rng: np.random.Generator) -> np.ndarray:
        arrivals_s = Poisson().draw(rate_rps, n / rate_rps, rng)
        # Lindley's recursion, solved: the backlog is a walk above its running minimum.
        steps_s = SERVICE_MS / 1e3 - np.diff(arrivals_s, append=arrivals_s[-1])
        walk_s = np.concatenate([[0.0], np.cumsum(steps_s)[:-1]])
        return (walk_s - np.minimum.accumulate(walk_s)) * 1e3 + SERVICE_MS

    slo = Slo(latency_budget_ms=40.0)
    rng = np.random.default_rng(0)
    rates_rps = np.arange(30.0, 70.0, 0.5)
    true_p99_ms = [percentiles_ms(latencies_ms(r, 50_000, rng), (99,))[0] for r in rates_rps]
    true_rps = rates_rps[np.array(true_p99_ms) <= slo.latency_budget_ms].max()
    found = list[float]()
    for _ in range(20):
        search = searching()
        while (rate_rps := search.next_rate()) is not None:
            latency_ms = latencies_ms(rate_rps, 3000, rng)
            over = int(np.count_nonzero(latency_ms > slo.latency_budget_ms))
            verdict = share_verdict(over, latency_ms.size, allowed=0.01)
            search.record(rate_rps, verdict)
        assert search.capacity_rps is not None
        found.append(search.capacity_rps / true_rps)
    # Certifying needs a margin, so the mean lies below; correlated waits let a few lie above.
    assert 0.85 <= np.mean(found) <= 1.0
    assert max(found) <= 1.1


def test_arguments_are_checked() -> None:
    with pytest.raises(InputError, match="saturation_rps must be positive"):
        searching(math.nan)
    with pytest.raises(InputError, match="max_points must be at least 1"):
        searching(1.0, max_points=0)
    with pytest.raises(InputError, match="resolution must be positive"):
        CapacitySearch(1.0, resolution=0.0)
    search = searching(1.0)
    with pytest.raises(ValueError, match="rate_rps must be positive"):
        search.record(0.0, SloVerdict.MET)


def test_a_capacity_that_cannot_beat_the_incumbent_is_not_refined() -> None:
    search = searching(rate_to_beat_rps=60.0)
    assert run(search, threshold(40.0)) == pytest.approx([70.0, 35.0, math.sqrt(35.0 * 70.0)])
    assert search.cut_short  # 49.5/s is not met, and 60/s is to be beaten
    assert search.capacity_rps == pytest.approx(35.0)


def test_a_rate_is_met_before_a_capacity_is_given_up() -> None:
    search = searching(rate_to_beat_rps=200.0)
    assert run(search, threshold(20.0)) == pytest.approx([70.0, 35.0, 9.6])
    assert search.capacity_rps == pytest.approx(9.6)


def test_a_capacity_that_may_beat_the_incumbent_is_refined() -> None:
    search = searching(rate_to_beat_rps=30.0)
    run(search, threshold(40.0))
    assert not search.cut_short
    assert search.capacity_rps is not None
    assert 40.0 / 1.05 <= search.capacity_rps <= 40.0
