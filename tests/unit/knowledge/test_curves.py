import numpy as np
import pytest
from scipy.stats import norm

from falcon_ray.errors import InputError
from falcon_ray.knowledge.curves.resource_curve import (
    CurveSubject,
    ResourceCurve,
    curve_over,
    curves_over,
    good_values,
    sparkline,
)
from falcon_ray.knowledge.curves.shape import (
    CurveShape,
    Direction,
    Shape,
    classify,
    classify_rows,
    expected_range,
)
from falcon_ray.space.configuration import FloatArray

BATCHES = np.array([1.0, 2, 4, 8, 16, 32, 64])
SUBJECT = CurveSubject(operator="linear", dims=(1, 768, 768), device="A100-40G")


def label(y: list[float], sd: float = 0.03) -> CurveShape:
    return classify(np.arange(float(len(y))), np.log(np.array(y)), sd)


def over_batches(throughput: FloatArray) -> ResourceCurve:
    return curve_over("batch_size", BATCHES, BATCHES / throughput, subject=SUBJECT)


def test_equal_gains_per_step_are_a_slope() -> None:
    found = label([1, 2, 3, 4, 5])
    assert (found.shape, found.direction) == (Shape.SLOPE, Direction.RISING)
    assert found.area == pytest.approx(0.0, abs=1e-12)


def test_early_saturation_is_concave_with_the_area_above_the_chord() -> None:
    found = label([1, 3, 3, 3, 3])
    # Trapezoids over steps of 1/4: (1 + 3)/2/4 + 3 * 3/4 = 2.75; the chord's mean is 2. Both over
    # the height of 2: (2.75 - 2) / 2.
    assert found.area == pytest.approx(0.375)
    assert (found.shape, found.direction) == (Shape.CONCAVE, Direction.RISING)


def test_doubling_with_every_step_pays_late_and_is_convex() -> None:
    found = label([1, 2, 4, 8, 16])
    # (1/2 + 2 + 4 + 8 + 16/2) / 4 = 5.625; the chord's mean is 8.5; the height is 15.
    assert found.area == pytest.approx((5.625 - 8.5) / 15)
    assert (found.shape, found.direction) == (Shape.CONVEX, Direction.RISING)


def test_the_mirror_image_falls_and_keeps_its_shape() -> None:
    found = label([16, 8, 4, 2, 1])
    assert (found.shape, found.direction) == (Shape.CONVEX, Direction.FALLING)


def test_a_peak_in_between_is_concave_without_direction() -> None:
    found = label([1, 2, 4, 2, 1])
    assert (found.shape, found.direction) == (Shape.CONCAVE, Direction.FLAT)


def test_a_constant_is_a_plane() -> None:
    found = label([7, 7, 7])
    assert (found.shape, found.direction) == (Shape.PLANE, Direction.FLAT)
    assert found.p_value == 1.0
    assert found.area == 0.0


def test_differences_within_the_noise_are_a_plane_and_beyond_it_are_not() -> None:
    y = [1.0, 1.15, 1.3]  # log range 0.262
    # At 10 % noise: 0.10 + 1.69 * 0.10 = 0.269; at 3 %: 0.10 + 1.69 * 0.03 = 0.151.
    assert label(y, 0.10).shape is Shape.PLANE
    assert label(y, 0.03).shape is Shape.SLOPE


def test_ten_per_cent_is_a_plane_even_without_noise() -> None:
    assert label([1.0, 1.05, 1.10], 1e-6).shape is Shape.PLANE  # log range 0.0953
    assert label([1.0, 1.06, 1.12], 1e-6).shape is Shape.SLOPE  # log range 0.113


def test_a_bend_that_noise_could_make_is_a_slope() -> None:
    y = [1.0, 1.85, 2.3]
    # D = (1/4 + 1.85/2 + 2.3/4 - 1.65) / 1.3 = 0.1 / 1.3 = 0.0769 at least needs 0.10; with 2.1 in
    # the middle it is 0.225 / 1.3 = 0.173, beyond two sds of 1 % noise but not of 30 %.
    assert label(y, 0.01).shape is Shape.SLOPE
    bent = [1.0, 2.1, 2.3]
    assert label(bent, 0.01).area == pytest.approx(0.225 / 1.3)
    assert label(bent, 0.01).shape is Shape.CONCAVE
    assert label(bent, 0.10).shape is Shape.SLOPE


def test_sd_of_the_area_agrees_with_simulation() -> None:
    y, sd = np.array([1.0, 2.0, 3.5, 4.0, 4.2]), 0.02
    rng = np.random.default_rng(0)
    noisy = np.log(y) + sd * rng.standard_normal((4000, 5))
    areas = [each.area for each in classify_rows(np.arange(5.0), noisy, sd)]
    assert label(y.tolist(), sd).area_sd == pytest.approx(float(np.std(areas)), rel=0.15)


