import numpy as np
import pytest

from falcon_ray.optimizers.tree import Node
from falcon_ray.optimizers.uct import Partition


def node(*rows: int, children: tuple[Node, ...] = ()) -> Node:
    return Node(rows=np.array(rows, dtype=np.intp), children=children)


def three_leaves() -> Partition:
    """A root with a part of two leaves, rows 0-1 and 2-3, and the leaf of rows 4-5."""
    first = node(0, 1, 2, 3, children=(node(0, 1), node(2, 3)))
    return Partition(node(0, 1, 2, 3, 4, 5, children=(first, node(4, 5))))


def walked(partition: Partition, value: list[float], visits: list[int]) -> list[int]:
    """The rows of the leaf that a walk ends in."""
    return partition.walk(np.array(value), np.array(visits))[-1].rows.tolist()


def test_every_candidate_lies_in_one_leaf() -> None:
    partition = three_leaves()
    assert [leaf.rows.tolist() for leaf in partition.leaves] == [[0, 1], [2, 3], [4, 5]]
    assert partition.leaf_of.tolist() == [0, 0, 1, 1, 2, 2]


def test_a_leaf_is_worth_its_best_candidate() -> None:
    best = three_leaves().best_of_leaves(np.array([4, 0, 1]), np.array([-9.0, 1.0, 3.0]))
    assert best.tolist() == [3.0, -np.inf, -9.0]  # nobody of the second leaf was looked at


def test_visits_are_counted_by_leaf() -> None:
    assert three_leaves().visits(np.array([0, 1, 5])).tolist() == [2, 0, 1]


def test_a_walk_starts_at_the_root_and_ends_in_a_leaf() -> None:
    partition = three_leaves()
    path = partition.walk(np.array([0.0, 1.0, 0.0]), np.zeros(3, dtype=np.intp))
    assert [each.rows.size for each in path] == [6, 4, 2]
    assert path[0] is partition.root
    assert path[-1].is_leaf


@pytest.mark.parametrize(
    ("value", "rows"),
    [([2.0, 1.0, 0.0], [0, 1]), ([1.0, 2.0, 0.0], [2, 3]), ([0.0, 1.0, 2.0], [4, 5])],
)
def test_without_visits_the_best_leaf_is_visited(value: list[float], rows: list[int]) -> None:
    assert walked(three_leaves(), value, [0, 0, 0]) == rows


def test_a_part_is_worth_its_best_leaf_however_bad_its_others_are() -> None:
    assert walked(three_leaves(), [1.0, -1e9, 0.9], [0, 0, 0]) == [0, 1]


def test_visits_lead_away_from_what_is_hardly_better() -> None:
    # Of 8 visits 8 went into the first part: its bonus is 0.15 sqrt(ln(9) / 9) = 0.074115, the
    # other's 0.15 sqrt(ln(9) / 1) = 0.222346; they differ by 0.148231.
    assert walked(three_leaves(), [0.148, -9.0, 0.0], [8, 0, 0]) == [4, 5]
    assert walked(three_leaves(), [0.149, -9.0, 0.0], [8, 0, 0]) == [0, 1]


def test_below_a_node_only_its_own_visits_count() -> None:
    # Within the first part N = 3: 0.15 (sqrt(ln(4) / 1) - sqrt(ln(4) / 4)) = 0.088306
    assert walked(three_leaves(), [1.088, 1.0, 0.0], [3, 0, 0]) == [2, 3]
    assert walked(three_leaves(), [1.089, 1.0, 0.0], [3, 0, 0]) == [0, 1]


def test_where_nothing_is_left_to_try_nobody_goes() -> None:
    inf = float("inf")
    assert walked(three_leaves(), [-inf, -1e9, -inf], [0, 100, 0]) == [2, 3]
    assert walked(three_leaves(), [-inf, -inf, -1e9], [0, 0, 100]) == [4, 5]


def test_a_tree_that_is_a_leaf_is_walked_at_once() -> None:
    partition = Partition(node(0, 1, 2))
    assert partition.walk(np.zeros(1), np.zeros(1, dtype=np.intp)) == (partition.root,)
