import numpy as np
import pytest

from falcon_ray.knowledge.latency.estimates import LatencyEstimate, between, combined, scaled


def estimate(log_seconds: float, sd: float, *, basis: str = "shapes") -> LatencyEstimate:
    return LatencyEstimate(
        log_seconds=np.array([log_seconds]),
        sd=np.array([sd]),
        operator_seconds=(np.array([[np.exp(log_seconds)]]),),
        basis=basis,
    )


def test_the_mean_is_weighted_by_precision() -> None:
    # Precisions 1 / 0.01 and 1 / 0.04: weights 0.8 and 0.2.
    found = combined([estimate(0.0, 0.1), estimate(1.0, 0.2, basis="facts")])
    assert found.log_seconds == pytest.approx([0.2])
    # Variance 0.8^2 0.01 + 0.2^2 0.04 + 2 x 0.5 x 0.8 x 0.2 x 0.1 x 0.2 = 0.0112
    assert found.sd == pytest.approx([np.sqrt(0.0112)])
    assert found.basis == "shapes and facts"
    assert found.operator_seconds[0] == pytest.approx(np.exp([[0.2]]))


def test_equally_sure_predictors_that_agree_stay_nearly_as_unsure() -> None:
    # Half of the variance is shared: (1 + 0.5) / 2 of it is left.
    found = combined([estimate(0.0, 0.2), estimate(0.0, 0.2)])
    assert found.sd == pytest.approx([0.2 * np.sqrt(0.75)])


def test_one_estimate_stands_as_it_is_and_none_is_refused() -> None:
    only = estimate(0.0, 0.1)
    assert combined([only]) is only
    with pytest.raises(ValueError, match="no estimate"):
        combined([])


def test_another_setting_shifts_the_log_and_widens_the_error() -> None:
    found = scaled(estimate(0.0, 0.3), log_factor=np.log(2.0), extra_sd=0.4)
    assert found.log_seconds == pytest.approx([np.log(2)])
    assert found.sd == pytest.approx([0.5])  # 3, 4, 5
    assert found.operator_seconds[0] == pytest.approx(np.array([[2.0]]))


def test_settings_in_between_are_log_linear() -> None:
    low, high = estimate(np.log(4.0), 0.3), estimate(np.log(1.0), 0.1)
    found = between(low, high, position=0.5, extra_sd=0.4)
    assert np.exp(found.log_seconds) == pytest.approx([2.0])
    assert found.sd == pytest.approx([0.5])
    assert found.operator_seconds[0] == pytest.approx(np.array([[2.0]]))
