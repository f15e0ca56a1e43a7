import math

import numpy as np
import pytest
from scipy import stats

from falcon_ray.report.dunnett import allowances, critical_value, pooled_deviation


@pytest.mark.parametrize(
    ("n_samples", "n_control", "df", "value"),
    [((7, 7), 7, 18, 2.40), ((3, 3), 3, 6, 2.86), ((2, 2, 2, 2), 2, 5, 3.48)],
)
def test_critical_values_are_those_of_the_published_table(
    n_samples: tuple[int, ...], n_control: int, df: int, value: float
) -> None:
    """Dunnett (1964), Biometrics 20, table II: two-sided, 5 %, equal sizes."""
    found = critical_value(n_samples, n_control, df=df)
    assert found == pytest.approx(value, abs=0.01)


def test_unequal_sizes_agree_with_the_p_value_of_scipy() -> None:
    """A difference of exactly the critical value has a p-value of 1 - 0.95."""
    samples, control = [[0.1, 0.3, 0.2], [0.0, 0.4]], [0.1, 0.0, 0.2, 0.3]
    half = allowances(samples, control)
    assert half is not None
    shift = np.mean(control) + half[0] - np.mean(samples[0])
    moved = [[each + shift for each in samples[0]], samples[1]]
    found = stats.dunnett(*moved, control=control, rng=np.random.default_rng(1))
    assert found.pvalue[0] == pytest.approx(0.05, abs=2e-3)


def test_one_comparison_is_students() -> None:
    assert critical_value([2], 3, df=3) == pytest.approx(3.1824, abs=1e-4)


def test_the_same_samples_always_have_the_same_value() -> None:
    assert critical_value([2, 2], 2, df=3) == critical_value([2, 2], 2, df=3)


def test_the_deviation_is_pooled_within_samples() -> None:
    """Squares 2 * 0.5^2 of (0, 1) and 2 * 1^2 of (5, 7), over 2 degrees of freedom."""
    assert pooled_deviation([[0.0, 1.0], [5.0, 7.0], [9.0]]) == (
        pytest.approx(math.sqrt((0.5 + 2.0) / 2)),
        2,
    )


def test_single_values_say_nothing_of_their_variance() -> None:
    assert allowances([[0.1], [0.2]], [0.0]) is None
