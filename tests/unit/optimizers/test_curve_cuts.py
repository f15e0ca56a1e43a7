from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from falcon_ray.optimizers.coordinates import IndexArray
from falcon_ray.optimizers.curve_cuts import CurveCuts, Cut
from falcon_ray.space.configuration import ConfigurationSpace, FloatArray

BATCHES = ConfigurationSpace.of({"batch_size": [1, 2, 4, 8]})
GPUS = ConfigurationSpace.of({"gpu_type": ["T4", "L4", "A10G"]})
BOTH = ConfigurationSpace.of({"gpu_type": ["T4", "L4"], "batch_size": [1, 2, 4, 8]})


def cuts(
    space: ConfigurationSpace,
    bought: Mapping[str, Sequence[float]],
    usd_per_hour: FloatArray | None = None,
) -> CurveCuts:
    """Cuts by operators of which a second buys this much for each candidate."""
    seconds = {name: 1 / np.array(each, dtype=np.float64) for name, each in bought.items()}
    prices = np.ones(len(space)) if usd_per_hour is None else usd_per_hour
    return CurveCuts(space.dimensions, space.codes, prices, seconds)


def every(space: ConfigurationSpace) -> IndexArray:
    return np.arange(len(space))


def words(space: ConfigurationSpace, bought: Mapping[str, Sequence[float]]) -> list[str]:
    """Both sides of the only cut of a whole space."""
    proposed = cuts(space, bought)
    (cut,) = proposed.proposals(every(space))
    return [proposed.words(cut, every(space), on_good_side=side) for side in (True, False)]


def test_a_cut_keeps_what_is_within_a_tenth_of_the_best_together() -> None:
    proposed = cuts(BATCHES, {"linear": [1, 2, 3.7, 4]}).proposals(every(BATCHES))
    assert proposed == (Cut(column=0, good=frozenset({2, 3}), operators=("linear",)),)


def test_what_counts_is_throughput_per_dollar() -> None:
    prices = np.array([1.0, 1.0, 4.0, 8.0])  # per dollar 1, 2, 1, 1/2
    proposed = cuts(BATCHES, {"linear": [1, 2, 4, 4]}, prices).proposals(every(BATCHES))
    assert proposed == (Cut(column=0, good=frozenset({1}), operators=("linear",)),)


def test_a_plane_proposes_nothing() -> None:
    assert cuts(BATCHES, {"linear": [1.0, 1.05, 1.02, 1.0]}).proposals(every(BATCHES)) == ()


def test_operators_that_agree_propose_one_cut_the_longest_named_first() -> None:
    bought = {"softmax": [4, 8, 16, 16], "linear": [1, 2, 4, 4]}
    proposed = cuts(BATCHES, bought).proposals(every(BATCHES))
    assert proposed == (Cut(column=0, good=frozenset({2, 3}), operators=("linear", "softmax")),)


def test_operators_that_disagree_propose_a_cut_each() -> None:
    bought = {"linear": [1, 2, 4, 8], "cache misses": [8, 4, 2, 1]}
    proposed = cuts(BATCHES, bought).proposals(every(BATCHES))
    assert {(cut.good, cut.operators) for cut in proposed} == {
        (frozenset({3}), ("linear",)),
        (frozenset({0}), ("cache misses",)),
    }


@pytest.mark.parametrize(("bought", "says"), [(20.0, False), (16.0, True)])
def test_an_operator_that_takes_less_than_a_twentieth_of_the_time_has_no_say(
    bought: float, *, says: bool
) -> None:
    # Beside 1 s of the other, two candidates take 1 / bought s and two 1 / (1.2 bought) s:
    # shares of 1/21 and 1/25, 4.4 % on average; or of 1/17 and 1/20.2, 5.4 %.
    curves = {"linear": [1.0] * 4, "softmax": [bought, bought, 1.2 * bought, 1.2 * bought]}
    assert bool(cuts(BATCHES, curves).proposals(every(BATCHES))) is says


def test_every_dimension_with_a_choice_may_be_cut() -> None:
    # Buying 1, 2, 4, 8 on a T4 and twice that on an L4.
    bought = {"linear": [1, 2, 4, 8, 2, 4, 8, 16]}
    proposed = cuts(BOTH, bought).proposals(every(BOTH))
    assert {(cut.column, cut.good) for cut in proposed} == {
        (0, frozenset({1})),
        (1, frozenset({3})),
    }