@pytest.mark.parametrize("n", [3, 7])
def test_expected_range_is_that_of_the_order_statistics(n: int) -> None:
    # E max of n standard normals, by the density n phi(t) Phi(t)^(n-1); the range is twice it.
    expected = norm.expect(lambda t: t * n * norm.cdf(t) ** (n - 1))
    assert expected_range(n) == pytest.approx(2 * float(expected), rel=1e-6)


def test_rows_are_labelled_as_one_by_one() -> None:
    rows = np.log(np.array([[1.0, 3, 3, 3, 3], [1, 2, 4, 8, 16], [5, 5, 5, 5, 5]]))
    u = np.arange(5.0)
    assert classify_rows(u, rows) == tuple(classify(u, row) for row in rows)


@pytest.mark.parametrize(
    ("u", "log_y", "sd", "message"),
    [
        ([0, 1], [0, 1], 0.03, "at least 3 points, got 2"),
        ([0, 1, 1], [0, 1, 2], 0.03, "must ascend"),
        ([0, 1, 2], [0, 1], 0.03, "one height for every point"),
        ([0, 1, 2], [0, float("nan"), 2], 0.03, "must be finite"),
        ([0, 1, 2], [0, 1, 2], 0.0, "relative_sd must be positive, got 0;"),
    ],
)
def test_what_is_no_curve_is_refused(
    u: list[float], log_y: list[float], sd: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        classify(np.array(u, dtype=float), np.array(log_y, dtype=float), sd)


def test_throughput_over_batch_size_is_batch_over_latency_per_second_or_dollar() -> None:
    latency_s = np.array([0.1, 0.1, 0.2])
    values = np.array([1.0, 2.0, 4.0])
    per_s = curve_over("batch_size", values, latency_s, subject=SUBJECT)
    per_dollar = curve_over("batch_size", values, latency_s, subject=SUBJECT, usd_per_hour=1.8)
    assert per_s.throughput == pytest.approx((10, 20, 20))
    assert per_dollar.throughput == pytest.approx((20_000, 40_000, 40_000))  # * 3600 / 1.8
    assert (per_s.is_per_dollar, per_dollar.is_per_dollar) == (False, True)


def test_cores_that_save_no_time_lose_once_they_cost() -> None:
    cores, latency_s = np.array([1.0, 2, 4, 8]), np.full(4, 0.1)
    free = curve_over("cpu_cores", cores, latency_s, subject=SUBJECT)
    paid = curve_over("cpu_cores", cores, latency_s, subject=SUBJECT, usd_per_hour=0.05 * cores)
    assert free.shape is Shape.PLANE
    assert paid.direction is Direction.FALLING
    assert paid.throughput == pytest.approx((720_000, 360_000, 180_000, 90_000))  # 10 / s / USD


def test_proportional_gain_over_a_share_is_a_slope() -> None:
    share = np.array([0.25, 0.5, 0.75, 1.0])
    curve = curve_over("gpu_share", share, 0.01 / share, subject=SUBJECT)
    assert (curve.shape, curve.direction) == (Shape.SLOPE, Direction.RISING)


def test_good_interval_starts_where_interpolation_reaches_nine_tenths() -> None:
    curve = over_batches(np.array([10.0, 20, 40, 80, 100, 100, 100]))
    # 90 lies half-way from 80 at batch 8 = 2^3 to 100 at batch 16 = 2^4: 2^3.5.
    assert curve.good.low == pytest.approx(2**3.5)
    assert curve.good.high == 64.0
    assert 16 in curve.good
    assert 8 not in curve.good


def test_good_interval_ends_at_the_first_gap_around_the_maximum() -> None:
    curve = over_batches(np.array([99.0, 50, 95, 100, 80, 40, 95]))
    # On the left 95 is good and 50 is not: 2^(2 - 5/45); on the right 90 is half-way to 80: 2^3.5.
    assert curve.good.low == pytest.approx(2 ** (2 - 5 / 45))
    assert curve.good.high == pytest.approx(2**3.5)


def test_all_of_a_plane_is_good() -> None:
    curve = over_batches(np.array([100.0, 99, 101, 100, 98, 100, 100]))
    assert (curve.good.low, curve.good.high) == (1.0, 64.0)


@pytest.mark.parametrize(
    ("throughput", "words"),
    [
        ([10, 40, 80, 92, 97, 100, 100], "batch 1-64: concave, rising; good from 8"),
        # 0.9 * 64 = 57.6 is 0.8 of the way from 32 to 64: 2^5.8 = 55.7, the next whole batch is 56.
        ([1, 2, 4, 8, 16, 32, 64], "batch 1-64: convex, rising; good from 56"),
        ([64, 32, 16, 8, 4, 2, 1], "batch 1-64: convex, falling; good at 1"),
        # 90 is 0.8 of the way from 70 to 95: 2^1.8 = 3.5, and 2^4.2 = 18.4 on the other side.
        ([40, 70, 95, 100, 95, 70, 40], "batch 1-64: concave, peaks in between; good from 4 to 18"),
        ([5, 5, 5, 5, 5, 5, 5], "batch 1-64: plane, no effect"),
    ],
)
def test_curve_is_described_in_one_line(throughput: list[float], words: str) -> None:
    assert over_batches(np.array(throughput, dtype=float)).describe() == words


def test_values_may_come_in_any_order() -> None:
    shuffled = np.array([3, 0, 6, 1, 5, 2, 4])
    throughput = np.array([10.0, 40, 80, 92, 97, 100, 100])
    latency_s = BATCHES / throughput
    curve = curve_over("batch_size", BATCHES[shuffled], latency_s[shuffled], subject=SUBJECT)
    assert curve == over_batches(throughput)


def test_noise_that_is_unknown_is_three_per_cent() -> None:
    curve = curve_over(
        "batch_size",
        np.array([1.0, 2, 4]),
        np.full(3, 0.1),
        subject=SUBJECT,
        relative_sd=np.array([0.0, np.nan, 0.01]),
    )
    assert curve.relative_sd == (0.03, 0.03, 0.01)


def test_curves_of_many_operators_keep_their_subjects() -> None:
    other = CurveSubject(operator="softmax", dims=(64, 128), device="A100-40G")
    latency_s = np.stack([BATCHES * 0.01, np.full(7, 0.01)])
    flat, doubling = curves_over("batch_size", BATCHES, latency_s, subjects=(SUBJECT, other))
    assert (flat.subject, flat.shape) == (SUBJECT, Shape.PLANE)
    assert (doubling.subject, doubling.shape) == (other, Shape.CONVEX)


@pytest.mark.parametrize(
    ("values", "latency_s", "message"),
    [
        ([1, 2], [0.1, 0.1], "needs at least 3 points, got 2"),
        ([1, 2, 2], [0.1, 0.1, 0.2], "must ascend"),
        ([1, 2, 4], [0.1, 0.0, 0.2], "must be positive and finite"),
        ([0, 2, 4], [0.1, 0.1, 0.2], "must be positive"),
        ([1, 2, 4], [0.1, 0.1], "need latencies of that shape"),
    ],
)
def test_points_that_make_no_curve_are_refused_in_one_line(
    values: list[float], latency_s: list[float], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        curve_over("batch_size", np.array(values), np.array(latency_s), subject=SUBJECT)


def good(throughput: list[float], *, is_ordered: bool = True) -> list[int]:
    """Positions of the good values of one curve."""
    mask = good_values(np.log([throughput]), is_ordered=is_ordered)
    return np.flatnonzero(mask[0]).tolist()


def test_good_values_reach_nine_tenths_of_the_highest() -> None:
    assert good([10, 50, 89, 91, 100]) == [3, 4]


def test_good_values_with_an_order_end_at_the_first_gap_around_the_highest() -> None:
    # 95 is good but for the gaps at 80 and 85.
    assert good([95, 80, 92, 100, 91, 85, 95]) == [2, 3, 4]
    assert good([100, 80, 95]) == [0]
    assert good([95, 80, 100]) == [2]


def test_good_values_without_an_order_know_no_gap() -> None:
    assert good([95, 80, 92, 100, 91, 85, 95], is_ordered=False) == [0, 2, 3, 4, 6]


def test_every_value_of_a_plane_is_good() -> None:
    # ln(100 / 90.6) = 0.0987 is within 10 %, ln(100 / 89) = 0.1165 is not.
    assert good([90.6, 100, 91]) == [0, 1, 2]
    assert good([89, 100, 91]) == [1, 2]
    assert good([7, 7]) == [0, 1]


def test_good_values_of_many_curves_are_those_of_each() -> None:
    curves = [[10.0, 50, 89, 91, 100], [95.0, 80, 92, 100, 91], [7.0, 7, 7, 7, 7]]
    together = good_values(np.log(curves), is_ordered=True)
    assert [np.flatnonzero(row).tolist() for row in together] == [good(each) for each in curves]


def test_sparkline_starts_at_zero() -> None:
    # Eighths of the highest: 1/8 -> the 2nd block, 4/8 -> the 5th, the highest -> the last.
    assert sparkline([0.0, 1.0, 4.0, 8.0]) == "▁▂▅█"
    assert sparkline([3.0, 3.0]) == "██"
    assert sparkline([0.0, 0.0]) == "▁▁"
    assert sparkline([]) == ""
