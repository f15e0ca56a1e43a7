from collections.abc import Iterator, Mapping

import numpy as np
import pytest

from falcon_ray.knowledge.mixture import ExpertMixture
from falcon_ray.optimizers.curve_cuts import CurveCuts
from falcon_ray.optimizers.mcts import MonteCarloTreeSearch
from falcon_ray.optimizers.tree import LEAST_CHILD, MAX_DEPTH, Node, build_tree
from falcon_ray.space.configuration import ConfigurationSpace, FloatArray
from tests.unit.optimizers.synthetic_serving import (
    SPACE,
    WITHOUT_SLO,
    expert,
    operator_seconds,
    scores,
    true_logs,
    usd_per_hour,
)

PRICES = usd_per_hour(SPACE)
VALUE = np.log(scores(SPACE, WITHOUT_SLO))


def tree(
    space: ConfigurationSpace,
    log_value: FloatArray,
    seconds: Mapping[str, FloatArray],
    usd_per_hour: FloatArray | None = None,
) -> Node:
    prices = np.ones(len(space)) if usd_per_hour is None else usd_per_hour
    return build_tree(
        space.codes, log_value, CurveCuts(space.dimensions, space.codes, prices, seconds)
    )


def nodes(root: Node) -> Iterator[Node]:
    yield root
    for child in root.children:
        yield from nodes(child)


def depth(node: Node) -> int:
    return 1 + max(map(depth, node.children)) if node.children else 0


def batches(n: int, n_waits: int) -> ConfigurationSpace:
    """n batch sizes, each with so many waits, the wait last."""
    return ConfigurationSpace.of(
        {"batch_size": [2**i for i in range(n)], "batch_wait_ms": range(n_waits)}
    )


def test_without_curves_the_space_stays_whole() -> None:
    root = build_tree(SPACE.codes, VALUE, None)
    assert root.is_leaf
    assert root.rows.tolist() == list(range(len(SPACE)))
    assert root.why == ""
    assert list(root.leaves()) == [root]


BY_BATCH = [[9, 10, 11], list(range(9))]
BY_CORES = [[2, 5, 8, 11], [0, 1, 3, 4, 6, 7, 9, 10]]


@pytest.mark.parametrize(
    ("of_4_cores", "parts"), [(0.75, BY_BATCH), (0.78, BY_CORES)], ids=["batch", "cores"]
)
def test_the_cut_is_made_across_which_the_best_differ_most(
    of_4_cores: float, parts: list[list[int]]
) -> None:
    space = ConfigurationSpace.of({"batch_size": [1, 2, 4, 8], "cpu_cores": [1, 2, 4]})
    by_batch = np.repeat([1.0, 2, 4, 8], 3)
    by_cores = np.tile([1.0, 1, 2], 4)
    # What the operators propose: batch 8 (3 of 12 candidates), and 4 cores (4 of 12).
    seconds = {"linear": 1 / by_batch, "softmax": 1 / by_cores}
    value = np.where(by_batch == 8, 1.0, 0.0) + np.where(by_cores == 2, of_4_cores, 0)
    # With 0.75 for 4 cores the best three are 1.25 (1 + 1 + 1.75 of 3) against 0.75 across the
    # batch: 3 * 9 / 144 * 0.5^2 = 0.0469; across the cores 1.0833 against 0.6667 (1 + 1 + 0 of 3):
    # 4 * 8 / 144 * 0.4167^2 = 0.0386. With 0.78 they differ more across the batch still, but not
    # for as many: 27 / 144 * 0.48^2 = 0.0432 against 32 / 144 * 0.4467^2 = 0.0443.
    root = tree(space, value, seconds)
    assert [child.rows.tolist() for child in root.children] == parts


def test_a_prior_that_sees_no_difference_makes_no_cut() -> None:
    assert tree(SPACE, np.zeros(len(SPACE)), operator_seconds(SPACE), PRICES).is_leaf


def test_what_no_curve_proposes_is_not_cut_however_much_the_prior_differs() -> None:
    space = ConfigurationSpace.of({"dtype": ["float32", "int8"], "batch_size": [1, 2, 4, 8]})
    flat = {"linear": np.ones(len(space))}
    assert tree(space, np.repeat([0.0, 5.0], 4), flat).is_leaf


def test_children_part_their_parent_and_are_not_too_small() -> None:
    root = tree(SPACE, VALUE, operator_seconds(SPACE), PRICES)
    assert not root.is_leaf
    for node in nodes(root):
        assert node.rows.size >= LEAST_CHILD
        if not node.is_leaf:
            together = np.concatenate([child.rows for child in node.children])
            assert sorted(together.tolist()) == node.rows.tolist()
            assert node.cut is not None
    assert depth(root) <= MAX_DEPTH
    assert sum(leaf.rows.size for leaf in root.leaves()) == len(SPACE)


def test_the_good_side_of_a_cut_comes_first() -> None:
    root = tree(SPACE, VALUE, operator_seconds(SPACE), PRICES)
    for node in nodes(root):
        if node.cut is not None:
            codes = SPACE.codes[node.children[0].rows, node.cut.column]
            assert set(codes.tolist()) <= node.cut.good


