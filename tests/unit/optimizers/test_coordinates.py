import numpy as np
import pytest

from falcon_ray.optimizers.coordinates import Coordinates, IndexArray, matern
from falcon_ray.space.configuration import ConfigurationSpace, FloatArray
from falcon_ray.space.listed import ListedSpace
from tests.unit.optimizers.synthetic_serving import SPACE, operator_seconds

PAIR = ConfigurationSpace.of({"dtype": ["a", "b"]})


def rows(*indices: int) -> IndexArray:
    return np.array(indices, dtype=np.intp)


def every(space: ConfigurationSpace) -> IndexArray:
    return np.arange(len(space))


def test_ordinals_span_two_length_scales_and_categories_are_1_over_1_6_apart() -> None:
    space = ConfigurationSpace.of(
        {"batch_size": [1, 2, 16], "dtype": ["a", "b", "c"], "replicas": [1]}
    )
    # In the order of the space: batch 1 with a, b, c, then batch 2, then batch 16.
    distance = np.sqrt(Coordinates(space).squared_distance(rows(0), every(space)))[0]
    assert distance[[1, 2]] == pytest.approx([0.625, 0.625])  # 1 / 1.6
    assert distance[3] == pytest.approx(0.5)  # log2(2) / log2(16) of the two
    assert distance[6] == pytest.approx(2.0)
    assert distance[8] == pytest.approx(np.hypot(2.0, 0.625))


def test_distances_are_between_the_rows_that_are_asked_for() -> None:
    coordinates = Coordinates(SPACE)
    whole = coordinates.squared_distance(every(SPACE), every(SPACE))
    assert whole == pytest.approx(whole.T)
    assert np.diag(whole).tolist() == [0.0] * len(SPACE)
    part = coordinates.squared_distance(rows(7, 3), rows(100, 7, 50))
    assert part == pytest.approx(whole[np.ix_([7, 3], [100, 7, 50])])
    assert len(coordinates) == len(SPACE)


def test_without_a_choice_everything_is_in_one_place() -> None:
    coordinates = Coordinates(ConfigurationSpace.of({"batch_size": [8]}))
    assert coordinates.squared_distance(rows(0), rows(0)).tolist() == [[0.0]]
    assert coordinates.centrality(rows(0)).tolist() == [0.0]


def test_matern_equals_the_formula_by_hand() -> None:
    # r = 2: (1 + 2 sqrt(5) + 20/3) exp(-2 sqrt(5)) = 12.138803 * 0.011423 = 0.138661
    assert matern(np.array([0.0, 4.0])) == pytest.approx([1.0, 0.138661], abs=1e-6)


def test_half_of_the_correlation_is_that_of_the_operators_shares() -> None:
    seconds = {"linear": np.array([1.0, 3.0]), "softmax": np.array([1.0, 1.0])}
    coordinates = Coordinates(PAIR, seconds)
    # Shares 1/2, 1/2 against 3/4, 1/4: ln(1.5)^2 + ln(2)^2 = 0.164402 + 0.480453
    assert coordinates.squared_ratio_distance(rows(0), rows(1)) == pytest.approx(0.644855, abs=1e-6)
    # Over choices r = 0.625: (1 + 1.397542 + 0.651042) exp(-1.397542) = 0.753621
    # Over shares r = 0.803029: (1 + 1.795627 + 1.074758) exp(-1.795627) = 0.642559
    by_hand = (0.753621 + 0.642559) / 2
    assert coordinates.correlation(rows(0), rows(1)) == pytest.approx(by_hand, abs=1e-5)
    assert coordinates.correlation(rows(0), rows(0)).tolist() == [[1.0]]


@pytest.mark.parametrize("seconds", [None, {}, {"linear": np.array([1.0, 5.0])}])
def test_without_shares_to_compare_only_choices_count(
    seconds: dict[str, FloatArray] | None,
) -> None:
    coordinates = Coordinates(PAIR, seconds)
    assert not coordinates.has_ratios
    assert coordinates.correlation(rows(0), rows(1)) == pytest.approx(0.753621, abs=1e-5)


def test_shares_count_and_not_how_long_it_takes() -> None:
    linear, softmax = np.array([1.0, 3.0]), np.array([1.0, 1.0])
    slower = np.array([1.0, 1000.0])
    one = Coordinates(PAIR, {"linear": linear, "softmax": softmax})
    other = Coordinates(PAIR, {"linear": slower * linear, "softmax": slower * softmax})
    assert one.correlation(rows(0), rows(1)) == pytest.approx(other.correlation(rows(0), rows(1)))


def test_operators_that_take_next_to_nothing_do_not_differ() -> None:
    # Shares 99 % and 1 % against 97 % and 3 %: both small ones count as 5 %.
    coordinates = Coordinates(
        PAIR, {"linear": np.array([99.0, 97.0]), "softmax": np.array([1.0, 3.0])}
    )
    by_hand = np.log(0.99 / 0.97) ** 2
    assert coordinates.squared_ratio_distance(rows(0), rows(1)) == pytest.approx(by_hand)


def test_an_operator_that_some_candidates_do_not_have_is_allowed() -> None:
    coordinates = Coordinates(
        PAIR, {"linear": np.array([1.0, 1.0]), "all-reduce": np.array([0.0, 1.0])}
    )
    # Shares 1, 0 against 1/2, 1/2; 0 counts as 5 %: ln(2)^2 + ln(10)^2
    by_hand = np.log(2) ** 2 + np.log(10) ** 2
    assert coordinates.squared_ratio_distance(rows(0), rows(1)) == pytest.approx(by_hand)


def test_twice_the_length_scale_is_half_the_distance() -> None:
    line = ConfigurationSpace.of({"batch_wait_ms": [0, 5, 10]})
    coordinates = Coordinates(line)
    wide = coordinates.correlation(rows(0), rows(2), length_scale=2.0)
    assert wide == pytest.approx(coordinates.correlation(rows(0), rows(1)))


@pytest.mark.parametrize("seconds", [None, operator_seconds(SPACE)], ids=["choices", "shares"])
def test_a_correlation_has_no_negative_eigenvalue(seconds: dict[str, FloatArray] | None) -> None:
    correlation = Coordinates(SPACE, seconds).correlation(every(SPACE), every(SPACE))
    assert np.linalg.eigvalsh(correlation).min() > -1e-9


def test_centrality_is_the_squared_distance_from_the_mean_of_all() -> None:
    space = ListedSpace.of_rows(
        [
            {"batch_wait_ms": 0, "dtype": "a"},
            {"batch_wait_ms": 5, "dtype": "a"},
            {"batch_wait_ms": 10, "dtype": "b"},
            {"batch_wait_ms": 10, "dtype": "a"},
        ]
    )
    # The waits lie at 0, 1, 2, 2 with mean 1.25. One-hot columns of height 0.625 / sqrt(2) have
    # the mean (3/4, 1/4) of it: a is (1/4)^2 + (1/4)^2 = 1/8 of 0.625^2 / 2 away, b 9/8 of it.
    w = 0.625**2 / 2
    by_hand = [1.5625 + w / 8, 0.0625 + w / 8, 0.5625 + 9 * w / 8, 0.5625 + w / 8]
    assert Coordinates(space).centrality(every(space)) == pytest.approx(by_hand)
