"""Where a space may be cut: at the ends of what the resource curves of key operators call good.

Over each dimension, the curve of an operator is what a dollar buys of it at each value, everything
else averaged within the part of the space that is cut: so a part that holds one type of GPU is
cut by the curves on that type. The module proposes. It does not know which cut is worth making.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from falcon_ray.knowledge.curves.resource_curve import good_values
from falcon_ray.optimizers.coordinates import IndexArray
from falcon_ray.space.configuration import FloatArray
from falcon_ray.space.configuration import IndexArray as CodeArray
from falcon_ray.space.dimension import Dimension, Scale, Value

LEAST_SHARE = 0.05
"""Operators that take less of the time than this, within a part, have no say in it."""
_MAX_NAMED = 3


@dataclass(frozen=True, slots=True)
class Cut:
    """A way to divide candidates in two.

    Attributes:
        column: Of the dimension.
        good: Positions of the values on the good side.
        operators: Key operators whose curves propose it, those that take the most time first.
    """

    column: int
    good: frozenset[int]
    operators: tuple[str, ...]


class CurveCuts:
    """Proposals for the parts of one space.

    Args:
        dimensions: Of the space, d of them.
        codes: Position of every candidate's value in each dimension, shape (n, d).
        usd_per_hour: Price of each candidate, shape (n,).
        operator_seconds: Of every key operator by name, per request, shape (n,).
    """

    def __init__(
        self,
        dimensions: Sequence[Dimension],
        codes: CodeArray,
        usd_per_hour: FloatArray,
        operator_seconds: Mapping[str, FloatArray],
    ) -> None:
        self._dimensions = tuple(dimensions)
        self._codes = codes
        self._usd_per_hour = usd_per_hour
        self._names = tuple(operator_seconds)
        self._seconds = tuple(operator_seconds.values())

    def proposals(self, rows: IndexArray) -> tuple[Cut, ...]:
        """All cuts of a part of the space, rows of shape (r,), that some curve proposes."""
        seconds = np.stack([each[rows] for each in self._seconds])
        shares = (seconds / seconds.sum(axis=0)).mean(axis=1)
        by_share = [int(i) for i in np.argsort(-shares, kind="stable")]
        asked = [i for i in by_share if shares[i] >= LEAST_SHARE] or by_share[:1]
        log_bought = -np.log(seconds[asked]) - np.log(self._usd_per_hour[rows])
        found: dict[tuple[int, frozenset[int]], list[str]] = {}
        for column, dimension in enumerate(self._dimensions):
            present, place = np.unique(self._codes[rows, column], return_inverse=True)
            if present.size < 2:
                continue
            count = np.bincount(place)
            curves = np.stack([np.bincount(place, weights=each) / count for each in log_bought])
            good = good_values(curves, is_ordered=dimension.scale is not Scale.CATEGORICAL)
            for operator, mask in zip(asked, good, strict=True):
                if not mask.all():
                    side = frozenset(int(code) for code in present[mask])
                    found.setdefault((column, side), []).append(self._names[operator])
        return tuple(Cut(column, good, tuple(names)) for (column, good), names in found.items())

    def words(self, cut: Cut, rows: IndexArray, *, on_good_side: bool) -> str:
        """Why a part of the space exists, for people.

        Args:
            cut: That made it.
            rows: Of the part that was cut, shape (r,).
            on_good_side: Of the cut.
        """
        dimension = self._dimensions[cut.column]
        present = np.unique(self._codes[rows, cut.column])
        inside = np.array([int(code) in cut.good for code in present])
        chosen = [dimension.values[int(code)] for code in present[inside == on_good_side]]
        subject = f"throughput per dollar of {_listed(cut.operators)}{self._where(rows)}"
        if dimension.scale is Scale.CATEGORICAL:
            verb = "is highest there" if on_good_side else "is lower there"
            return f"{dimension.name} {_one_of(chosen)}: {subject} {verb}"
        return f"{self._range(dimension, chosen, present)}: {subject} " + _course(
            inside, on_good_side=on_good_side
        )

    def _range(self, dimension: Dimension, chosen: Sequence[Value], present: CodeArray) -> str:
        first, last = dimension.values[int(present[0])], dimension.values[int(present[-1])]
        if chosen[0] == first and chosen[-1] == last:
            return f"{dimension.name} {_one_of(chosen)}"
        if len(chosen) == 1:
            return f"{dimension.name} = {chosen[0]}"
        if chosen[-1] == last:
            return f"{dimension.name} >= {chosen[0]}"
        if chosen[0] == first:
            return f"{dimension.name} <= {chosen[-1]}"
        return f"{dimension.name} from {chosen[0]} to {chosen[-1]}"

    def _where(self, rows: IndexArray) -> str:
        """Categories that a part is confined to, e.g. " on L4"."""
        fixed: list[str] = []
        for column, dimension in enumerate(self._dimensions):
            if dimension.scale is Scale.CATEGORICAL and len(dimension.values) > 1:
                present = np.unique(self._codes[rows, column])
                if present.size == 1:
                    fixed.append(str(dimension.values[int(present[0])]))
        return f" on {', '.join(fixed)}" if fixed else ""


def _course(inside: np.ndarray, *, on_good_side: bool) -> str:
    """How a curve goes on the good side, or towards it from the other."""
    if inside[-1] and not inside[0]:
        return "still rises" if on_good_side else "is still low"
    if inside[0] and not inside[-1]:
        return "is highest early" if on_good_side else "has fallen"
    return "peaks" if on_good_side else "is off its peak"


def _listed(names: Sequence[str]) -> str:
    shown = list(names[:_MAX_NAMED])
    if len(names) > _MAX_NAMED:
        shown.append(f"{len(names) - _MAX_NAMED} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _one_of(values: Sequence[Value]) -> str:
    shown = ", ".join(str(value) for value in values)
    return f"= {shown}" if len(values) == 1 else f"in {shown}"
