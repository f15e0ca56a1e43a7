import math

import pytest

from falcon_ray.errors import InputError
from falcon_ray.space.dimension import KNOWN_DIMENSIONS, Dimension, Scale, Value, dimension


def test_a_known_name_brings_scale_and_unit() -> None:
    made = dimension("batch_wait_ms", [20, 0, 5])
    assert (made.scale, made.unit) == (Scale.LINEAR, "ms")


def test_numbers_are_kept_in_ascending_order() -> None:
    assert dimension("batch_size", [8, 1, 32]).values == (1, 8, 32)


def test_categories_keep_the_order_in_which_they_were_given() -> None:
    assert dimension("gpu_type", ["T4", "A10G"]).values == ("T4", "A10G")


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        (["a", "b"], Scale.CATEGORICAL),
        ([1, "b"], Scale.CATEGORICAL),
        ([True, False], Scale.CATEGORICAL),
        ([1, 2, 4], Scale.LOG2),  # 4 / 1 = 4 is a ratio worth a log
        ([1, 2, 3], Scale.LINEAR),  # 3 / 1 = 3 is not
        ([0, 5, 20], Scale.LINEAR),  # zero has no logarithm
        ([-4, 1, 4], Scale.LINEAR),
    ],
)
def test_the_scale_of_an_unknown_name_follows_from_its_values(
    values: list[Value], scale: Scale
) -> None:
    assert dimension("something_new", values).scale is scale


def test_positions_on_a_log_scale_are_equal_for_equal_ratios() -> None:
    made = dimension("batch_size", [1, 2, 4, 16])
    # log2: 0, 1, 2, 4 of 4
    assert [made.position(value) for value in made.values] == [0.0, 0.25, 0.5, 1.0]


def test_positions_on_a_linear_scale_are_equal_for_equal_differences() -> None:
    made = dimension("batch_wait_ms", [0, 5, 20])
    assert [made.position(value) for value in made.values] == [0.0, 0.25, 1.0]  # 5 / 20


def test_a_single_value_stands_at_zero() -> None:
    assert dimension("replicas", [4]).position(4) == 0.0


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("batch_size", [], "give at least one value"),
        ("batch_size", [1, 2, 2], "stands twice"),
        ("batch_size", [0, 1], "batch_size: must be at least 1, got 0"),
        ("batch_size", [1, 1.5], "must be a whole number, got 1.5"),
        ("batch_size", [1, "two"], "must be finite numbers, got 'two'"),
        ("batch_wait_ms", [0, math.nan], "must be finite numbers, got nan"),
        ("batch_wait_ms", [0, math.inf], "must be finite numbers, got inf"),
        ("gpu_share", [0.001, 1], "gpu_share: must be at least 0.01"),
        ("batch size", [1, 2], "must be an identifier such as batch_size, got 'batch size'"),
        ("dtype", "float32", "give a list of values, got the text 'float32'"),
    ],
)
def test_what_cannot_be_a_dimension_is_refused(
    name: str, values: list[Value] | str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        dimension(name, values)


def test_a_log_scale_refuses_zero_where_the_name_is_unknown_too() -> None:
    with pytest.raises(InputError, match="must be positive to compare by ratio, got 0"):
        Dimension("queue_length", (0, 1, 2), Scale.LOG2)


def test_every_known_dimension_says_what_it_means() -> None:
    for name, kind in KNOWN_DIMENSIONS.items():
        assert name.isidentifier()
        assert kind.meaning, name
        assert kind.minimum > 0 or kind.scale is not Scale.LOG2, name