def test_a_part_on_one_gpu_is_cut_by_the_curves_on_that_gpu() -> None:
    bought = {"linear": [1, 1, 1, 1, 1, 2, 4, 8]}  # flat on a T4, rising on an L4
    both = cuts(BOTH, bought)
    assert both.proposals(np.arange(4)) == ()
    assert both.proposals(np.arange(4, 8)) == (
        Cut(column=1, good=frozenset({3}), operators=("linear",)),
    )


def test_only_values_that_occur_in_a_part_are_on_the_good_side() -> None:
    proposed = cuts(BATCHES, {"linear": [1, 2, 3.8, 4]}).proposals(np.array([0, 1, 2]))
    assert proposed == (Cut(column=0, good=frozenset({2}), operators=("linear",)),)


@pytest.mark.parametrize(
    ("bought", "good", "other"),
    [
        (
            [1, 2, 3.8, 4],
            "batch_size >= 4: throughput per dollar of linear still rises",
            "batch_size <= 2: throughput per dollar of linear is still low",
        ),
        (
            [4, 3.8, 2, 1],
            "batch_size <= 2: throughput per dollar of linear is highest early",
            "batch_size >= 4: throughput per dollar of linear has fallen",
        ),
        (
            [1, 4, 3.8, 1],
            "batch_size from 2 to 4: throughput per dollar of linear peaks",
            "batch_size in 1, 8: throughput per dollar of linear is off its peak",
        ),
        (
            [1, 2, 3, 4],
            "batch_size = 8: throughput per dollar of linear still rises",
            "batch_size <= 4: throughput per dollar of linear is still low",
        ),
        (
            [1, 4, 2, 1],
            "batch_size = 2: throughput per dollar of linear peaks",
            "batch_size in 1, 4, 8: throughput per dollar of linear is off its peak",
        ),
    ],
)
def test_a_range_says_how_the_curve_goes_on_either_side(
    bought: list[float], good: str, other: str
) -> None:
    assert words(BATCHES, {"linear": bought}) == [good, other]


def test_a_type_of_gpu_says_where_the_curve_is_highest() -> None:
    assert words(GPUS, {"linear": [1, 2, 1]}) == [
        "gpu_type = L4: throughput per dollar of linear is highest there",
        "gpu_type in T4, A10G: throughput per dollar of linear is lower there",
    ]


def test_a_part_on_one_gpu_says_so() -> None:
    space = ConfigurationSpace.of({"gpu_type": ["T4", "L4"], "batch_size": [16, 32, 64, 128]})
    proposed = cuts(space, {"linear": [1, 1, 1, 1, 1, 2, 4, 4]})
    on_l4 = np.arange(4, 8)
    (cut,) = proposed.proposals(on_l4)
    assert proposed.words(cut, on_l4, on_good_side=True) == (
        "batch_size >= 64: throughput per dollar of linear on L4 still rises"
    )


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("conv2d", "linear"), "of conv2d and linear still"),
        (("conv2d", "linear", "softmax"), "of conv2d, linear and softmax still"),
        (("conv2d", "linear", "softmax", "gelu"), "of conv2d, linear, softmax and 1 more still"),
        (("a", "b", "c", "d", "e"), "of a, b, c and 2 more still"),
    ],
)
def test_at_most_three_operators_are_named(names: tuple[str, ...], said: str) -> None:
    bought = {
        name: [1.0 + i, 2.0 + 2 * i, 4.0 + 4 * i, 4.0 + 4 * i] for i, name in enumerate(names)
    }
    assert said in words(BATCHES, bought)[0]


def test_an_operator_that_some_candidates_hardly_have_is_no_obstacle() -> None:
    # With one GPU next to nothing is reduced: a dollar buys almost any amount of it there.
    space = ConfigurationSpace.of({"n_gpus": [1, 2, 4], "batch_size": [1, 2]})
    seconds = {"linear": np.ones(6), "all-reduce": np.array([1e-12, 1e-12, 1, 1, 1, 1])}
    proposed = CurveCuts(space.dimensions, space.codes, np.ones(6), seconds)
    assert proposed.proposals(every(space)) == (
        Cut(column=0, good=frozenset({0}), operators=("all-reduce",)),
    )


def test_operators_of_which_none_takes_a_twentieth_stop_nobody() -> None:
    bought = {f"operator {i}": [1.0, 2.0, 4.0, 4.0] for i in range(21)}  # 1/21 = 4.8 % each
    proposed = cuts(BATCHES, bought).proposals(every(BATCHES))
    assert {cut.good for cut in proposed} <= {frozenset({2, 3})}
