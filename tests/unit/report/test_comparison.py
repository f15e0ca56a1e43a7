import math

import pytest

from falcon_ray.report.comparison import (
    Deployed,
    Gain,
    RateInterval,
    Uncertainty,
    confidence_gain,
    gains_over_baseline,
    mean_rate,
    resolution_gain,
)
from falcon_ray.report.wording import (
    describe_count,
    describe_gain,
    describe_percent,
    describe_range,
    describe_tie,
)


def deployed(*rates_rps: float, spread: float | None = 1.02, usd_per_hour: float = 1.0) -> Deployed:
    intervals = None
    if spread is not None:
        intervals = tuple(RateInterval(rate, rate / spread, rate * spread) for rate in rates_rps)
    return Deployed(rates_rps=rates_rps, intervals=intervals, usd_per_hour=usd_per_hour)


def gains(
    *contenders: Deployed,
    baseline: Deployed,
    is_certified: bool = False,
    capacity_step: float | None = None,
) -> tuple[Gain, ...]:
    return gains_over_baseline(
        contenders, baseline, is_certified=is_certified, capacity_step=capacity_step
    )


def test_gain_of_symmetric_intervals_is_the_delta_method() -> None:
    """hypot(ln 1.03, ln 1.04) = 0.04911; 1.38 e^-0.04911 = 1.3139, 1.38 e^0.04911 = 1.4495."""
    gain = confidence_gain(
        RateInterval(138.0, 138.0 / 1.03, 138.0 * 1.03), RateInterval(100.0, 100.0 / 1.04, 104.0)
    )
    assert (gain.value, gain.low, gain.high) == pytest.approx((0.38, 0.3139, 0.4495), abs=1e-4)
    assert gain.shows_difference


def test_each_end_of_the_gain_uses_the_ends_that_matter_for_it() -> None:
    """Down: hypot(ln(120/108), ln(110/100)) = 0.14207, 1.2 e^-0.14207 = 1.0411.

    Up: hypot(ln(126/120), ln(100/95)) = 0.07079, 1.2 e^0.07079 = 1.2880.
    """
    gain = confidence_gain(RateInterval(120.0, 108.0, 126.0), RateInterval(100.0, 95.0, 110.0))
    assert (gain.low, gain.high) == pytest.approx((0.0411, 0.2880), abs=1e-4)


def test_prices_scale_the_gain_exactly() -> None:
    """Twice the rate at twice the price is no gain, and its interval is around zero."""
    (gain,) = gains(deployed(200.0), baseline=deployed(100.0, usd_per_hour=0.5))
    assert gain.value == pytest.approx(0.0)
    assert (1 + gain.low) * (1 + gain.high) == pytest.approx(1.0)
    assert not gain.shows_difference


def test_two_comparisons_with_one_deployment_each_are_widened_to_hold_together() -> None:
    """Sidak: 0.95^(1/2) = 0.97468, whose normal quantile is 2.2365 beside 1.9600 for one.

    hypot(ln 1.02, ln 1.02) = 0.028005, and 0.028005 * 2.2365 / 1.9600 = 0.031956.
    """
    one, _ = gains(deployed(150.0), deployed(120.0), baseline=deployed(100.0))
    assert math.log((1 + one.high) / 1.5) == pytest.approx(0.031956, abs=1e-5)
    assert one.uncertainty is Uncertainty.CONFIDENCE


def test_no_interval_over_deployments_is_narrower_than_those_within_them() -> None:
    """Two equal rates have no spread; hypot(ln 1.02, ln 1.02) / 2 each, 0.0198 for both sides."""
    (gain,) = gains(deployed(150.0, 150.0), baseline=deployed(100.0, 100.0))
    half = math.hypot(*[math.log(1.02)] * 4) / 2
    assert math.log((1 + gain.high) / 1.5) == pytest.approx(half)
    assert math.log((1 + gain.low) / 1.5) == pytest.approx(-half)
    assert (gain.uncertainty, gain.n_deployments) == (Uncertainty.DEPLOYMENTS, (2, 2))


def test_deployments_of_a_target_without_intervals_are_compared_by_their_spread() -> None:
    """Logs 0.1 and -0.1 twice: s^2 = 4 * 0.01 / 2 = 0.02; t(0.975, 2) = 4.3027.

    4.3027 * 0.141421 * sqrt(1/2 + 1/2) = 0.60849.
    """
    rates = math.exp(0.1), math.exp(-0.1)
    (gain,) = gains(deployed(*rates, spread=None), baseline=deployed(*rates, spread=None))
    assert math.log(1 + gain.high) == pytest.approx(0.60849, abs=1e-4)


def test_more_rounds_make_a_narrower_interval() -> None:
    pair, three = (1.0, 1.1), (1.0, 1.05, 1.1)
    (two_rounds,) = gains(deployed(*pair), baseline=deployed(*pair))
    (three_rounds,) = gains(deployed(*three), baseline=deployed(*three))
    assert three_rounds.high < two_rounds.high / 2