def test_every_node_says_in_words_why_it_exists() -> None:
    root = tree(SPACE, VALUE, operator_seconds(SPACE), PRICES)
    names = {dimension.name for dimension in SPACE.dimensions}
    for node in nodes(root):
        if node is root:
            continue
        what, why = node.why.split(": ")
        assert what.split()[0] in names
        assert why.startswith("throughput per dollar of ")
        assert any(operator in why for operator in operator_seconds(SPACE))


def test_a_large_batch_on_a_gpu_where_it_still_pays_is_a_part_that_says_so() -> None:
    space = ConfigurationSpace.of(
        {"gpu_type": ["T4", "L4"], "batch_size": [16, 32, 64, 128], "replicas": [1, 2, 4]}
    )
    on_l4 = np.repeat([False, True], 12)
    batch = np.tile(np.repeat([16.0, 32, 64, 128], 3), 2)
    # An L4 is three times as fast and gains up to batch 64, a T4 only to batch 16.
    rate = np.where(on_l4, 3 * np.minimum(batch, 64), 16.0)
    root = tree(space, np.log(rate), {"linear": 1 / rate})
    whys = {node.why for node in nodes(root)}
    assert "gpu_type = L4: throughput per dollar of linear is highest there" in whys
    assert "batch_size >= 64: throughput per dollar of linear on L4 still rises" in whys
    assert not any("on T4" in why for why in whys)  # its curve is a plane: nothing to cut


def test_other_curves_make_other_splits() -> None:
    logs = true_logs(SPACE, WITHOUT_SLO)
    codes = {each.name: i for i, each in enumerate(SPACE.dimensions)}
    large = SPACE.codes[:, codes["batch_size"]] >= 4  # batch 16 or more
    many = SPACE.codes[:, codes["cpu_cores"]] >= 3  # 8 cores or more

    def root_with(seconds_times_price: FloatArray) -> Node:
        operators = {"linear": seconds_times_price / PRICES}
        prior = ExpertMixture(experts=(expert(logs),), operator_seconds=operators)
        return MonteCarloTreeSearch(SPACE, WITHOUT_SLO, PRICES, seed=0, prior=prior).root

    by_batch = root_with(np.where(large, 1.0, 2.0))
    by_cores = root_with(np.where(many, 1.0, 2.0))
    assert by_batch.children[0].rows.tolist() == np.flatnonzero(large).tolist()
    assert by_cores.children[0].rows.tolist() == np.flatnonzero(many).tolist()
    assert by_batch.children[0].why == (
        "batch_size >= 16: throughput per dollar of linear still rises"
    )
    assert by_cores.children[0].why == (
        "cpu_cores >= 8: throughput per dollar of linear still rises"
    )


def test_other_prices_make_other_splits() -> None:
    seconds = {"linear": np.ones(len(SPACE))}
    cores = np.array([each.count("cpu_cores", 1) for each in SPACE.candidates])
    dear = tree(SPACE, VALUE, seconds, 1.0 * cores)
    assert {node.why for node in dear.children} == {
        "cpu_cores = 1: throughput per dollar of linear is highest early",
        "cpu_cores >= 2: throughput per dollar of linear has fallen",
    }
    assert tree(SPACE, VALUE, seconds, np.ones(len(SPACE))).is_leaf


def test_a_small_space_is_cut_seven_times_deep_and_a_large_one_deeper() -> None:
    # Every doubling of the batch doubles the rate: each cut takes the largest batch away.
    for n_waits, at_most in ((3, 7), (700, 9)):  # 12 * 700 = 8,400: two doublings beyond 4,096
        space = batches(12, n_waits)
        rate = 2.0 ** space.codes[:, 0]
        root = tree(space, 0.4 * np.log(rate), {"linear": 1 / rate})
        assert depth(root) == at_most


def test_parts_of_a_large_space_are_not_too_small() -> None:
    space = batches(12, 700)
    rate = 2.0 ** space.codes[:, 0] * (1 + (space.codes[:, 1] < 3))
    root = tree(space, np.log(rate), {"linear": 1 / rate})
    # 8,400 / 2,048 = 4.1: the three shortest waits of one batch size stay with the others.
    assert min(leaf.rows.size for leaf in root.leaves()) > LEAST_CHILD


@pytest.mark.parametrize(("bad", "worse", "is_cut"), [(-2.0, -5.0, True), (-9.0, -12.0, False)])
def test_what_is_hopeless_is_not_told_apart(bad: float, worse: float, *, is_cut: bool) -> None:
    # The best is 0 on either side; what lies more than 6 natural logs below counts as 6 below.
    space = batches(4, 3)
    value = np.repeat([worse, bad, bad, bad], 3)
    value[[0, 3]] = 0.0
    rate = np.repeat([1.0, 2.0, 2.0, 2.0], 3)
    assert tree(space, value, {"linear": 1 / rate}).is_leaf is not is_cut


def test_curves_of_a_large_space_see_every_value_of_every_dimension() -> None:
    # 100,000 candidates are sampled at every fifth, and five values of cores come last.
    space = ConfigurationSpace.of({"batch_wait_ms": range(20_000), "cpu_cores": [1, 2, 4, 8, 16]})
    rate = 1.0 + (space.codes[:, 1] == 2)
    root = tree(space, np.log(rate), {"linear": 1 / rate})
    assert [child.rows.size for child in root.children] == [20_000, 80_000]
