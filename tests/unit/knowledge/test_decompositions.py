import dataclasses

from falcon_ray.knowledge.profile.decompositions import (
    decomposition_rows,
    decompositions_of,
    model_key,
)
from falcon_ray.knowledge.profile.schemas import DECOMPOSITIONS
from tests.unit.knowledge.test_operators import decomposition, linear


def test_a_decomposition_survives_its_round_trip_through_rows() -> None:
    before = decomposition()
    rows = decomposition_rows(before)
    assert rows.schema == DECOMPOSITIONS
    after = decompositions_of(rows)[model_key(before)]
    assert [dataclasses.replace(each, shapes=()) for each in before.at(9)] == list(after.at(9))
    assert (after.model, after.parameter_bytes) == (before.model, before.parameter_bytes)


def test_models_of_one_name_and_other_operators_have_other_keys() -> None:
    one = decomposition()
    other = dataclasses.replace(one, low=(linear(2),), high=(linear(4),))
    assert model_key(one) == model_key(decomposition())
    assert model_key(one) != model_key(other)
    assert model_key(one).startswith("two_layers#")
