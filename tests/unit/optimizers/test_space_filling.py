import numpy as np

from falcon_ray.optimizers.coordinates import Coordinates
from falcon_ray.optimizers.space_filling import most_central, most_distant
from falcon_ray.space.configuration import ConfigurationSpace

LINE = Coordinates(ConfigurationSpace.of({"batch_wait_ms": [0, 1, 2, 3, 4]}))
ALL = np.arange(5)


def test_the_most_central_is_the_nearest_to_the_mean_of_all() -> None:
    rng = np.random.default_rng(0)
    assert ALL[most_central(LINE, ALL, rng)] == 2
    some = np.array([0, 3])
    assert some[most_central(LINE, some, rng)] == 3  # 2 and 1 steps away from the mean


def test_the_most_distant_keeps_away_from_the_nearest_tried_one() -> None:
    some = np.array([1, 2, 3])
    at = most_distant(
        LINE, some, tried=np.array([0, 4]), weights=np.ones(3), rng=np.random.default_rng(0)
    )
    assert some[at] == 2  # 2 steps from either end; the others are 1 from one


def test_a_low_weight_outweighs_distance() -> None:
    some = np.array([2, 4])
    at = most_distant(
        LINE,
        some,
        tried=np.array([0]),
        weights=np.array([1, 0.25]),
        rng=np.random.default_rng(0),
    )
    assert some[at] == 2  # 2 * 1 against 4 * 0.25


def test_the_generator_decides_among_equals() -> None:
    ends = {
        most_distant(
            LINE,
            np.array([0, 4]),
            tried=np.array([2]),
            weights=np.ones(2),
            rng=np.random.default_rng(seed),
        )
        for seed in range(20)
    }
    assert ends == {0, 1}  # positions in what was asked for


def test_the_generator_decides_among_equally_central_ones() -> None:
    some = np.array([1, 3])
    found = {most_central(LINE, some, np.random.default_rng(seed)) for seed in range(20)}
    assert found == {0, 1}
