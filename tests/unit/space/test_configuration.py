import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from falcon_ray.errors import EmptySpaceError, InputError
from falcon_ray.space.configuration import Configuration, ConfigurationSpace
from falcon_ray.space.constraint import Constraint
from falcon_ray.space.dimension import Value, dimension


def small_space(*constraints: str) -> ConfigurationSpace:
    return ConfigurationSpace.of(
        {"batch_size": [1, 2, 4], "dtype": ["float32", "bfloat16"], "replicas": [1, 2]},
        constraints,
    )


def test_equality_and_hash_do_not_depend_on_the_order_of_names() -> None:
    one, other = Configuration({"a": 1, "b": "x"}), Configuration({"b": "x", "a": 1})
    assert one == other
    assert hash(one) == hash(other)
    assert len({one, other}) == 1


def test_a_configuration_differs_from_a_plain_mapping_and_from_other_values() -> None:
    assert Configuration({"a": 1}) != {"a": 1}
    assert Configuration({"a": 1}) != Configuration({"a": 2})


def test_a_configuration_does_not_change_with_the_mapping_that_it_was_made_of() -> None:
    values: dict[str, Value] = {"a": 1}
    configuration = Configuration(values)
    values["a"] = 2
    assert configuration["a"] == 1
    with pytest.raises(TypeError):
        configuration["a"] = 3  # pyright: ignore[reportIndexIssue]


def test_a_pickled_configuration_is_found_again_in_a_process_that_hashes_otherwise() -> None:
    script = (
        "import pickle, sys; from falcon_ray.space.configuration import Configuration;"
        "sys.stdout.buffer.write(pickle.dumps(Configuration({'dtype': 'bfloat16', 'a': 1})))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    pickled = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, env=environment
    ).stdout
    loaded, here = pickle.loads(pickled), Configuration({"a": 1, "dtype": "bfloat16"})  # noqa: S301
    assert loaded == here
    assert hash(loaded) == hash(here)


def test_values_are_read_by_kind_with_a_default_where_the_space_lacks_them() -> None:
    configuration = Configuration({"cpu_cores": 2, "batch_wait_ms": 2.5, "dtype": "float32"})
    assert configuration.number("batch_wait_ms", 0.0) == 2.5
    assert configuration.number("gpu_share", 1.0) == 1.0
    assert configuration.count("cpu_cores", 1) == 2
    assert configuration.count("replicas", 3) == 3
    assert configuration.text("dtype", "bfloat16") == "float32"
    assert configuration.text("engine", "none") == "none"


def test_text_is_no_number() -> None:
    with pytest.raises(InputError, match="dtype: expected a number, got 'float32'"):
        Configuration({"dtype": "float32"}).number("dtype", 1.0)


def test_a_configuration_prints_as_one_line_of_names_and_values() -> None:
    assert str(Configuration({"batch_size": 8, "dtype": "float32"})) == "batch_size=8 dtype=float32"


def test_candidates_are_all_combinations_that_the_constraints_leave() -> None:
    space = small_space("batch_size * replicas <= 4", "dtype == 'float32' or batch_size > 1")
    assert space.n_combinations == 12  # 3 * 2 * 2
    # batch 4 with 2 replicas goes (2 dtypes), then batch 1 in bfloat16 (2 replicas): 12 - 2 - 2
    assert len(space) == 8
    assert Configuration({"batch_size": 4, "dtype": "float32", "replicas": 2}) not in space
    assert Configuration({"batch_size": 4, "dtype": "float32", "replicas": 1}) in space


def test_candidates_and_index_agree_and_keep_their_order() -> None:
    space = small_space()
    assert [space.index[candidate] for candidate in space.candidates] == list(range(12))
    assert space.candidates == small_space().candidates


def test_codes_are_the_positions_of_the_candidates_values() -> None:
    space = ConfigurationSpace.of(
        {"cpu_cores": (1, 2), "dtype": ("float32", "bfloat16"), "replicas": (1, 2, 4)},
        ("cpu_cores * replicas <= 4", "dtype != 'bfloat16' or cpu_cores == 2"),
    )
    decoded = [
        tuple(each.values[code] for each, code in zip(space.dimensions, row, strict=True))
        for row in space.codes.tolist()
    ]
    # 12 combinations; 2 cores x 4 replicas breaks the first condition (2 of them), and 1 core
    # in bfloat16 the second (3 of them).
    assert len(decoded) == 12 - 2 - 3
    assert decoded == [tuple(candidate.values()) for candidate in space.candidates]


def test_a_candidate_is_found_at_its_position_without_building_the_others() -> None:
    space = small_space("batch_size * replicas <= 4", "dtype == 'float32' or batch_size > 1")
    found = [space.candidate(i) for i in range(len(space))]
    assert [space.position(each) for each in found] == list(range(len(space)))
    assert {"candidates", "index"}.isdisjoint(space.__dict__)
    assert tuple(found) == space.candidates


