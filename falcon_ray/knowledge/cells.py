"""The candidates of a space by columns, and the cells of those that take equally long.

What a batch takes depends on few of a candidate's values: device, dtype, share or cores, and its
size. Candidates that agree in them share a cell and a column of its table. The module knows the
names of dimensions. It knows nothing about times.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from falcon_ray.errors import InputError
from falcon_ray.knowledge.operators.operator import DTYPE_BYTES
from falcon_ray.space.configuration import ConfigurationSpace, FloatArray, IndexArray
from falcon_ray.space.dimension import Dimension, Value

UNDERSTOOD = frozenset(
    {
        "gpu_type",
        "gpu_share",
        "gpu_memory_gib",
        "cpu_cores",
        "batch_size",
        "batch_wait_ms",
        "dtype",
        "replicas",
    }
)
"""Dimensions whose effect is predicted; of any other the prior expects none."""


class Columns:
    """The values of a space's n candidates, one array per dimension."""

    def __init__(self, space: ConfigurationSpace) -> None:
        self.dimensions: dict[str, Dimension] = {each.name: each for each in space.dimensions}
        self.codes: dict[str, IndexArray] = {
            each.name: space.codes[:, i] for i, each in enumerate(space.dimensions)
        }
        self.n = len(space)

    @property
    def unknown(self) -> Sequence[str]:
        """Dimensions with several values whose effect nobody knows."""
        return [
            name
            for name, each in self.dimensions.items()
            if name not in UNDERSTOOD and len(each.values) > 1
        ]

    def values(self, name: str, default: Value) -> tuple[Value, ...]:
        """What a dimension may be; the default alone where the space does not have it."""
        return self.dimensions[name].values if name in self.dimensions else (default,)

    def code(self, name: str) -> IndexArray:
        """Position of each candidate's value among `values`, shape (n,)."""
        return self.codes[name] if name in self.codes else np.zeros(self.n, dtype=np.int32)

    def numbers(self, name: str, *, default: float) -> FloatArray:
        """Each candidate's value, shape (n,)."""
        table = np.array([float(each) for each in self.values(name, default)])
        return table[self.code(name)]

    def positions(self, name: str, grid: FloatArray, *, default: float) -> IndexArray:
        """Where each candidate's value stands in an ascending grid that holds all of them."""
        table = np.array([float(each) for each in self.values(name, default)])
        return np.searchsorted(grid, table).astype(np.int32)[self.code(name)]


class Cells:
    """The combinations of device, dtype, share and cores, each of which is predicted once.

    Args:
        columns: Of the candidates.
        cpu: Where candidates run that name no GPU; empty where there is none.
    """

    _NAMES = ("gpu_type", "dtype", "gpu_share", "cpu_cores")
    _DEFAULTS: tuple[Value, ...] = ("", "float32", 1.0, 1)

    def __init__(self, columns: Columns, *, cpu: str) -> None:
        # Behind a GPU cores do not change the time of a batch, so they make no cells there.
        self._names = tuple(
            name
            for name in self._NAMES
            if name != "cpu_cores" or "gpu_type" not in columns.dimensions
        )
        self._cpu = cpu
        self._values = [
            columns.values(name, default)
            for name, default in zip(self._NAMES, self._DEFAULTS, strict=True)
            if name in self._names
        ]
        self._sizes = [len(each) for each in self._values]
        self._of_candidates: NDArray[np.intp] = np.ravel_multi_index(
            [columns.code(name) for name in self._names], self._sizes
        )
        self.n = int(np.prod(self._sizes))

    @property
    def occurring(self) -> list[int]:
        """Cells that a candidate is in, ascending."""
        return [int(cell) for cell in np.flatnonzero(np.bincount(self._of_candidates))]

    def of_candidates(self) -> IndexArray:
        """The cell of each candidate, shape (n,)."""
        return self._of_candidates.astype(np.int32)

    def describe(self, cell: int) -> tuple[str, str, float, int]:
        """Device, dtype, share and cores of a cell.

        Raises:
            InputError: It runs on a CPU, and nobody said on which, or its dtype is unknown.
        """
        places = np.unravel_index(cell, self._sizes)
        found: dict[str, Value] = {
            name: values[int(place)]
            for name, values, place in zip(self._names, self._values, places, strict=True)
        }
        device = str(found["gpu_type"]) or self._cpu
        dtype = str(found["dtype"])
        if not device:
            raise InputError("the space names no gpu_type and no CPU is known; name either")
        if dtype not in DTYPE_BYTES:
            raise InputError(
                f"dtype {dtype!r} has no known width; known are {', '.join(DTYPE_BYTES)}"
            )
        return device, dtype, float(found["gpu_share"]), int(found.get("cpu_cores", 1))


def batch_grid(columns: Columns) -> FloatArray:
    """The batch sizes of the space, 1, and the powers of two up to the largest, ascending."""
    wanted = {float(each) for each in columns.values("batch_size", 1)}
    powers = {2.0**i for i in range(int(np.log2(max(wanted))) + 1)}
    return np.array(sorted({1.0} | wanted | powers))
