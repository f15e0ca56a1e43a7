import numpy as np

from falcon_ray.optimizers.space_filling import most_central, most_distant

LINE = np.array([[0.0], [1.0], [2.0], [3.0], [4.0]])
ALL = np.arange(5)


def test_the_most_central_is_the_nearest_to_the_mean_of_all() -> None:
    rng = np.random.default_rng(0)
    assert most_central(LINE, ALL, rng) == 2
    assert most_central(LINE, np.array([0, 3]), rng) == 3  # 2 and 1 away from the mean


def test_the_most_distant_keeps_away_from_the_nearest_tried_one() -> None:
    index = most_distant(
        LINE,
        np.array([1, 2, 3]),
        tried=np.array([0, 4]),
        weights=np.ones(5),
        rng=np.random.default_rng(0),
    )
    assert index == 2  # 2 from either end; the others are 1 from one


def test_a_low_weight_outweighs_distance() -> None:
    index = most_distant(
        LINE,
        np.array([2, 4]),
        tried=np.array([0]),
        weights=np.array([1, 1, 1, 1, 0.25]),
        rng=np.random.default_rng(0),
    )
    assert index == 2  # 2 * 1 against 4 * 0.25


def test_the_generator_decides_among_equals() -> None:
    ends = {
        most_distant(
            LINE,
            np.array([0, 4]),
            tried=np.array([2]),
            weights=np.ones(5),
            rng=np.random.default_rng(seed),
        )
        for seed in range(20)
    }
    assert ends == {0, 4}
