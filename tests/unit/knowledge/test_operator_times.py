from collections.abc import Sequence

import numpy as np
import pytest

from falcon_ray.knowledge.cell_times import CellTimes, Prediction
from falcon_ray.knowledge.latency.estimates import LatencyEstimate
from falcon_ray.knowledge.operator_times import MAX_OPERATORS, THE_REST, operator_seconds
from falcon_ray.knowledge.operators.operator import N_DIMS, Family, FamilyCalls
from falcon_ray.space.configuration import FloatArray
from tests.unit.knowledge.known import CPU


def calls(family: Family, *names: str) -> FamilyCalls:
    k = len(names)
    return FamilyCalls(
        family=family,
        names=names,
        counts=np.ones(k),
        dims=np.ones((1, k, N_DIMS[family])),
        flops=np.ones((1, k)),
        bytes_moved=np.ones((1, k)),
    )


def times(
    groups: Sequence[FamilyCalls],
    *cells: Sequence[Sequence[float]],
    total_s: Sequence[float],
    strangers: frozenset[int] = frozenset(),
) -> CellTimes:
    """One batch size; seconds of each operator of each group, by cell."""
    n = len(cells) + len(strangers)
    log_seconds = np.log(np.append(total_s, np.ones(len(strangers))))[:, None]
    return CellTimes(
        batch_sizes=np.array([1.0]),
        log_seconds=log_seconds,
        sd=np.zeros((n, 1)),
        needed_bytes=np.ones((n, 1)),
        limit_bytes=np.ones(n),
        predictions={
            cell: Prediction(
                device=CPU,
                dtype="float32",
                part=1.0,
                calls=tuple(groups),
                estimate=LatencyEstimate(
                    log_seconds=log_seconds[cell],
                    sd=np.zeros(1),
                    operator_seconds=tuple(np.array([each]) for each in seconds),
                    basis="made up",
                ),
                log_factor=0.0,
            )
            for cell, seconds in enumerate(cells)
        },
        strangers=strangers,
        variance_left=1.0,
        warnings=(),
    )


def at_cell(found: dict[str, FloatArray], cell: int) -> dict[str, float]:
    return {name: round(float(each[cell, 0]), 9) for name, each in found.items()}


def test_operators_of_one_name_are_told_apart_by_family_alone() -> None:
    groups = [
        calls(Family.CONV_1X1, "conv2d", "conv2d"),
        calls(Family.CONV_DEPTHWISE, "conv2d"),
        calls(Family.ACTIVATION, "relu_", "relu"),
        calls(Family.VIEW, "view"),
    ]
    found = times(groups, [[3.0, 1.0], [2.0], [0.5, 0.5], [1e-12]], total_s=[10.0])
    # Of 7 s in operators everything is above 1 %; 3 s of the model's 10 belong to none.
    assert at_cell(dict(operator_seconds(found)), 0) == {
        "conv2d (1x1)": 4.0,
        "conv2d (depthwise)": 2.0,
        "relu": 1.0,
        THE_REST: 3.0,
    }


def test_operators_that_add_up_to_more_than_the_model_are_scaled_to_it() -> None:
    found = times(
        [calls(Family.LINEAR, "linear"), calls(Family.NORM, "layer_norm")],
        [[6.0], [2.0]],
        total_s=[4.0],
    )
    at = at_cell(dict(operator_seconds(found)), 0)
    assert (at["linear"], at["layer_norm"]) == (3.0, 1.0)


def test_what_is_key_in_one_cell_is_shown_in_all_of_them() -> None:
    groups = [
        calls(Family.LINEAR, "linear"),
        calls(Family.NORM, "layer_norm"),
        calls(Family.POOL, "mean"),
    ]
    # layer_norm: 0.5 % of the first cell, 20 % of the second; mean: below 1 % in both.
    found = times(groups, [[99.0], [0.5], [0.5]], [[79.5], [20.0], [0.5]], total_s=[100.0, 100.0])
    result = dict(operator_seconds(found))
    assert list(result) == ["linear", "layer_norm", THE_REST]
    assert at_cell(result, 0) == {"linear": 99.0, "layer_norm": 0.5, THE_REST: 0.5}


def test_only_the_most_important_of_very_many_are_key() -> None:
    n = MAX_OPERATORS + 5
    names = [f"op{i}" for i in range(n)]
    seconds = [2.0 + i for i in range(n)]
    found = times([calls(Family.OTHER, *names)], [seconds], total_s=[sum(seconds)])
    result = dict(operator_seconds(found))
    assert list(result) == [*reversed(names[-(MAX_OPERATORS - 1) :]), THE_REST]
    assert sum(at_cell(result, 0).values()) == pytest.approx(sum(seconds))


def test_on_a_device_that_nobody_knows_operators_take_what_they_do_on_average() -> None:
    group = [calls(Family.LINEAR, "linear")]
    found = times(group, [[1.0]], [[4.0]], total_s=[1.0, 4.0], strangers=frozenset({2}))
    assert at_cell(dict(operator_seconds(found)), 2)["linear"] == 2.0  # sqrt(1 x 4)
