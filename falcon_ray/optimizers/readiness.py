"""What a cluster could start at once, and what it would cost to make the rest startable.

Readiness is a fact about the cluster at the moment of a suggestion. It says nothing about how good
a configuration is, is never learnt from, and leaves no trace in an optimizer. The module knows no
nodes and no clock: who asks for a suggestion decides what is ready, and for how long a kind of node
that did not come counts as one that cannot be had.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from falcon_ray.errors import InputError
from falcon_ray.space.configuration import ConfigurationSpace, FloatArray

INDIFFERENCE = 0.95
"""Of two trials the one that can start at once comes first, unless the other is worth more than
1 / 0.95 as much: expected scores and gains are not known better than that."""
READY_BONUS = -math.log(INDIFFERENCE)
"""The same in natural logs of what a trial is worth."""

_GPU_TYPE = "gpu_type"


@dataclass(frozen=True, slots=True, eq=False)
class Readiness:
    """What holds of each of n candidates now.

    Attributes:
        ready: Whether its trial could start at once, shape (n,).
        start_cost: What bringing up nodes for it costs, in the unit of `trial_cost`, shape (n,):
            not negative; it counts where costs of trials do. Infinite where they cannot be had,
            which counts always: such a candidate is suggested only when all that are left are so.

    Raises:
        InputError: The shapes differ, or a cost is negative or no number.
    """

    ready: NDArray[np.bool_]
    start_cost: FloatArray

    def __post_init__(self) -> None:
        if self.ready.ndim != 1 or self.ready.shape != self.start_cost.shape:
            raise InputError(
                "ready and start_cost need one value for each candidate, got the shapes "
                f"{self.ready.shape} and {self.start_cost.shape}"
            )
        bad = np.flatnonzero(~(self.start_cost >= 0))
        if bad.size:
            raise InputError(f"start_cost must not be negative, got {self.start_cost[bad[0]]}")

    @classmethod
    def by_gpu_type(
        cls, space: ConfigurationSpace, start_cost: Mapping[str, float], *, ready: Collection[str]
    ) -> Self:
        """Readiness that hangs on the type of GPU alone.

        Args:
            space: Its dimension `gpu_type` tells the types; without it all candidates have the
                type "".
            start_cost: By type; a type that is left out, and is not ready, cannot be had.
            ready: Types of which a node is up and has room; their nodes cost nothing to start.
        """
        names = [each.name for each in space.dimensions]
        if _GPU_TYPE in names:
            at = names.index(_GPU_TYPE)
            types, codes = [str(each) for each in space.dimensions[at].values], space.codes[:, at]
        else:
            types, codes = [""], np.zeros(len(space), dtype=np.intp)
        is_ready = np.array([each in ready for each in types])
        costs = [0.0 if each in ready else start_cost.get(each, math.inf) for each in types]
        return cls(is_ready[codes], np.array(costs, dtype=np.float64)[codes])

    def without(self, unattainable: NDArray[np.bool_]) -> Self:
        """The same, but that these candidates cannot be had: too dear for a budget, say.

        Args:
            unattainable: Shape (n,).
        """
        cost: FloatArray = np.where(unattainable, np.inf, self.start_cost)
        return type(self)(self.ready & ~unattainable, cost)

    @property
    def attainable(self) -> NDArray[np.bool_]:
        """Whether a candidate can be had at all, shape (n,)."""
        return np.isfinite(self.start_cost)


def preference(
    readiness: Readiness | None, rows: NDArray[np.intp], trial_cost: FloatArray | None
) -> FloatArray:
    """What readiness and costs add to the log of what a trial is worth, shape of `rows`.

    Args:
        readiness: None where nothing is known, which prefers nothing.
        rows: Candidates, shape (r,).
        trial_cost: Of each of the n candidates, or None where costs do not count.
    """
    if readiness is None:
        return np.zeros(rows.size) if trial_cost is None else -np.log(trial_cost[rows])
    bonus: FloatArray = np.where(readiness.ready[rows], READY_BONUS, 0.0)
    if trial_cost is None:
        return bonus
    cost = readiness.start_cost[rows]
    # Of those that cannot be had the start is no more told apart: their trials are.
    return bonus - np.log(trial_cost[rows] + np.where(np.isfinite(cost), cost, 0.0))


def checked(readiness: Readiness | None, n: int) -> None:
    """Refuse what speaks of another space.

    Raises:
        InputError: It does not speak of n candidates.
    """
    if readiness is not None and readiness.ready.size != n:
        raise InputError(
            f"readiness speaks of {readiness.ready.size} candidates, the space has {n}"
        )
