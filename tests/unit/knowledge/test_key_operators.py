import numpy as np
import pytest

from falcon_ray.knowledge.operators.key_operators import key_operators
from falcon_ray.knowledge.operators.operator import Family, FamilyCalls
from falcon_ray.space.configuration import FloatArray


def calls(family: Family, n: int, n_dims: int) -> FamilyCalls:
    return FamilyCalls(
        family=family,
        names=tuple(f"{family.value}_{i}" for i in range(n)),
        counts=np.full(n, 2.0),
        dims=np.full((1, n, n_dims), 3.0),
        flops=np.ones((1, n)),
        bytes_moved=np.ones((1, n)),
    )


def found_names(seconds: list[FloatArray], total: float) -> tuple[list[str], float, float, int]:
    groups = [calls(Family.LINEAR, 3, 3), calls(Family.NORM, 2, 2)]
    found = key_operators(groups, seconds, batch_index=0, total_seconds=total)
    return (
        [each.name for each in found.operators],
        found.others_share,
        found.host_share,
        found.n_others,
    )


def test_key_operators_cover_95_percent_of_the_operators_time() -> None:
    # Of 100: 60 + 30 = 90 are not enough, 96 are; 3.2 and 0.8 are left, the former above 1 %.
    names, others, host, n_others = found_names(
        [np.array([[60.0, 6.0, 0.8]]), np.array([[30.0, 3.2]])], 125.0
    )
    assert names == ["linear_0", "norm_0", "linear_1", "norm_1"]
    assert others == pytest.approx(0.8 / 125)
    assert host == pytest.approx(25 / 125)
    assert n_others == 1


def test_shares_are_of_the_whole_model() -> None:
    found = key_operators(
        [calls(Family.LINEAR, 1, 3)], [np.array([[2.0]])], batch_index=0, total_seconds=8.0
    )
    (only,) = found.operators
    assert only.share == pytest.approx(0.25)
    assert (only.calls, only.dims, only.positions) == (2, (3, 3, 3), ((0, 0),))


def test_views_are_never_key() -> None:
    groups = [calls(Family.VIEW, 1, 2), calls(Family.LINEAR, 1, 3)]
    found = key_operators(
        groups, [np.array([[5.0]]), np.array([[1.0]])], batch_index=0, total_seconds=1.0
    )
    assert [each.name for each in found.operators] == ["linear_0"]


def test_a_model_of_views_has_no_key_operators() -> None:
    with pytest.raises(ValueError, match="no operator takes any time"):
        key_operators(
            [calls(Family.VIEW, 1, 2)], [np.array([[5.0]])], batch_index=0, total_seconds=1.0
        )


def test_equal_operators_that_are_laid_out_otherwise_are_one() -> None:
    twice = FamilyCalls(
        family=Family.ACTIVATION,
        names=("relu", "relu"),
        counts=np.array([1.0, 3.0]),
        dims=np.full((1, 2, 2), 8.0),
        flops=np.zeros((1, 2)),
        bytes_moved=np.ones((1, 2)),
    )
    found = key_operators([twice], [np.array([[1.0, 3.0]])], batch_index=0, total_seconds=4.0)
    (only,) = found.operators
    assert (only.calls, only.share, only.positions) == (4, 1.0, ((0, 0), (0, 1)))
