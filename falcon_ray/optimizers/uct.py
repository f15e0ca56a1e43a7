"""Which leaf of a tree to visit: UCT on the best that is believed of every part.

It knows parts, values and visits. It does not know what a value means.
"""

import numpy as np
from numpy.typing import NDArray

from falcon_ray.optimizers.coordinates import IndexArray
from falcon_ray.optimizers.tree import Node
from falcon_ray.space.configuration import FloatArray

EXPLORATION = 0.15
"""The constant c, in natural logs of what a trial is worth; that of Kocsis & Szepesvari is for
rewards in [0, 1]."""


class Partition:
    """A tree with its leaves by number, and which of them every candidate lies in.

    Args:
        root: Of the tree over n candidates.
    """

    def __init__(self, root: Node) -> None:
        self.root = root
        self.leaves = tuple(root.leaves())
        self.leaf_of: IndexArray = np.zeros(root.rows.size, dtype=np.intp)
        for i, leaf in enumerate(self.leaves):
            self.leaf_of[leaf.rows] = i
        self._n_leaves: dict[int, int] = {}
        self._count(root)

    def best_of_leaves(self, rows: IndexArray, value: FloatArray) -> FloatArray:
        """Highest value of the candidates in each leaf, minus infinity where there is none.

        Args:
            rows: Candidates, shape (r,).
            value: Of each, shape (r,).

        Returns:
            Shape (leaves,).
        """
        best = np.full(len(self.leaves), -np.inf)
        np.maximum.at(best, self.leaf_of[rows], value)
        return best

    def visits(self, rows: IndexArray) -> NDArray[np.intp]:
        """How many of some candidates lie in each leaf, shape (leaves,)."""
        return np.bincount(self.leaf_of[rows], minlength=len(self.leaves))

    def walk(self, leaf_value: FloatArray, leaf_visits: NDArray[np.intp]) -> tuple[Node, ...]:
        """The way from the root to a leaf, by UCT (Kocsis & Szepesvari, 2006, eq. 1).

        At every node the child with the highest best value + c sqrt(log(N + 1) / (n + 1)), where N
        counts the visits of the node and n those of the child. The best value stands where UCT has
        the mean: one good candidate makes a part worth a visit, however bad its others are.

        Args:
            leaf_value: Highest value in each leaf; minus infinity where nothing is left to try.
            leaf_visits: Trials in each leaf.
        """
        node, first = self.root, 0
        path = [node]
        while not node.is_leaf:
            n_all = 0
            spans: list[slice] = []
            for child in node.children:
                end = first + self._n_leaves[id(child)]
                spans.append(slice(first, end))
                n_all += int(leaf_visits[first:end].sum())
                first = end
            bounds = [
                float(leaf_value[span].max())
                + EXPLORATION * float(np.sqrt(np.log(n_all + 1) / (leaf_visits[span].sum() + 1)))
                for span in spans
            ]
            chosen = int(np.argmax(bounds))
            node, first = node.children[chosen], spans[chosen].start
            path.append(node)
        return tuple(path)

    def _count(self, node: Node) -> int:
        n = sum(self._count(child) for child in node.children) or 1
        self._n_leaves[id(node)] = n
        return n
