import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from falcon_ray.errors import InputError
from falcon_ray.knowledge.device import Device, DeviceKind
from falcon_ray.knowledge.latency.borrowed_shapes import BorrowedShapes
from falcon_ray.knowledge.latency.nearest_shapes import NearestShapes, OperatorPrediction
from falcon_ray.knowledge.latency.shape_coordinates import Machine, Shapes, ideal_seconds
from falcon_ray.knowledge.latency.shape_regression import MAX_DENSE
from falcon_ray.knowledge.operators.operator import Family
from falcon_ray.knowledge.profile.schemas import OPERATORS
from falcon_ray.space.configuration import FloatArray


def a_gpu(*, bandwidth: float = 1e11, flops: float = 1e12) -> Device:
    return Device(
        name="some GPU",
        kind=DeviceKind.GPU,
        peak_flops_per_s={"float32": flops},
        bandwidth_bytes_per_s=bandwidth,
        memory_bytes=1e10,
        units=10,
        source="made up",
    )


def rows(
    family: Family,
    dims: FloatArray,
    seconds: FloatArray,
    *,
    names: Sequence[str] | str = "op",
    flops: FloatArray | None = None,
    bytes_moved: FloatArray | None = None,
) -> pa.Table:
    n = len(dims)
    columns = {
        "op": [names] * n if isinstance(names, str) else list(names),
        "family": [family.value] * n,
        "dims": dims.astype(np.int64).tolist(),
        "dtype": ["float32"] * n,
        "device": ["some GPU"] * n,
        "threads": [0] * n,
        "share": [1.0] * n,
        "mode": ["eager"] * n,
        "environment": ["made up"] * n,
        "latency_us": (1e6 * seconds).tolist(),
        "relative_sd": [0.0] * n,
        "n": [1] * n,
        "flops": (np.zeros(n) if flops is None else flops).tolist(),
        "bytes": (4 * dims.sum(axis=1) if bytes_moved is None else bytes_moved).tolist(),
        "source": ["made up"] * n,
    }
    return pa.table(columns, schema=OPERATORS)


def one_to_one(elements: FloatArray) -> FloatArray:
    """Canonical dimensions of operators that read and write as many elements."""
    return np.stack([elements, elements], axis=1)


def streaming(elements: FloatArray) -> FloatArray:
    """10 us to launch, and twice as long as 8 bytes per element take at 1e11 bytes/s."""
    return 10e-6 + 2 * 8 * elements / 1e11


def profiled(n: int = 50, *, names: Sequence[str] | str = "op") -> pa.Table:
    elements = np.logspace(3, 8, n).round()
    return rows(Family.ELEMENTWISE, one_to_one(elements), streaming(elements), names=names)


def ask(
    shapes: NearestShapes | BorrowedShapes, elements: FloatArray, *, name: str = "op"
) -> OperatorPrediction:
    dims = one_to_one(elements)
    nothing = np.zeros(len(elements))
    return shapes.predict(Family.ELEMENTWISE, name, dims, nothing, 4 * dims.sum(axis=1))


@pytest.mark.parametrize("n", [50, MAX_DENSE + 100])
def test_shapes_between_measured_ones_take_what_lies_between(n: int) -> None:
    elements = np.array([3e3, 7e5, 4e7])
    predicted = ask(NearestShapes.from_rows(profiled(n), a_gpu()), elements)
    assert np.exp(predicted.log_seconds) == pytest.approx(streaming(elements), rel=0.01)
    assert predicted.covered.all()


def test_an_efficiency_that_changes_with_the_shape_is_learnt_from_the_nearest_shapes() -> None:
    elements = np.logspace(3, 8, 60).round()

    def half_as_fast_above_a_million(size: FloatArray) -> FloatArray:
        return streaming(size) * np.where(size > 1e6, 2.0, 1.0)

    dims = one_to_one(elements)
    table = rows(Family.ELEMENTWISE, dims, half_as_fast_above_a_million(elements))
    asked = np.array([1e5, 2e7])
    predicted = ask(NearestShapes.from_rows(table, a_gpu()), asked)
    expected = half_as_fast_above_a_million(asked)
    assert np.exp(predicted.log_seconds) == pytest.approx(expected, rel=0.03)


def test_nothing_is_predicted_below_the_shortest_measured_latency() -> None:
    large = np.logspace(6, 8, 30).round()
    table = rows(Family.ELEMENTWISE, one_to_one(large), streaming(large))
    floor_s = streaming(large)[0]  # 10 us + 160 us
    predicted = ask(NearestShapes.from_rows(table, a_gpu()), np.array([1.0, 10.0]))
    assert (predicted.log_seconds >= math.log(floor_s) - 1e-9).all()


def test_the_error_bar_grows_with_the_distance_to_what_was_measured() -> None:
    rng = np.random.default_rng(0)
    elements = np.logspace(3, 6, 40).round()
    wavy = streaming(elements) * np.exp(0.2 * np.sin(2 * np.log(elements)))
    table = rows(
        Family.ELEMENTWISE,
        one_to_one(elements),
        wavy * np.exp(0.01 * rng.standard_normal(40)),
    )
    sd = ask(NearestShapes.from_rows(table, a_gpu()), np.array([3e4, 1e7, 1e10])).sd
    assert sd[0] < sd[1] < sd[2]


def test_80_percent_intervals_cover_about_80_percent() -> None:
    rng = np.random.default_rng(1)
    elements = 10 ** rng.uniform(3, 8, 300)
    seconds = streaming(elements) * np.exp(0.1 * rng.standard_normal(300))
    table = rows(Family.ELEMENTWISE, one_to_one(elements)[:100], seconds[:100])
    predicted = ask(NearestShapes.from_rows(table, a_gpu()), elements[100:])
    errors = np.abs(predicted.log_seconds - np.log(seconds[100:]))
    # 200 cases: 80 % with a standard error of sqrt(.8 * .2 / 200) = 2.8 %.
    assert 0.72 < np.mean(errors < 1.2816 * predicted.sd) < 0.88


