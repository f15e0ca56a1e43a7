from collections.abc import Callable

import numpy as np
import pytest

from falcon_ray.profiling.benchmark import (
    DISTURBED_RELATIVE_SD,
    Timing,
    TimingPlan,
    relative_sd_of_median,
    time_calls,
)


class _Machine:
    """A clock that moves only when a call takes time, and calls that take what a list says."""

    def __init__(
        self, durations_s: list[float], *, waits_s: dict[int, float] | None = None
    ) -> None:
        self.now_s = 0.0
        self.waited_s = 0.0
        self.turns: list[str] = []
        self._durations_s = durations_s
        self._waits_s = waits_s or {}

    def call(self, name: str = "a") -> Callable[[], None]:
        def take() -> None:
            n = len(self.turns)
            self.turns.append(name)
            self.now_s += self._durations_s[min(n, len(self._durations_s) - 1)]
            self.waited_s += self._waits_s.get(n, 0.0)

        return take

    def time(self, plan: TimingPlan, *names: str) -> Timing:
        return time_calls(
            [self.call(name) for name in names or ("a",)],
            plan=plan,
            clock=lambda: self.now_s,
            waited_s=lambda: self.waited_s,
        )


def test_slow_first_calls_are_warm_up() -> None:
    machine = _Machine([1.0, 0.2, 0.1, 0.1, 0.1])
    timing = machine.time(TimingPlan(min_repeats=5, warm_up_s=10.0, max_s=10.0))
    # The first call (1 s) is not looked at; then 0.2, 0.1 and 0.1, two of which are level.
    assert timing.latency_us == pytest.approx(100_000)
    assert timing.relative_sd == pytest.approx(0, abs=1e-9)
    assert timing.n == 5
    assert len(machine.turns) == 1 + 3 + 5


def test_warm_up_ends_when_its_time_is_over_though_calls_never_level() -> None:
    machine = _Machine([0.1, 0.1, 0.2, 0.1, 0.2, 0.1])
    machine.time(TimingPlan(min_repeats=5, warm_up_s=0.25, max_s=0.01))
    # 0.1 s unseen, then 0.1 + 0.2 s: over 0.25 s; and one block of 5 repeats.
    assert len(machine.turns) == 1 + 2 + 5


def test_tiny_calls_are_timed_in_inner_loops() -> None:
    machine = _Machine([1e-6])
    timing = machine.time(TimingPlan(min_repeats=5, repeat_s=0.0001, max_s=1.0, warm_up_s=1.0))
    # 100 us / 1 us = 100 calls a repeat (101 if that rounds up), 5 repeats, 3 of warm-up.
    assert len(machine.turns) in {503, 508}
    assert timing.latency_us == pytest.approx(1.0)
    assert timing.n == 5


def test_repeats_go_on_until_the_median_is_known() -> None:
    # Warm-up takes 3 calls; the first block of 5 is scattered, all that follow is level.
    machine = _Machine([1.0, 1.0, 1.0, 0.5, 0.8, 1.0, 1.3, 2.0, 1.0])
    timing = machine.time(TimingPlan(min_repeats=5, max_s=1e6, warm_up_s=1e6, max_repeats=100))
    assert timing.n > 5
    assert timing.relative_sd <= 0.02
    assert timing.latency_us == pytest.approx(1e6)


def test_repeats_end_when_time_is_over_and_the_deviation_says_so() -> None:
    machine = _Machine([1.0, 1.0, 1.0] + [0.5, 1.5] * 100)
    timing = machine.time(TimingPlan(min_repeats=5, max_s=12.0, warm_up_s=1e6, max_repeats=100))
    # A block of 5 takes 4.5 or 5.5 s: the third ends after 14.5 s.
    assert timing.n == 15
    assert timing.relative_sd > 0.3


def test_repeats_that_waited_for_a_cpu_are_dropped() -> None:
    slow = [1.0, 1.0, 1.0, *([1.0, 9.0, 9.0] * 20)]
    waits_s = {n: 8.0 for n, duration_s in enumerate(slow) if duration_s == 9.0}
    plan = TimingPlan(min_repeats=5, max_s=1e6, warm_up_s=1e6, max_repeats=100)
    timing = _Machine(slow, waits_s=waits_s).time(plan)
    assert timing.latency_us == pytest.approx(1e6)
    # One repeat in three is clean: 15 repeats are the first to hold 5 of them.
    assert timing.n == 5
    assert timing.relative_sd == pytest.approx(0, abs=1e-9)


def test_waits_of_a_twentieth_are_tolerated() -> None:
    plan = TimingPlan(min_repeats=5, max_s=1e6, warm_up_s=1e6)
    timing = _Machine([1.0], waits_s=dict.fromkeys(range(1000), 0.049)).time(plan)
    assert timing.n == 5
    assert timing.relative_sd < DISTURBED_RELATIVE_SD


def test_where_all_repeats_waited_all_count_and_the_deviation_is_large() -> None:
    machine = _Machine([1.0], waits_s=dict.fromkeys(range(1000), 0.06))
    timing = machine.time(TimingPlan(min_repeats=5, max_s=8.0, warm_up_s=1e6))
    # Clean ones are waited for three times as long: 24 s are over after 5 blocks of 5 s.
    assert timing.n == 25
    assert timing.latency_us == pytest.approx(1e6)
    assert timing.relative_sd == DISTURBED_RELATIVE_SD


def test_calls_take_turns_across_warm_up_and_repeats() -> None:
    machine = _Machine([1.0])
    machine.time(TimingPlan(min_repeats=5, max_s=1.0, warm_up_s=1e6), "a", "b", "c")
    assert machine.turns == ["a", "b", "c", "a", "b", "c", "a", "b"]


def test_deviation_of_a_median_is_that_of_the_binomial_order_statistics() -> None:
    # n = 100, 0..99 plus 100: the quantiles at .45 and .55 are 144.55 and 154.45.
    samples = 100.0 + np.arange(100)
    assert relative_sd_of_median(samples.astype(np.float64)) == pytest.approx(
        (154.45 - 144.55) / 2 / 149.5
    )


def test_deviation_of_a_median_agrees_with_many_medians_of_normal_samples() -> None:
    rng = np.random.default_rng(0)
    samples = 1 + 0.1 * rng.standard_normal((2000, 50))
    estimated = np.mean([relative_sd_of_median(row) for row in samples])
    assert estimated == pytest.approx(np.median(samples, axis=1).std(), rel=0.1)


@pytest.mark.parametrize("wrong", [{"max_s": 0.0}, {"min_repeats": 1}, {"max_repeats": 2}])
def test_a_plan_without_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="plan needs"):
        TimingPlan(**wrong)  # pyright: ignore[reportArgumentType]
