"""Configurations, and the space of those that are allowed.

A space is a product of dimensions cut by constraints. It knows which configurations exist and
how near they are to each other; it does not know which of them is good.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from falcon_ray.errors import EmptySpaceError, InputError
from falcon_ray.space.constraint import Constraint
from falcon_ray.space.dimension import Dimension, Scale, Value, dimension

FloatArray: TypeAlias = NDArray[np.float64]
IndexArray: TypeAlias = NDArray[np.int32]


class Configuration(Mapping[str, Value]):
    """An immutable, hashable mapping from dimension name to value; equal whatever the order."""

    __slots__ = ("_hash", "_values")

    def __init__(self, values: Mapping[str, Value]) -> None:
        self._values = dict(values)
        self._hash = hash(frozenset(self._values.items()))

    def __getitem__(self, name: str) -> Value:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Configuration) and self._values == other._values

    def __reduce__(self) -> tuple[type["Configuration"], tuple[dict[str, Value]]]:
        return Configuration, (self._values,)

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self._values.items())

    def __repr__(self) -> str:
        return f"Configuration({self._values!r})"

    def number(self, name: str, default: float) -> float:
        """The value of a numeric dimension, or `default` where the space does not have it."""
        value = self._values.get(name, default)
        if isinstance(value, str):
            raise InputError(f"{name}: expected a number, got {value!r}")
        return float(value)

    def count(self, name: str, default: int) -> int:
        """The value of a whole-numbered dimension, or `default` where the space lacks it."""
        return int(self.number(name, default))

    def text(self, name: str, default: str) -> str:
        """The value of a categorical dimension, or `default` where the space does not have it."""
        return str(self._values.get(name, default))


@dataclass(frozen=True)
class ConfigurationSpace:
    """The configurations that a search may choose from.

    Attributes:
        dimensions: The choices; names must differ.
        constraints: Conditions that every configuration must satisfy, applied in this order.

    Raises:
        InputError: Two dimensions share a name, or a constraint names an unknown one.
        EmptySpaceError: On first use of the members, when the constraints leave none.
    """

    dimensions: tuple[Dimension, ...]
    constraints: tuple[Constraint, ...] = ()

    def __post_init__(self) -> None:
        if not self.dimensions:
            raise InputError("a configuration space needs at least one dimension")
        names = [each.name for each in self.dimensions]
        if len(set(names)) != len(names):
            raise InputError(f"a dimension's name stands twice in {names}")
        for constraint in self.constraints:
            constraint.check_names(names)

    @property
    def n_combinations(self) -> int:
        """How many combinations of values there are before the constraints."""
        total = 1
        for each in self.dimensions:
            total *= len(each.values)
        return total

    @cached_property
    def codes(self) -> IndexArray:
        """Which value of each dimension every candidate takes, as positions in its `values`.

        Returns:
            Shape (n, d), in the order of `candidates`, which need not be built for this.
        """
        sizes = [len(each.values) for each in self.dimensions]
        codes = np.indices(sizes, dtype=np.int32).reshape(len(sizes), -1)
        steps = [f"{codes.shape[1]} combinations"]
        for constraint in self.constraints:
            codes = codes[:, self._holds(constraint, codes)]
            steps.append(f"{codes.shape[1]} after '{constraint.expression}'")
            if codes.shape[1] == 0:
                raise EmptySpaceError(
                    f"no configuration is left: {', '.join(steps)}; relax that constraint "
                    f"or widen the values of {' and '.join(constraint.names)}"
                )
        return codes.T

    def _holds(self, constraint: Constraint, codes: IndexArray) -> NDArray[np.bool_]:
        """Where a constraint holds, shape (n,), for codes of shape (d, n).

        It is evaluated once for each combination of the values that it names and that is left.
        """
        named = [i for i, each in enumerate(self.dimensions) if each.name in constraint.names]
        sizes = [len(self.dimensions[i].values) for i in named]
        combined = np.ravel_multi_index([codes[i] for i in named], sizes)
        occurring = np.unique(combined)
        table = np.zeros(int(np.prod(sizes)), dtype=np.bool_)
        for combination in occurring:
            positions = np.unravel_index(int(combination), sizes)
            chosen = [self.dimensions[i] for i in named]
            table[combination] = constraint.holds(
                {
                    each.name: each.values[int(position)]
                    for each, position in zip(chosen, positions, strict=True)
                }
            )
        return table[combined]

    @cached_property
    def candidates(self) -> tuple[Configuration, ...]:
        """Every configuration that satisfies all constraints, in a fixed order."""
        names = [each.name for each in self.dimensions]
        columns: list[list[Value]] = [
            [each.values[int(code)] for code in self.codes[:, i]]
            for i, each in enumerate(self.dimensions)
        ]
        rows = zip(*columns, strict=True)
        return tuple(Configuration(dict(zip(names, row, strict=True))) for row in rows)

    @cached_property
    def index(self) -> dict[Configuration, int]:
        """Position of every candidate in `candidates`."""
        return {candidate: i for i, candidate in enumerate(self.candidates)}

    def candidate(self, position: int) -> Configuration:
        """The candidate at a position; the others need not be built for this."""
        row = self.codes[position]
        return Configuration(
            {
                each.name: each.values[int(code)]
                for each, code in zip(self.dimensions, row, strict=True)
            }
        )

    def position(self, configuration: Mapping[str, Value]) -> int | None:
        """Where a candidate stands in `candidates`; None where it is none of them."""
        if len(configuration) != len(self.dimensions):
            return None
        row: list[int] = []
        for each in self.dimensions:
            if each.name not in configuration or configuration[each.name] not in each.values:
                return None
            row.append(each.values.index(configuration[each.name]))
        keys, order = self._sorted_keys
        sizes = [len(each.values) for each in self.dimensions]
        key = int(np.ravel_multi_index(row, sizes))
        place = int(np.searchsorted(keys, key))
        return int(order[place]) if place < keys.size and keys[place] == key else None

    @cached_property
    def _sorted_keys(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """One number for every candidate, ascending, and the candidates' positions, shapes (n,)."""
        sizes = [len(each.values) for each in self.dimensions]
        keys = np.asarray(np.ravel_multi_index(tuple(self.codes.T), sizes), dtype=np.intp)
        order: NDArray[np.intp] = np.argsort(keys, kind="stable")
        return keys[order], order

    def __len__(self) -> int:
        return len(self.codes)

    def __contains__(self, configuration: object) -> bool:
        return isinstance(configuration, Mapping) and self.position(configuration) is not None  # pyright: ignore[reportUnknownArgumentType]

    def encode(self, configurations: Sequence[Configuration]) -> FloatArray:
        """Coordinates in which squared distance adds up over dimensions.

        An ordinal dimension is one column in [0, 1] on its own scale. A categorical one is a
        column per value, 1/sqrt(2) where it is taken: two different values are 1 apart.
        Dimensions with a single value take no column.

        Returns:
            Shape (n, d).
        """
        columns: list[list[float]] = []
        for each in self.dimensions:
            if len(each.values) == 1:
                continue
            taken = [configuration[each.name] for configuration in configurations]
            if each.scale is Scale.CATEGORICAL:
                columns += [[0.5**0.5 * (v == value) for v in taken] for value in each.values]
            else:
                place = {value: each.position(value) for value in each.values}
                columns.append([place[v] for v in taken])
        if not columns:
            return np.zeros((len(configurations), 1))
        return np.asarray(columns, dtype=np.float64).T

    def configuration(self, values: Mapping[str, Value]) -> Configuration:
        """The member of this space with these values; single-valued dimensions may be left out.

        Raises:
            InputError: A value is missing, unknown, or excluded by a constraint.
        """
        known = {each.name: each for each in self.dimensions}
        if unknown := [name for name in values if name not in known]:
            raise InputError(f"{unknown[0]!r} is no dimension of this space: {', '.join(known)}")
        full: dict[str, Value] = {}
        for name, each in known.items():
            if name in values:
                full[name] = values[name]
            elif len(each.values) == 1:
                full[name] = each.values[0]
            else:
                raise InputError(f"{name} is missing; its values are {list(each.values)}")
            if full[name] not in each.values:
                raise InputError(f"{name}={full[name]!r} is not one of {list(each.values)}")
        for constraint in self.constraints:
            if not constraint.holds(full):
                raise InputError(
                    f"{Configuration(full)} breaks the constraint '{constraint.expression}'"
                )
        return Configuration(full)

    def to_json(self) -> dict[str, object]:
        """The space as plain JSON values, in the form that `from_json` reads."""
        return {
            "dimensions": {each.name: list(each.values) for each in self.dimensions},
            "constraints": [constraint.expression for constraint in self.constraints],
        }

    @classmethod
    def of(
        cls, values: Mapping[str, Iterable[Value]], constraints: Iterable[str] = ()
    ) -> "ConfigurationSpace":
        """A space from values by dimension name and constraints as expressions."""
        return cls(
            tuple(dimension(name, choices) for name, choices in values.items()),
            tuple(Constraint(expression) for expression in constraints),
        )
