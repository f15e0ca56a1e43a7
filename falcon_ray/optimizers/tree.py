"""A tree over a space: parts of candidates, and the cut that made each of them.

It is built once, before the first trial, and never cut again. The tree knows candidates, cuts and
what was expected of candidates when it was built. It does not know trials, nor how a part is
valued while a search runs.

Notation: n candidates; a part of n' of them is cut into n1 and n0.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from falcon_ray.optimizers.coordinates import IndexArray
from falcon_ray.optimizers.curve_cuts import CurveCuts, Cut
from falcon_ray.space.configuration import FloatArray
from falcon_ray.space.configuration import IndexArray as CodeArray

LEAST_CHILD = 3
"""Candidates of the smallest part."""
MAX_DEPTH = 7
LARGE = 4096
"""Spaces with more candidates may be cut once more for every doubling."""
LEAST_SHARE_OF_LARGE = 1 / 2048
"""Of a large space, the smallest part."""
_TOP = 3
_LOG_RANGE = 6.0
"""What is expected to score less than e^-6 of the best is equally bad."""
_SAMPLE = 20_000
"""Curves within larger parts are taken from so many of their candidates."""


@dataclass(slots=True, eq=False)
class Node:
    """A part of the space.

    Attributes:
        rows: Its candidates, ascending, shape (n',).
        why: The reason that it exists, in words; empty for the whole space.
        cut: How it is divided; None for a leaf.
        children: The good side and the other; empty for a leaf.
    """

    rows: IndexArray
    why: str = ""
    cut: Cut | None = None
    children: tuple["Node", ...] = field(default=())

    @property
    def is_leaf(self) -> bool:
        """Whether it is not divided."""
        return not self.children

    def leaves(self) -> Iterator["Node"]:
        """Its leaves, good sides first."""
        if self.is_leaf:
            yield self
        for child in self.children:
            yield from child.leaves()


def build_tree(codes: CodeArray, log_value: FloatArray, cuts: CurveCuts | None) -> Node:
    """Divide a space where resource curves propose it and the prior says that it pays.

    A part is cut where n1 n0 / n'^2 times the squared difference between the mean of the three
    highest prior values on either side is highest.

    Args:
        codes: Position of every candidate's value in each dimension, shape (n, d).
        log_value: Log of the score that is expected of each candidate, shape (n,).
        cuts: What proposes; None leaves the space whole.
    """
    n = len(codes)
    value = np.maximum(log_value, log_value.max() - _LOG_RANGE)
    depth = MAX_DEPTH + max(0, int(np.ceil(np.log2(n / LARGE))))
    root = Node(rows=np.arange(n))
    if cuts is not None:
        least = max(LEAST_CHILD, int(n * LEAST_SHARE_OF_LARGE))
        _divide(root, codes, value, cuts, depth=depth, least=least)
    return root


def _divide(
    node: Node, codes: CodeArray, value: FloatArray, cuts: CurveCuts, *, depth: int, least: int
) -> None:
    if depth == 0 or node.rows.size < 2 * least:
        return
    sample = _sampled(node.rows)
    best_gain, best = 0.0, None
    for cut in cuts.proposals(sample):
        inside = np.isin(codes[node.rows, cut.column], list(cut.good))
        gain = _gain(value[node.rows], inside, least=least)
        if gain > best_gain:
            best_gain, best = gain, (cut, inside)
    if best is None:
        return
    cut, inside = best
    node.cut = cut
    node.children = tuple(
        Node(
            rows=node.rows[inside == side],
            why=cuts.words(cut, sample, on_good_side=side),
        )
        for side in (True, False)
    )
    for child in node.children:
        _divide(child, codes, value, cuts, depth=depth - 1, least=least)


def _sampled(rows: IndexArray) -> IndexArray:
    """Some of many rows, drawn: rows are in the order of the space, in which steps would alias."""
    if rows.size <= _SAMPLE:
        return rows
    drawn = np.random.default_rng(rows.size).choice(rows.size, size=_SAMPLE, replace=False)
    return rows[np.sort(drawn)]


def _gain(value: FloatArray, inside: np.ndarray, *, least: int) -> float:
    n1 = int(np.count_nonzero(inside))
    n0 = value.size - n1
    if min(n1, n0) < least:
        return 0.0
    difference = _top(value[inside]) - _top(value[~inside])
    return n1 * n0 / value.size**2 * difference**2


def _top(value: FloatArray) -> float:
    return float(np.partition(value, -_TOP)[-_TOP:].mean())