def test_the_step_of_certified_rates_widens_both_sides() -> None:
    """As the spread above, 0.60849, and ln 1.05 = 0.04879 on top: 0.65728."""
    rates = math.exp(0.1), math.exp(-0.1)
    (gain,) = gains(
        deployed(*rates), baseline=deployed(*rates), is_certified=True, capacity_step=0.05
    )
    assert math.log(1 + gain.high) == pytest.approx(0.65728, abs=1e-4)
    assert math.log(1 + gain.low) == pytest.approx(-0.65728, abs=1e-4)


def test_a_mean_rate_borrows_the_others_spread() -> None:
    """One deployment has no spread of its own; the others' s^2 is 2 * 0.01 / 1 with 1 df.

    t(0.975, 1) = 12.706; 12.706 * 0.141421 = 1.79693.
    """
    rates = math.exp(0.1), math.exp(-0.1)
    alone, borrowed = mean_rate(deployed(1.0)), mean_rate(deployed(1.0), [deployed(*rates)])
    assert alone is not None
    assert borrowed is not None
    assert alone.ci_high_rps == pytest.approx(1.02)
    assert math.log(borrowed.ci_high_rps) == pytest.approx(1.79693, abs=1e-4)


@pytest.mark.parametrize(
    ("best", "baseline", "low", "high"),
    [
        (RateInterval(200.0, 0.0, 210.0), RateInterval(100.0, 99.0, 101.0), -1.0, 1.1023),
        (RateInterval(200.0, 190.0, math.inf), RateInterval(100.0, 99.0, 101.0), 0.8975, math.inf),
    ],
)
def test_an_end_that_bounds_nothing_stays_unbounded(
    best: RateInterval, baseline: RateInterval, low: float, high: float
) -> None:
    """2 e^-hypot(ln(200/190), ln 1.01) = 1.8975; 2 e^hypot(ln(210/200), ln(100/99)) = 2.1023."""
    gain = confidence_gain(best, baseline)
    assert (gain.low, gain.high) == pytest.approx((low, high), abs=1e-3)


def test_certified_rates_are_compared_to_their_step() -> None:
    """A rate of 120 stands for up to 126, one of 100 for up to 105: 120/105 to 126/100."""
    gain = resolution_gain(1.2, 0.05)
    assert (gain.low, gain.high) == pytest.approx((120 / 105 - 1, 126 / 100 - 1))
    assert gain.uncertainty is Uncertainty.RESOLUTION


@pytest.mark.parametrize(
    ("is_certified", "spread", "n"), [(True, 1.02, 1), (False, None, 1), (True, 1.02, 2)]
)
def test_without_a_known_uncertainty_no_difference_is_shown(
    is_certified: bool,
    spread: float | None,
    n: int,
) -> None:
    (gain,) = gains(
        deployed(*[200.0] * n, spread=spread),
        baseline=deployed(*[100.0] * n, spread=spread),
        is_certified=is_certified,
    )
    assert (gain.value, gain.uncertainty) == (pytest.approx(1.0), Uncertainty.UNKNOWN)
    assert not gain.shows_difference


@pytest.mark.parametrize(
    ("value", "low", "high", "told"),
    [
        (0.38, 0.31, 0.45, "38 % more than the baseline (95 % interval 31 % to 45 %"),
        (0.052, 0.011, 0.12, "5.2 % more than the baseline (95 % interval 1.1 % to 12 %"),
        (-0.07, -0.11, -0.03, "7.0 % less than the baseline (95 % interval -11 % to -3.0 %"),
        (0.4, 0.2, math.inf, "40 % more than the baseline (95 % interval 20 % or more"),
    ],
)
def test_a_gain_in_words(value: float, low: float, high: float, told: str) -> None:
    gain = Gain(value=value, low=low, high=high, uncertainty=Uncertainty.CONFIDENCE)
    assert describe_gain(gain, None) == f"{told} from one deployment each)"


def test_a_tie_in_words() -> None:
    gain = Gain(
        value=0.02,
        low=-0.03,
        high=0.07,
        uncertainty=Uncertainty.DEPLOYMENTS,
        n_deployments=(3, 3),
    )
    assert describe_tie(gain, "x=1", None) == (
        "no difference from the baseline shown by x=1 "
        "(2.0 % more, 95 % interval -3.0 % to 7.0 %, 3 deployments each)"
    )


def test_a_range_without_bounds_says_why() -> None:
    gain = Gain(value=0.4, low=-1.0, high=math.inf, uncertainty=Uncertainty.CONFIDENCE)
    assert describe_range(gain, None) == (
        "95 % interval without bounds, measured too briefly from one deployment each"
    )
    assert describe_range(resolution_gain(1.2, None), None) == (
        "but how sure that is was not recorded"
    )


@pytest.mark.parametrize(
    ("count", "told"),
    [(41234.0, "41,200"), (999.6, "1,000"), (41.26, "41.3"), (0.01234, "0.0123"), (0.0, "0")],
)
def test_counts_have_three_digits(count: float, told: str) -> None:
    assert describe_count(count) == told


def test_a_percentage_is_never_minus_zero() -> None:
    assert describe_percent(-0.0001) == "0.0 %"
