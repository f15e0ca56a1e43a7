from collections.abc import Mapping

import pytest

from falcon_ray.errors import InputError
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.dimension import Dimension, Scale, Value, dimension
from falcon_ray.space.listed import ListedSpace

ROWS: list[dict[str, Value]] = [
    {"gpu_type": "T4", "batch_size": 8},
    {"gpu_type": "L4", "batch_size": 1},
    {"gpu_type": "T4", "batch_size": 2},
]
SPACE = ListedSpace.of_rows(ROWS)


def test_candidates_are_the_rows_in_their_order_and_no_others() -> None:
    assert [dict(each) for each in SPACE.candidates] == ROWS
    assert len(SPACE) == 3
    assert SPACE.n_combinations == 6  # 2 * 3
    assert Configuration({"gpu_type": "L4", "batch_size": 8}) not in SPACE


def test_dimensions_hold_the_values_that_occur_with_the_scale_of_their_name() -> None:
    gpu_type, batch_size = SPACE.dimensions
    assert (gpu_type.values, gpu_type.scale) == (("T4", "L4"), Scale.CATEGORICAL)
    assert (batch_size.values, batch_size.scale) == ((1, 2, 8), Scale.LOG2)


def test_a_dimension_that_is_not_well_known_may_be_given() -> None:
    layout = Dimension("layout", (1, 2, 4), Scale.CATEGORICAL)
    space = ListedSpace.of_rows([{"layout": 4}, {"layout": 1}], [layout])
    assert space.dimensions == (layout,)
    assert space.codes.tolist() == [[2], [0]]


def test_codes_follow_the_rows_though_numbers_are_sorted() -> None:
    assert SPACE.codes.tolist() == [[0, 2], [1, 0], [0, 1]]


def test_every_candidate_is_found_where_it_stands() -> None:
    assert [SPACE.position(each) for each in SPACE.candidates] == [0, 1, 2]
    assert [SPACE.candidate(i) for i in range(3)] == list(SPACE.candidates)
    assert SPACE.index == {each: i for i, each in enumerate(SPACE.candidates)}


@pytest.mark.parametrize(
    "other",
    [
        {"gpu_type": "L4", "batch_size": 2},  # both values occur, but not together
        {"gpu_type": "A10G", "batch_size": 2},
        {"gpu_type": "T4"},
        {"gpu_type": "T4", "batch_size": 2, "replicas": 1},
        {"gpu_type": "T4", "replicas": 1},
    ],
)
def test_what_is_not_listed_has_no_position(other: Mapping[str, Value]) -> None:
    assert SPACE.position(other) is None
    assert other not in SPACE


def test_a_row_that_stands_twice_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="stands twice: gpu_type=L4 batch_size=1; merge"):
        ListedSpace.of_rows([*ROWS, ROWS[1]])


def test_rows_with_different_keys_are_refused() -> None:
    with pytest.raises(InputError, match=r"the keys \['gpu_type', 'batch_size'\], got \['gpu_"):
        ListedSpace.of_rows([ROWS[0], {"gpu_type": "T4"}])


def test_a_list_without_rows_is_refused() -> None:
    with pytest.raises(InputError, match="at least one configuration"):
        ListedSpace.of_rows([])
    with pytest.raises(InputError, match="at least one configuration"):
        ListedSpace((dimension("batch_size", [1]),))


def test_a_listed_value_that_no_dimension_has_is_refused() -> None:
    space = ListedSpace((dimension("batch_size", [1]),), listed=(Configuration({"batch_size": 3}),))
    with pytest.raises(InputError, match="batch_size has no value 3 in this space"):
        len(space)


def test_a_combination_that_is_not_listed_is_no_member() -> None:
    with pytest.raises(InputError):
        SPACE.configuration({"gpu_type": "L4", "batch_size": 8})
