"""A space whose candidates are listed one by one, as the rows of a table are.

It knows which rows there are. It does not know why the others are missing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from falcon_ray.errors import InputError
from falcon_ray.space.configuration import Configuration, ConfigurationSpace, IndexArray
from falcon_ray.space.dimension import Dimension, Value, dimension


@dataclass(frozen=True)
class ListedSpace(ConfigurationSpace):
    """The configurations of a list, in its order, and no others.

    Attributes:
        listed: At least one configuration, each of which has a value of every dimension; none
            stands twice.

    Raises:
        InputError: The list does not fit.
    """

    listed: tuple[Configuration, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.listed:
            raise InputError("a listed space needs at least one configuration")
        if len(set(self.listed)) != len(self.listed):
            seen: set[Configuration] = set()
            twice = next(each for each in self.listed if each in seen or seen.add(each))
            raise InputError(f"a configuration stands twice: {twice}; merge the repeats first")

    @cached_property
    def codes(self) -> IndexArray:
        """See `ConfigurationSpace.codes`."""
        columns: list[list[int]] = []
        for each in self.dimensions:
            place = {value: i for i, value in enumerate(each.values)}
            try:
                columns.append([place[row[each.name]] for row in self.listed])
            except KeyError as error:
                raise InputError(f"{each.name} has no value {error} in this space") from None
        return np.array(columns, dtype=np.int32).T

    @cached_property
    def candidates(self) -> tuple[Configuration, ...]:
        """See `ConfigurationSpace.candidates`."""
        return self.listed

    def configuration(self, values: Mapping[str, Value]) -> Configuration:
        """See `ConfigurationSpace.configuration`; combinations that are not listed are refused."""
        found = super().configuration(values)
        if found not in self:
            raise InputError(f"{found} is not in the list of this space")
        return found

    def to_json(self) -> dict[str, object]:
        """See `ConfigurationSpace.to_json`; the list goes with it."""
        return {**super().to_json(), "listed": [dict(each) for each in self.listed]}

    @classmethod
    def of_rows(
        cls, rows: Sequence[Mapping[str, Value]], dimensions: Sequence[Dimension] = ()
    ) -> "ListedSpace":
        """A space of rows with the same keys.

        Args:
            rows: Values by dimension name.
            dimensions: Scales of dimensions that are not well known; the others are made from
                the values that occur.

        Raises:
            InputError: There are no rows, or their keys differ.
        """
        if not rows:
            raise InputError("a listed space needs at least one configuration")
        names = list(rows[0])
        for row in rows:
            if set(row) != set(names):
                raise InputError(f"rows must have the keys {names}, got {list(row)}")
        given = {each.name: each for each in dimensions}
        made = tuple(
            given[name]
            if name in given
            else dimension(name, list(dict.fromkeys(row[name] for row in rows)))
            for name in names
        )
        return cls(made, listed=tuple(Configuration(row) for row in rows))
