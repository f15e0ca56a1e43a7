import numpy as np
import pytest

from falcon_ray.knowledge.operators.operator import Decomposition, Family, Operator


def linear(rows: int, *, count: int = 1) -> Operator:
    """Of 8 features to 4, in float32."""
    return Operator(
        name="linear",
        family=Family.LINEAR,
        dims=(rows, 4, 8),
        shapes=((rows, 8), (4, 8)),
        count=count,
        flops=2 * rows * 4 * 8,
        bytes_read=4 * (rows * 8 + 4 * 8),
        bytes_written=4 * rows * 4,
    )


def lookup(rows: int) -> Operator:
    return Operator(
        name="embedding",
        family=Family.EMBEDDING,
        dims=(rows, 8),
        dtype="int64",
        bytes_read=8 * rows,
    )


def decomposition() -> Decomposition:
    return Decomposition(
        model="two_layers",
        batch_sizes=(2, 4),
        low=(linear(2, count=3), lookup(10)),
        high=(linear(4, count=3), lookup(20)),
        parameter_bytes=128,
        activation_bytes=(1000, 1800),
    )


def test_operators_between_and_beyond_the_traced_batch_sizes_are_affine() -> None:
    assert decomposition().at(3) == (linear(3, count=3), lookup(15))
    assert decomposition().at(64) == (linear(64, count=3), lookup(320))


def test_calls_of_one_family_are_arrays_over_batch_sizes() -> None:
    calls = {each.family: each for each in decomposition().calls(np.array([1.0, 7.0]))}
    assert set(calls) == {Family.LINEAR, Family.EMBEDDING}
    found = calls[Family.LINEAR]
    assert found.names == ("linear",)
    assert found.counts.tolist() == [3]
    assert found.dims.tolist() == [[[1, 4, 8]], [[7, 4, 8]]]
    assert found.flops.tolist() == [[64], [448]]  # 2 x rows x 4 x 8
    assert found.bytes_moved.tolist() == [[4 * (8 + 32 + 4)], [4 * (56 + 32 + 28)]]


def test_half_precision_halves_the_bytes_of_floats_and_leaves_integers() -> None:
    full = {each.family: each for each in decomposition().calls(np.array([5.0]))}
    half = {each.family: each for each in decomposition().calls(np.array([5.0]), dtype="bfloat16")}
    for family, factor in ((Family.LINEAR, 0.5), (Family.EMBEDDING, 1.0)):
        assert half[family].bytes_moved == pytest.approx(factor * full[family].bytes_moved)


def test_activation_memory_is_affine_and_follows_the_dtype() -> None:
    # 400 bytes a sample, 200 of its own.
    assert decomposition().activation_bytes_at(np.array([1.0, 8.0])).tolist() == [600, 3400]
    assert decomposition().activation_bytes_at(np.array([8.0]), dtype="float16").tolist() == [1700]


def test_traces_of_different_operators_are_refused() -> None:
    with pytest.raises(ValueError, match="different operators at batch 2 and 4"):
        Decomposition(
            model="branching",
            batch_sizes=(2, 4),
            low=(linear(2),),
            high=(linear(4, count=2),),
            parameter_bytes=0,
            activation_bytes=(0, 0),
        )


@pytest.mark.parametrize(
    ("dims", "flops", "problem"),
    [((1, 2), 1.0, "has 3 dimensions"), ((1, 2, 3), -1.0, "negative")],
)
def test_an_operator_that_cannot_be_is_refused(
    dims: tuple[int, ...], flops: float, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        Operator(name="linear", family=Family.LINEAR, dims=dims, flops=flops)
