"""A model as the operators it calls: families, canonical dimensions, and all of it per batch size.

An operator is a name of ATen's, such as `conv2d`, with the signature it is called by; its family
says which dimensions describe it and which constants its time follows. The module knows neither
torch nor any device. `profiling/trace.py` makes decompositions; `signatures.py` names families.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from falcon_ray.space.configuration import FloatArray

Dims: TypeAlias = tuple[int, ...]
Shape: TypeAlias = tuple[int, ...]

DTYPE_BYTES: Mapping[str, float] = MappingProxyType(
    {
        "float64": 8,
        "float32": 4,
        "bfloat16": 2,
        "float16": 2,
        "fp8": 1,
        "fp8_block": 1,
        "nvfp4": 0.5,
    }
)
"""Bytes of one element of the dtypes that a model can be computed in."""


class Family(Enum):
    """Operators of one kind: they share canonical dimensions and a way of spending time.

    The comment behind each names its canonical dimensions, in order. They suffice to make the
    call again, but for the name of the operator.
    """

    CONV_1X1 = "conv_1x1"  # batch, in_channels, out_channels, groups, kernel_h, kernel_w,
    CONV_3X3 = "conv_3x3"  # out_h, out_w, stride; a 1-d convolution has kernel_h = out_h = 1
    CONV_LARGE = "conv_large"
    CONV_DEPTHWISE = "conv_depthwise"
    CONV_GROUPED = "conv_grouped"
    LINEAR = "linear"  # rows, out_features, in_features
    BMM = "bmm"  # batch, m, n, k
    ATTENTION = "attention"  # batch, heads, query_tokens, key_tokens, head_dim
    RECURRENT = "recurrent"  # batch, tokens, in_features, hidden, layers, directions, gates
    EMBEDDING = "embedding"  # rows looked up, width
    ACTIVATION = "activation"  # elements read, elements written
    ELEMENTWISE = "elementwise"  # elements read, elements written
    NORM = "norm"  # rows that are normalised, elements of each
    SOFTMAX = "softmax"  # rows that are normalised, elements of each
    POOL = "pool"  # elements read, elements written
    MOVE = "move"  # elements read, elements written
    VIEW = "view"  # elements read, elements written (both 0: nothing is moved)
    OTHER = "other"  # elements read, elements written; no rule names this operator


N_DIMS: Mapping[Family, int] = MappingProxyType(
    {
        **dict.fromkeys(Family, 2),
        **dict.fromkeys(
            (
                Family.CONV_1X1,
                Family.CONV_3X3,
                Family.CONV_LARGE,
                Family.CONV_DEPTHWISE,
                Family.CONV_GROUPED,
            ),
            9,
        ),
        Family.LINEAR: 3,
        Family.BMM: 4,
        Family.ATTENTION: 5,
        Family.RECURRENT: 7,
    }
)
"""How many canonical dimensions each family has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """Equal calls of one operator at one batch size.

    Attributes:
        name: ATen's name without namespace and overload, e.g. "conv2d".
        family: Decides what `dims` mean.
        dims: The family's canonical dimensions.
        shapes: Shapes of the tensor arguments in order, as `torch.profiler` records them; `()`
            for a scalar and for an argument that is no tensor.
        dtype: Of the first floating-point tensor that it reads or writes, else of the first
            tensor, e.g. "float32" or "int64".
        count: Calls in one forward pass.
        flops: Of one call; a multiplication and an addition are two.
        bytes_read: By one call: every element that is touched, once.
        bytes_written: By one call; 0 where the result is a view.

    Raises:
        ValueError: The dimensions are not those of the family, or a number is negative.
    """

    name: str
    family: Family
    dims: Dims
    shapes: tuple[Shape, ...] = ()
    dtype: str = "float32"
    count: int = 1
    flops: float = 0.0
    bytes_read: float = 0.0
    bytes_written: float = 0.0

    def __post_init__(self) -> None:
        if len(self.dims) != N_DIMS[self.family]:
            raise ValueError(
                f"{self.name} is of family {self.family.value}, which has {N_DIMS[self.family]} "
                f"dimensions, got {self.dims}; correct its rule in signatures.py"
            )
        if min(self.count, self.flops, self.bytes_read, self.bytes_written) < 0:
            raise ValueError(f"{self.name} cannot have negative counts, got {self}")

    @property
    def bytes_moved(self) -> float:
        """Read and written by one call."""
        return self.bytes_read + self.bytes_written


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyCalls:
    """All operators of one family in a model, at several batch sizes: arrays for predictors.

    Attributes:
        family: Of all k operators.
        names: Of each, length k.
        counts: Calls in one forward pass, shape (k,).
        dims: Canonical dimensions, shape (b, k, d).
        flops: Of one call, shape (b, k).
        bytes_moved: By one call, in the dtype that the model is computed in, shape (b, k).
    """

    family: Family
    names: tuple[str, ...]
    counts: FloatArray
    dims: FloatArray
    flops: FloatArray
    bytes_moved: FloatArray


