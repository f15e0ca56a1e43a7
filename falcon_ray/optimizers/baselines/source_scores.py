"""Scores of other models' configurations, in the coordinates of the space that is searched.

Spaces of different models differ: a value that one never had, a dimension that another lacks.
What is shared is matched by the names of dimensions. It does not know which tasks may be learnt
from; whoever hands them over leaves out the family that is searched.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from falcon_ray.optimizers.history import MaskArray
from falcon_ray.optimizers.replay import ReplayTask
from falcon_ray.space.configuration import Configuration, ConfigurationSpace, FloatArray
from falcon_ray.space.dimension import Dimension, Scale, Value


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SourceScores:
    """What one other task says, m configurations of it.

    Attributes:
        x: Coordinates, shape (m, d).
        log_scores: Natural logs of scores over the task's best, NaN where infeasible, shape (m,).
    """

    x: FloatArray
    log_scores: FloatArray

    @property
    def feasible(self) -> MaskArray:
        """Which configurations have a score, shape (m,)."""
        return np.isfinite(self.log_scores)

    @property
    def penalised(self) -> FloatArray:
        """Log scores with the worst one where there is none, shape (m,)."""
        return np.where(self.feasible, self.log_scores, np.nanmin(self.log_scores))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Transfer:
    """A space and its sources in the same coordinates.

    Attributes:
        x: Coordinates of the n candidates, shape (n, d).
        sources: At least one.
    """

    x: FloatArray
    sources: tuple[SourceScores, ...]


def transfer(
    space: ConfigurationSpace, sources: Sequence[ReplayTask], *, max_configurations: int
) -> Transfer:
    """Bring sources into the coordinates of a space.

    Args:
        space: The n candidates.
        sources: Tasks of other families.
        max_configurations: So many of one source at most, drawn once.
    """
    dimensions = shared_dimensions(space, sources)
    found: list[SourceScores] = []
    for source in sources:
        rows = np.arange(len(source.space))
        if rows.size > max_configurations:
            rng = np.random.default_rng(rows.size)
            rows = np.sort(rng.choice(rows, max_configurations, replace=False))
            rows = np.union1d(rows, [int(source.scores.argmax())])
        with np.errstate(divide="ignore"):
            logs = np.log(source.scores[rows] / source.scores.max())
        found.append(
            SourceScores(
                x=encoded(dimensions, [source.space.candidates[int(row)] for row in rows]),
                log_scores=np.where(np.isfinite(logs), logs, np.nan),
            )
        )
    return Transfer(x=encoded(dimensions, space.candidates), sources=tuple(found))


def shared_dimensions(
    space: ConfigurationSpace, sources: Sequence[ReplayTask]
) -> tuple[Dimension, ...]:
    """The dimensions of a space, with the values that they have there or in any source."""
    found: list[Dimension] = []
    for each in space.dimensions:
        values: dict[Value, None] = dict.fromkeys(each.values)
        for source in sources:
            for other in source.space.dimensions:
                if other.name == each.name:
                    values.update(dict.fromkeys(other.values))
        ordinal = each.scale is not Scale.CATEGORICAL and _comparable(each.scale, values)
        scale = each.scale if ordinal else Scale.CATEGORICAL
        found.append(Dimension(each.name, tuple(values), scale, each.unit))
    return tuple(found)


def encoded(dimensions: Sequence[Dimension], configurations: Sequence[Configuration]) -> FloatArray:
    """Coordinates as `ConfigurationSpace.encode` makes them, of configurations of any space.

    Where a configuration lacks a dimension it stands in the middle: as far from every value of a
    categorical one, halfway on an ordinal one.

    Returns:
        Shape (n, d).
    """
    columns: list[list[float]] = []
    for each in dimensions:
        if len(each.values) == 1:
            continue
        taken = [configuration.get(each.name) for configuration in configurations]
        if each.scale is Scale.CATEGORICAL:
            columns += [[0.5**0.5 * (v == value) for v in taken] for value in each.values]
        else:
            place = {value: each.position(value) for value in each.values}
            columns.append([0.5 if v is None else place[v] for v in taken])
    if not columns:
        return np.zeros((len(configurations), 1))
    return np.asarray(columns, dtype=np.float64).T


def _comparable(scale: Scale, values: dict[Value, None]) -> bool:
    numbers = [value for value in values if not isinstance(value, str)]
    return len(numbers) == len(values) and (scale is not Scale.LOG2 or min(numbers) > 0)
