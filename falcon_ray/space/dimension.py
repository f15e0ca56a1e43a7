"""One dimension of a serving configuration: its name, its values and how they compare.

A dimension knows its values and the scale on which neighbours are alike. It does not know
what the value does to a deployment; the backend that realises it does.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import TypeAlias

from falcon_ray.errors import InputError

Value: TypeAlias = str | int | float


class Scale(Enum):
    """How the values of a dimension compare with each other."""

    CATEGORICAL = "categorical"
    """Values are equal or different; nothing else is known."""
    LINEAR = "linear"
    """Equal differences are alike: 0, 5, 10."""
    LOG2 = "log2"
    """Equal ratios are alike: 1, 2, 4, 8."""


@dataclass(frozen=True, slots=True)
class DimensionKind:
    """What a well-known dimension means, wherever its values come from."""

    scale: Scale
    unit: str
    meaning: str
    minimum: float = 0.0
    integral: bool = False


KNOWN_DIMENSIONS: MappingProxyType[str, DimensionKind] = MappingProxyType(
    {
        "cpu_cores": DimensionKind(
            Scale.LOG2, "cores", "CPU cores (and intra-op threads) of one replica", 1, integral=True
        ),
        "batch_size": DimensionKind(
            Scale.LOG2, "requests", "largest batch a replica forms", 1, integral=True
        ),
        "batch_wait_ms": DimensionKind(
            Scale.LINEAR, "ms", "how long a replica waits for a batch to fill"
        ),
        "dtype": DimensionKind(Scale.CATEGORICAL, "", "precision of weights and activations"),
        "replicas": DimensionKind(
            Scale.LOG2, "replicas", "copies of the model behind one endpoint", 1, integral=True
        ),
        "gpu_type": DimensionKind(Scale.CATEGORICAL, "", "accelerator type, as Ray names it"),
        "gpu_share": DimensionKind(Scale.LOG2, "GPUs", "compute share of one GPU", 0.01),
        "gpu_memory_gib": DimensionKind(
            Scale.LOG2, "GiB", "GPU memory that one replica may use", 0.1
        ),
        "n_gpus": DimensionKind(Scale.LOG2, "GPUs", "whole GPUs of one replica", 1, integral=True),
        "tensor_parallel": DimensionKind(
            Scale.LOG2, "GPUs", "GPUs that share each layer", 1, integral=True
        ),
        "pipeline_parallel": DimensionKind(
            Scale.LOG2, "GPUs", "GPUs that share the stack of layers", 1, integral=True
        ),
        "expert_parallel": DimensionKind(
            Scale.LOG2, "GPUs", "GPUs that share the experts", 1, integral=True
        ),
        "attention_dp": DimensionKind(
            Scale.LOG2, "GPUs", "GPUs that replicate attention", 1, integral=True
        ),
        "concurrency": DimensionKind(
            Scale.LOG2, "requests", "requests that a replica works on at once", 1, integral=True
        ),
        "engine": DimensionKind(Scale.CATEGORICAL, "", "serving engine, with its version"),
    }
)


@dataclass(frozen=True, slots=True)
class Dimension:
    """A named choice among a few values.

    Attributes:
        name: A Python identifier in snake_case; constraints refer to it.
        values: At least one value, without repeats; numbers are kept in ascending order.
        scale: How values compare; numbers only for `LINEAR` and `LOG2`.
        unit: Unit of the values, for people.

    Raises:
        InputError: The name, a value or the scale does not fit.
    """

    name: str
    values: tuple[Value, ...]
    scale: Scale
    unit: str = ""

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise InputError(
                f"a dimension's name must be an identifier such as batch_size, got {self.name!r}"
            )
        if not self.values:
            raise InputError(f"{self.name}: give at least one value")
        if len(set(self.values)) != len(self.values):
            raise InputError(f"{self.name}: a value stands twice in {list(self.values)}")
        if self.scale is Scale.CATEGORICAL:
            return
        numbers = _numbers(self.name, self.values)
        if self.scale is Scale.LOG2 and min(numbers) <= 0:
            raise InputError(
                f"{self.name}: values must be positive to compare by ratio, got {min(numbers):g}"
            )
        object.__setattr__(self, "values", tuple(sorted(self.values, key=float)))

    def position(self, value: Value) -> float:
        """Place of an ordinal value on the dimension's scale, from 0 (first) to 1 (last)."""
        if len(self.values) == 1:
            return 0.0
        transform = math.log2 if self.scale is Scale.LOG2 else float
        low, high = transform(float(self.values[0])), transform(float(self.values[-1]))
        return (transform(float(value)) - low) / (high - low)


def dimension(name: str, values: Iterable[Value]) -> Dimension:
    """Make a dimension whose scale and unit follow from its name, or else from its values.

    An unknown name is categorical when a value is no number, compared by ratio when its
    positive values span a factor of four or more, and linear otherwise.

    Raises:
        InputError: A value is out of the range that the name implies, or the values are one
            text, which would fall apart into its letters.
    """
    if isinstance(values, str):
        raise InputError(f"{name}: give a list of values, got the text {values!r}")
    chosen = tuple(values)
    kind = KNOWN_DIMENSIONS.get(name)
    if kind is None:
        return Dimension(name, chosen, _guess_scale(chosen))
    if kind.scale is not Scale.CATEGORICAL:
        for value, number in zip(chosen, _numbers(name, chosen), strict=True):
            if number < kind.minimum:
                raise InputError(f"{name}: must be at least {kind.minimum:g}, got {value!r}")
            if kind.integral and number != int(number):
                raise InputError(f"{name}: must be a whole number, got {value!r}")
    return Dimension(name, chosen, kind.scale, kind.unit)


def _numbers(name: str, values: tuple[Value, ...]) -> list[float]:
    for value in values:
        if isinstance(value, str) or not math.isfinite(value):
            raise InputError(f"{name}: values must be finite numbers, got {value!r}")
    return [float(value) for value in values]


def _guess_scale(values: tuple[Value, ...]) -> Scale:
    if any(isinstance(value, (str, bool)) for value in values):
        return Scale.CATEGORICAL
    numbers = [float(value) for value in values]
    if numbers and min(numbers) > 0 and max(numbers) >= 4 * min(numbers):
        return Scale.LOG2
    return Scale.LINEAR
