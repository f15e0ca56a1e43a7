import math

import pytest

from falcon_ray.report.comparison import (
    Gain,
    RateInterval,
    Uncertainty,
    confidence_gain,
    gain_in_score,
    resolution_gain,
)
from falcon_ray.report.wording import describe_count, describe_gain, describe_percent
from falcon_ray.space.objective import Objective
from tests.unit.report.searches import SLO, measurement


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
    gain = gain_in_score(
        measurement(200.0),
        measurement(100.0),
        objective=Objective(),
        best_usd_per_hour=1.0,
        baseline_usd_per_hour=0.5,
        capacity_step=None,
    )
    assert gain is not None
    assert gain.value == pytest.approx(0.0)
    assert (1 + gain.low) * (1 + gain.high) == pytest.approx(1.0)
    assert not gain.shows_difference


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


@pytest.mark.parametrize(("objective", "spread"), [(SLO, 1.02), (Objective(), None)])
def test_without_a_known_uncertainty_no_difference_is_shown(
    objective: Objective, spread: float | None
) -> None:
    gain = gain_in_score(
        measurement(300.0, capacity_rps=200.0, spread=spread),
        measurement(150.0, capacity_rps=100.0, spread=spread),
        objective=objective,
        best_usd_per_hour=1.0,
        baseline_usd_per_hour=1.0,
        capacity_step=None,
    )
    assert gain is not None
    assert (gain.value, gain.uncertainty) == (1.0, Uncertainty.UNKNOWN)
    assert not gain.shows_difference


def test_there_is_no_gain_over_a_rate_that_was_not_certified() -> None:
    assert (
        gain_in_score(
            measurement(300.0, capacity_rps=200.0),
            measurement(150.0),
            objective=SLO,
            best_usd_per_hour=1.0,
            baseline_usd_per_hour=1.0,
            capacity_step=0.05,
        )
        is None
    )


@pytest.mark.parametrize(
    ("value", "low", "high", "told"),
    [
        (0.38, 0.31, 0.45, "38 % more than the baseline (95 % interval 31 % to 45 %)"),
        (0.052, 0.011, 0.12, "5.2 % more than the baseline (95 % interval 1.1 % to 12 %)"),
        (-0.07, -0.11, -0.03, "7.0 % less than the baseline (95 % interval -11 % to -3.0 %)"),
        (
            0.02,
            -0.03,
            0.07,
            "no difference from the baseline shown (95 % interval -3.0 % to 7.0 %)",
        ),
        (0.4, 0.2, math.inf, "40 % more than the baseline (95 % interval 20 % or more)"),
    ],
)
def test_a_gain_in_words(value: float, low: float, high: float, told: str) -> None:
    gain = Gain(value=value, low=low, high=high, uncertainty=Uncertainty.CONFIDENCE)
    assert describe_gain(gain, None) == told


def test_a_gain_without_bounds_says_why() -> None:
    gain = Gain(value=0.4, low=-1.0, high=math.inf, uncertainty=Uncertainty.CONFIDENCE)
    assert describe_gain(gain, None) == (
        "no difference from the baseline shown (95 % interval without bounds, measured too briefly)"
    )


def test_a_gain_of_certified_rates_says_its_resolution() -> None:
    assert describe_gain(resolution_gain(1.2, 0.05), 0.05) == (
        "20 % more than the baseline (14 % to 26 % at the 5 % resolution of certified rates)"
    )
    assert describe_gain(resolution_gain(1.2, None), None) == (
        "no difference from the baseline shown (20 % more, but how sure that is was not recorded)"
    )


@pytest.mark.parametrize(
    ("count", "told"),
    [(41234.0, "41,200"), (999.6, "1,000"), (41.26, "41.3"), (0.01234, "0.0123"), (0.0, "0")],
)
def test_counts_have_three_digits(count: float, told: str) -> None:
    assert describe_count(count) == told


def test_a_percentage_is_never_minus_zero() -> None:
    assert describe_percent(-0.0001) == "0.0 %"
