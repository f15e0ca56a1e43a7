import datetime as dt
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_ray.errors import InputError, OverBudgetError
from falcon_ray.space.catalogue import Instance, InstanceStatus
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.cost import Pricing
from falcon_ray.space.spend import (
    Budget,
    TrialLimits,
    dollars,
    start_usd,
    trial_usd,
    worst_usd,
)

# Four cores at 0.72 USD/h: one core costs 0.18 USD/h, which is 0.00005 USD/s.
C4 = Instance(
    instance_type="c4",
    gpu_type=None,
    n_gpus=0,
    gpu_memory_mib=0,
    vcpus=4,
    ram_gib=16.0,
    usd_per_hour=0.72,
    region="us-east-1",
    status=InstanceStatus.ACTIVE,
    price_date=dt.date(2026, 1, 1),
    price_source="list price",
)
PRICING = Pricing((C4,))
ONE = Configuration({"cpu_cores": 1})
SIX = Configuration({"cpu_cores": 1, "replicas": 6})
HUGE = Configuration({"cpu_cores": 5})


def test_a_trial_pays_for_its_share_as_long_as_it_holds_it() -> None:
    assert trial_usd(ONE, PRICING, held_s=100) == pytest.approx(100 * 0.00005)
    assert trial_usd(SIX, PRICING, held_s=100) == pytest.approx(6 * 100 * 0.00005)


def test_nodes_that_come_up_for_a_trial_are_paid_as_whole_instances() -> None:
    # 0.72 USD/h are 0.0002 USD/s; four replicas fit a node.
    assert start_usd(ONE, PRICING, start_s=60) == pytest.approx(60 * 0.0002)
    assert start_usd(SIX, PRICING, start_s=60) == pytest.approx(2 * 60 * 0.0002)


def test_what_has_no_price_costs_nobody_knows_what() -> None:
    assert trial_usd(HUGE, PRICING, held_s=100) is None
    assert start_usd(HUGE, PRICING, start_s=60) is None


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_seconds_that_cannot_be_are_refused(seconds: float) -> None:
    with pytest.raises(InputError, match="held_s must not be negative"):
        trial_usd(ONE, PRICING, held_s=seconds)
    with pytest.raises(InputError, match="longest_trial_s must be positive"):
        TrialLimits(longest_trial_s=seconds)
    with pytest.raises(InputError, match="longest_start_s must not be negative"):
        TrialLimits(longest_trial_s=1.0, longest_start_s=seconds)


def test_at_worst_all_nodes_come_up_late_and_the_trial_takes_its_longest() -> None:
    limits = TrialLimits(longest_trial_s=1000, longest_start_s=100)
    # Four replicas of one core fit a node: one needs one node, six need two.
    assert worst_usd([ONE, SIX], PRICING, limits) == pytest.approx(
        [1000 * 0.00005 + 100 * 0.0002, 6 * 1000 * 0.00005 + 2 * 100 * 0.0002]
    )
    no_start = TrialLimits(longest_trial_s=1000)
    assert worst_usd([ONE], PRICING, no_start) == pytest.approx([1000 * 0.00005])


def test_what_has_no_price_has_no_worst_case() -> None:
    with pytest.raises(InputError, match="no priced instance holds one replica"):
        worst_usd([HUGE], PRICING, TrialLimits(longest_trial_s=1))


def test_a_trial_starts_only_where_its_worst_case_fits_beside_those_that_run() -> None:
    budget = Budget(1.0)
    budget.start("a", 0.6)
    assert budget.may_start(0.4)
    assert not budget.may_start(0.41)
    budget.end("a", 0.1)  # it was quicker than it might have been
    assert budget.spent_usd == pytest.approx(0.1)
    assert budget.may_start(0.9)
    assert budget.affordable(np.array([0.9, 0.91])).tolist() == [True, False]


def test_what_a_resumed_search_spent_before_counts() -> None:
    assert not Budget(1.0, spent_usd=0.7).may_start(0.4)


def test_a_trial_of_which_nobody_knows_what_it_cost_counts_as_its_worst_case() -> None:
    budget = Budget(1.0)
    budget.start("a", 0.6)
    budget.end("a", None)
    assert budget.spent_usd == pytest.approx(0.6)


def test_without_a_limit_everything_may_start() -> None:
    assert Budget(None, confirm_rounds=2).may_start(1e9)


def test_every_round_of_the_confirmation_sets_aside_the_baseline_and_the_two_dearest() -> None:
    def set_aside_usd(budget: Budget) -> float:
        """As the refusal of one more trial for 0.2 names it."""
        with pytest.raises(OverBudgetError) as raised:
            budget.check(np.array([0.2]))
        least = re.search(r"([0-9.]+) USD for its confirmation", str(raised.value))
        assert least is not None
        return float(least[1])

    budget = Budget(0.1, confirm_rounds=2, baseline_usd=0.5, tried_usd=[0.1])
    assert set_aside_usd(budget) == pytest.approx(2 * (0.5 + 0.1 + 0.2))
    budget.start("a", 0.3)
    assert set_aside_usd(budget) == pytest.approx(2 * (0.5 + 0.3 + 0.2))
    budget.end("a", 0.01, may_be_confirmed=False)  # it was out of memory
    assert set_aside_usd(budget) == pytest.approx(2 * (0.5 + 0.1 + 0.2))