def test_names_tell_operators_of_one_family_apart_and_those_in_place_are_the_same() -> None:
    elements = np.logspace(3, 8, 60).round()
    names = ["relu", "gelu"] * 30
    factor = np.array([1.0, 3.0] * 30)
    table = rows(
        Family.ELEMENTWISE, one_to_one(elements), streaming(elements) * factor, names=names
    )
    shapes = NearestShapes.from_rows(table, a_gpu())
    asked = np.array([1e6])
    relu, in_place, gelu, unknown = (
        float(np.exp(ask(shapes, asked, name=name).log_seconds[0]))
        for name in ("relu", "relu_", "gelu", "tanh")
    )
    assert relu == pytest.approx(streaming(asked)[0], rel=0.05)
    assert in_place == relu
    assert gelu == pytest.approx(3 * streaming(asked)[0], rel=0.05)
    assert relu < unknown < gelu


def test_a_family_that_nobody_measured_is_not_covered_and_takes_its_roofline() -> None:
    shapes = NearestShapes.from_rows(profiled(), a_gpu())
    dims = np.array([[1000.0, 1000.0, 1000.0]])
    predicted = shapes.predict(Family.LINEAR, "linear", dims, np.array([2e9]), np.array([12e6]))
    # 2e9 FLOPs at 1e12 per second take 2 ms, 12e6 bytes at 1e11 per second 0.12 ms.
    assert np.exp(predicted.log_seconds) == pytest.approx([2e-3])
    assert not predicted.covered.any()


def test_a_product_pays_for_whole_tiles_in_full_waves() -> None:
    shapes = Shapes(
        family=Family.LINEAR,
        dims=np.array([[65.0, 640.0, 100.0]]),
        flops=np.array([2 * 65 * 640 * 100.0]),
        bytes_moved=np.array([4e5]),
    )
    machine = Machine.of(a_gpu(), dtype="float32", share=1.0)
    # 2 x 10 tiles of 64 are 2 waves on 10 units; 1 x 5 tiles of 128 are 1 wave.
    small = 2 * 10 * 2 * 64**2 * 100 / 1e12
    large = 1 * 10 * 2 * 128**2 * 100 / 1e12
    expected = [1.0, 4e5 / 1e11, 8.32e6 / 1e12, small, large]
    assert ideal_seconds(shapes, machine)[0] == pytest.approx(expected)


def test_half_of_a_gpus_units_need_twice_as_many_waves() -> None:
    shapes = Shapes(
        family=Family.BMM,
        dims=np.array([[10.0, 128.0, 128.0, 64.0]]),
        flops=np.array([2 * 10 * 128 * 128 * 64.0]),
        bytes_moved=np.array([1e6]),
    )
    whole, half = (
        ideal_seconds(shapes, Machine.of(a_gpu(), dtype="float32", share=share))[0, -1]
        for share in (1.0, 0.5)
    )
    assert half == pytest.approx(2 * whole)


def test_moved_to_a_device_with_twice_the_bandwidth_large_operators_take_half() -> None:
    moved = NearestShapes.from_rows(profiled(), a_gpu()).moved_to(a_gpu(bandwidth=2e11))
    predicted = ask(moved, np.array([5e7]))
    # 10 us + 2 * 8 * 5e7 / 2e11 s = 4.01 ms
    assert np.exp(predicted.log_seconds) == pytest.approx([4.01e-3], rel=0.02)


def test_lenders_are_averaged_and_what_they_disagree_on_widens_the_error_bar() -> None:
    elements = np.logspace(3, 8, 50).round()
    device = a_gpu()
    lenders = [
        NearestShapes.from_rows(
            rows(Family.ELEMENTWISE, one_to_one(elements), factor * streaming(elements)), device
        )
        for factor in (1.0, 4.0)
    ]
    asked = np.array([1e6])
    borrowed = ask(BorrowedShapes(lenders), asked)
    # The geometric mean of 1 and 4 is 2.
    assert np.exp(borrowed.log_seconds) == pytest.approx(2 * streaming(asked), rel=0.02)
    # Both are log 2 from their mean; with two more at .25: (2 log(2)^2 + 2 * .25^2) / 3, times
    # 3/2 for a mean of two.
    between = (2 * math.log(2) ** 2 + 2 * 0.25**2) / 3 * 1.5
    assert borrowed.sd == pytest.approx([math.sqrt(between)], rel=0.05)


def test_borrowing_what_no_lender_measured_is_not_covered() -> None:
    borrowed = BorrowedShapes([NearestShapes.from_rows(profiled(), a_gpu())])
    one = np.ones(1)
    assert not borrowed.predict(Family.NORM, "norm", np.ones((1, 2)), one, one).covered.any()


def test_two_measurements_suffice_for_a_prediction() -> None:
    predicted = ask(NearestShapes.from_rows(profiled(2), a_gpu()), np.array([1e5]))
    assert np.isfinite(predicted.log_seconds).all()
    assert (predicted.sd > 0).all()


def test_no_rows_are_refused_with_what_to_do() -> None:
    with pytest.raises(InputError, match=r"some GPU.*run falcon-ray profile"):
        NearestShapes.from_rows(profiled().slice(0, 0), a_gpu())


def test_rows_with_another_familys_dimensions_are_refused() -> None:
    table = rows(Family.LINEAR, np.ones((3, 2)), np.ones(3))
    with pytest.raises(InputError, match=r"linear has 3 dimensions.*\[2\]"):
        NearestShapes.from_rows(table, a_gpu())