@dataclass(frozen=True, kw_only=True)
class Decomposition:
    """A model's operators for every batch size, from traces at two batch sizes.

    Everything is affine in the batch size: shapes, FLOPs, bytes and peak memory.

    Attributes:
        model: Name, for people.
        batch_sizes: The two that were traced, ascending.
        low: Operators at the smaller one.
        high: The same operators, in the same order, at the larger one.
        parameter_bytes: Of all parameters and buffers, as traced (float32).
        activation_bytes: Peak of what is alive beside them, at each of the two batch sizes.
        uncovered: Names of operators that no rule knows; of these only bytes are known.

    Raises:
        ValueError: The two traces do not hold the same operators.
    """

    model: str
    batch_sizes: tuple[int, int]
    low: tuple[Operator, ...]
    high: tuple[Operator, ...]
    parameter_bytes: float
    activation_bytes: tuple[float, float]
    uncovered: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        calls = [[(each.name, each.family, each.count) for each in ops] for ops in self._traces]
        if calls[0] != calls[1] or not self.batch_sizes[0] < self.batch_sizes[1]:
            raise ValueError(
                f"{self.model} calls different operators at batch {self.batch_sizes[0]} and "
                f"{self.batch_sizes[1]}, so nothing can be said of other batch sizes"
            )

    @property
    def _traces(self) -> tuple[tuple[Operator, ...], tuple[Operator, ...]]:
        return self.low, self.high

    def at(self, batch_size: int) -> tuple[Operator, ...]:
        """The operators at a batch size; dimensions are rounded to whole numbers."""
        position = self._position(batch_size)

        def between(low: float, high: float) -> float:
            return low + position * (high - low)

        def whole(low: Sequence[int], high: Sequence[int]) -> tuple[int, ...]:
            return tuple(round(between(*pair)) for pair in zip(low, high, strict=True))

        return tuple(
            replace(
                a,
                dims=whole(a.dims, b.dims),
                shapes=tuple(whole(*pair) for pair in zip(a.shapes, b.shapes, strict=True)),
                flops=between(a.flops, b.flops),
                bytes_read=between(a.bytes_read, b.bytes_read),
                bytes_written=between(a.bytes_written, b.bytes_written),
            )
            for a, b in zip(self.low, self.high, strict=True)
        )

    def calls(self, batch_sizes: FloatArray, *, dtype: str = "float32") -> tuple[FamilyCalls, ...]:
        """The operators by family, at several batch sizes and in another dtype.

        Args:
            batch_sizes: Shape (b,).
            dtype: A key of `DTYPE_BYTES`; the bytes of operators on floats scale with it.
        """
        position = np.array([self._position(float(each)) for each in batch_sizes])[:, None]
        width = DTYPE_BYTES[dtype] / DTYPE_BYTES["float32"]
        calls: list[FamilyCalls] = []
        for family, (counts, dims, flops, bytes_moved, scales) in self._columns.items():
            scale = np.where(scales, width, 1.0)
            calls.append(
                FamilyCalls(
                    family=family,
                    names=tuple(each.name for each in self.low if each.family is family),
                    counts=counts,
                    dims=dims[0] + position[:, :, None] * (dims[1] - dims[0]),
                    flops=flops[0] + position * (flops[1] - flops[0]),
                    bytes_moved=(bytes_moved[0] + position * (bytes_moved[1] - bytes_moved[0]))
                    * scale,
                )
            )
        return tuple(calls)

    def activation_bytes_at(self, batch_sizes: FloatArray, *, dtype: str = "float32") -> FloatArray:
        """Peak activation memory, shape of `batch_sizes`."""
        low, high = self.activation_bytes
        slope = (high - low) / (self.batch_sizes[1] - self.batch_sizes[0])
        at = low + (np.asarray(batch_sizes, dtype=np.float64) - self.batch_sizes[0]) * slope
        return np.maximum(at, 0.0) * (DTYPE_BYTES[dtype] / DTYPE_BYTES["float32"])

    def _position(self, batch_size: float) -> float:
        low, high = self.batch_sizes
        return (batch_size - low) / (high - low)

    @cached_property
    def _columns(
        self,
    ) -> dict[Family, tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]]:
        """Counts (k,), dims (2, k, d), flops (2, k), bytes (2, k), whether on floats (k,)."""
        columns: dict[
            Family, tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]
        ] = {}
        for family in Family:
            chosen = [
                [each for each in operators if each.family is family] for operators in self._traces
            ]
            if not chosen[0]:
                continue
            columns[family] = (
                np.array([each.count for each in chosen[0]], dtype=np.float64),
                np.array([[each.dims for each in ops] for ops in chosen], dtype=np.float64),
                np.array([[each.flops for each in ops] for ops in chosen], dtype=np.float64),
                np.array([[each.bytes_moved for each in ops] for ops in chosen], dtype=np.float64),
                np.array([each.dtype in DTYPE_BYTES for each in chosen[0]], dtype=np.float64),
            )
        return columns