def test_the_confirmation_is_paid_out_of_what_is_set_aside() -> None:
    budget = Budget(1.0, confirm_rounds=1, spent_usd=0.4, tried_usd=[0.6])
    assert not budget.may_start(0.01)
    assert budget.may_confirm(0.6)


@pytest.mark.parametrize(
    ("confirm_rounds", "said"),
    [
        # 0.101, rounded up.
        (0, "0.11 USD for one trial of the cheapest kind; give at least 0.11 USD"),
        # Two rounds of the baseline for 0.2 and of the one trial for 0.101: 0.602, and 0.703.
        (
            2,
            (
                "0.11 USD for one trial of the cheapest kind and 0.61 USD for its confirmation; "
                "give at least 0.71 USD, or leave out the confirmation"
            ),
        ),
    ],
)
def test_a_limit_below_the_cheapest_plan_is_refused_with_what_that_costs(
    confirm_rounds: int, said: str
) -> None:
    budget = Budget(0.1, confirm_rounds=confirm_rounds, baseline_usd=0.2)
    with pytest.raises(OverBudgetError, match=re.escape(said)) as raised:
        budget.check(np.array([0.3, 0.101]))
    assert raised.value.exit_code == 6


@pytest.mark.parametrize("confirm_rounds", [0, 1, 2])
def test_the_least_that_is_named_is_enough(confirm_rounds: int) -> None:
    worst = np.array([0.3, 0.101, 0.0204])
    with pytest.raises(OverBudgetError) as raised:
        Budget(1e-6, confirm_rounds=confirm_rounds, baseline_usd=0.0371).check(worst)
    least = re.search(r"give at least ([0-9.]+) USD", str(raised.value))
    assert least is not None
    Budget(float(least[1]), confirm_rounds=confirm_rounds, baseline_usd=0.0371).check(worst)


def test_a_resumed_search_is_told_what_it_spent_before() -> None:
    with pytest.raises(OverBudgetError, match=r"and 1\.50 USD that were spent before; give at"):
        Budget(1.0, spent_usd=1.5).check(np.array([0.3]))


@pytest.mark.parametrize(
    ("usd", "said"),
    [(0.0, "0.00 USD"), (0.831, "0.84 USD"), (2.0, "2.00 USD"), (0.000123, "0.00013 USD")],
)
def test_dollars_are_never_rounded_down(usd: float, said: str) -> None:
    assert dollars(usd) == said


def test_what_does_not_run_cannot_end_and_what_runs_cannot_start() -> None:
    budget = Budget(1.0)
    with pytest.raises(InputError, match="a does not run"):
        budget.end("a", 0.1)
    budget.start("a", 0.1)
    with pytest.raises(InputError, match="a runs already"):
        budget.start("a", 0.1)


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf")])
def test_limits_that_cannot_be_are_refused(limit: float) -> None:
    with pytest.raises(InputError, match="max_cost_usd must be a positive number"):
        Budget(limit)


shares = st.floats(0, 1)
worst_cases = st.floats(0.001, 2)


@given(
    max_cost_usd=st.floats(0.01, 20),
    confirming=st.tuples(st.integers(0, 3), st.floats(0, 2)),
    n_parallel=st.integers(1, 8),
    trials=st.lists(st.tuples(worst_cases, shares, st.booleans(), shares), max_size=40),
    confirmation=st.lists(shares, min_size=9, max_size=9),
)
def test_whatever_trials_take_of_their_longest_the_limit_is_never_exceeded(
    *,
    max_cost_usd: float,
    confirming: tuple[int, float],
    n_parallel: int,
    trials: list[tuple[float, float, bool, float]],
    confirmation: list[float],
) -> None:
    confirm_rounds, baseline_usd = confirming
    budget = Budget(max_cost_usd, confirm_rounds=confirm_rounds, baseline_usd=baseline_usd)
    running: dict[str, tuple[float, float, bool]] = {}
    tried: list[float] = []

    def end(name: str) -> None:
        worst, share, runs = running.pop(name)
        budget.end(name, share * worst, may_be_confirmed=runs)
        if runs:
            tried.append(worst)

    for number, (worst, share, runs, which) in enumerate(trials):
        if len(running) == n_parallel:
            end(list(running)[int(which * (len(running) - 1))])  # they end in any order
        if budget.may_start(worst):
            budget.start(str(number), worst)
            running[str(number)] = worst, share, runs
        assert budget.committed_usd <= max_cost_usd * (1 + 1e-6)
    for name in list(running):
        end(name)
    if tried:  # the best and the runner-up may be any two of them
        contenders = [baseline_usd, *sorted(tried)[-2:]]
        for number, worst in enumerate(contenders * confirm_rounds):
            assert budget.may_confirm(worst)
            budget.start(f"again {number}", worst)
            budget.end(f"again {number}", confirmation[number] * worst)
    assert budget.spent_usd <= max_cost_usd * (1 + 1e-6)