@pytest.mark.parametrize(
    "other",
    [
        {"batch_size": 4, "dtype": "float32", "replicas": 2},  # breaks the constraint
        {"batch_size": 3, "dtype": "float32", "replicas": 1},
        {"batch_size": 4, "dtype": "float32"},
        {"batch_size": 4, "dtype": "float32", "cpu_cores": 1},
        {"batch_size": 4, "dtype": "float32", "replicas": 1, "cpu_cores": 1},
    ],
)
def test_what_is_no_candidate_has_no_position(other: dict[str, Value]) -> None:
    space = small_space("batch_size * replicas <= 4")
    assert space.position(other) is None
    assert Configuration(other) not in space


def test_what_is_no_mapping_is_no_candidate() -> None:
    assert "float32" not in small_space()


def test_a_condition_is_not_asked_of_what_an_earlier_one_excluded() -> None:
    space = ConfigurationSpace.of({"x": (0, 1, 2)}, ("x > 0", "2 / x >= 2"))
    assert [candidate["x"] for candidate in space.candidates] == [1]


def test_an_empty_space_names_the_constraint_that_emptied_it_and_the_counts_before() -> None:
    space = small_space("batch_size > 1", "batch_size * replicas < 2", "replicas > 0")
    with pytest.raises(
        EmptySpaceError,
        match=r"12 combinations, 8 after 'batch_size > 1', 0 after 'batch_size \* replicas < 2'; "
        "relax that constraint or widen the values of batch_size and replicas",
    ):
        len(space)


def test_a_space_needs_dimensions_with_different_names() -> None:
    with pytest.raises(InputError, match="at least one dimension"):
        ConfigurationSpace(())
    twice = (dimension("replicas", [1]), dimension("replicas", [2]))
    with pytest.raises(InputError, match="stands twice"):
        ConfigurationSpace(twice)


def test_a_constraint_over_an_unknown_dimension_is_refused_at_once() -> None:
    with pytest.raises(InputError, match="'min', which is no dimension"):
        ConfigurationSpace((dimension("replicas", [1, 2]),), (Constraint("min(replicas, 2) > 1"),))


def test_two_different_categories_are_one_apart() -> None:
    space = ConfigurationSpace.of({"gpu_type": ["T4", "L4", "A10G"]})
    points = space.encode(space.candidates)
    assert points.shape == (3, 3)
    distances = ((points[:, None] - points[None]) ** 2).sum(-1)
    assert distances == pytest.approx(1 - np.eye(3))  # (1/sqrt 2)^2 + (1/sqrt 2)^2 = 1


def test_squared_distances_add_up_over_dimensions_on_their_own_scales() -> None:
    space = ConfigurationSpace.of(
        {"batch_size": [1, 2, 16], "batch_wait_ms": [0, 5, 20], "dtype": ["a", "b"]}
    )
    start, end = space.encode(
        [
            Configuration({"batch_size": 1, "batch_wait_ms": 0, "dtype": "a"}),
            Configuration({"batch_size": 2, "batch_wait_ms": 5, "dtype": "b"}),
        ]
    )
    # log2(2) / log2(16) = 1/4; 5 / 20 = 1/4; another category = 1
    assert ((start - end) ** 2).sum() == pytest.approx(1 / 16 + 1 / 16 + 1)


def test_dimensions_with_one_value_take_no_column() -> None:
    space = ConfigurationSpace.of({"batch_size": [1, 2], "dtype": ["float32"]})
    assert space.encode(space.candidates).tolist() == [[0.0], [1.0]]
    single = ConfigurationSpace.of({"dtype": ["float32"]})
    assert single.encode(single.candidates).tolist() == [[0.0]]


def test_single_valued_dimensions_may_be_left_out() -> None:
    space = ConfigurationSpace.of({"batch_size": [1, 2], "dtype": ["float32"]})
    assert space.configuration({"batch_size": 2})["dtype"] == "float32"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 1, "dtype": "float32"}, r"replicas is missing; its values are \[1, 2\]"),
        ({"batch": 1}, "'batch' is no dimension of this space: batch_size, dtype, replicas"),
        ({"batch_size": 3, "dtype": "float32", "replicas": 1}, r"batch_size=3 is not one of \[1"),
        (
            {"batch_size": 4, "dtype": "float32", "replicas": 2},
            r"replicas=2 breaks the constraint 'batch_size \* replicas <= 4'",
        ),
    ],
)
def test_what_is_no_member_is_refused_with_the_reason(
    values: dict[str, Value], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        small_space("batch_size * replicas <= 4").configuration(values)


def test_a_space_survives_its_round_trip_through_json() -> None:
    space = small_space("batch_size * replicas <= 4")
    record = space.to_json()
    assert record == {
        "dimensions": {
            "batch_size": [1, 2, 4],
            "dtype": ["float32", "bfloat16"],
            "replicas": [1, 2],
        },
        "constraints": ["batch_size * replicas <= 4"],
    }
    again = ConfigurationSpace.of(record["dimensions"], record["constraints"])  # type: ignore[arg-type]
    assert again == space
