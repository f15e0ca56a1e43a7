"""One call of an operator: its arguments, what it returns, and the bytes that it moves.

The module knows tensors by shape and size. It knows no families.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from falcon_ray.knowledge.operators.names import (
    GATHERING,
    IDLE,
    OVERWRITING,
    SCATTERING,
    base_name,
)
from falcon_ray.knowledge.operators.operator import Shape


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """What matters of a tensor that goes in or comes out.

    Attributes:
        shape: As the operator sees it.
        dtype: e.g. "float32" or "int64".
        element_bytes: Of one element.
        elements: Distinct ones in memory; an expanded tensor has fewer than its shape says.
    """

    shape: Shape
    dtype: str
    element_bytes: int
    elements: int


Argument: TypeAlias = (
    TensorFacts | tuple[TensorFacts, ...] | tuple[int, ...] | bool | int | float | str | None
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of an operator.

    Attributes:
        name: ATen's, without namespace and overload, e.g. "conv2d" or "relu_".
        arguments: By their names in ATen's schema, in its order, defaults filled in.
        results: Tensors returned in memory of their own.
        written: Argument tensors that are changed in place.
    """

    name: str
    arguments: Mapping[str, Argument]
    results: tuple[TensorFacts, ...] = ()
    written: tuple[TensorFacts, ...] = ()

    @property
    def tensors(self) -> tuple[TensorFacts, ...]:
        """All tensor arguments, those within lists too."""
        found: list[TensorFacts] = []
        for argument in self.arguments.values():
            if isinstance(argument, TensorFacts):
                found.append(argument)
            elif isinstance(argument, tuple):
                found.extend(each for each in argument if isinstance(each, TensorFacts))
        return tuple(found)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is moved: it returns views, or memory that nobody has written to."""
        return base_name(self.name) in IDLE or not (self.results or self.written)

    def tensor(self, name: str) -> TensorFacts:
        """A tensor argument by name; it must be one."""
        argument = self.arguments[name]
        assert isinstance(argument, TensorFacts)
        return argument


def traffic(call: Call) -> tuple[float, float]:
    """Bytes that one call reads and writes.

    Every tensor argument is read once, but for what is overwritten and for tables of which only
    some rows are looked up; every result in memory of its own is written once.
    """
    if call.is_idle:
        return 0.0, 0.0
    read, written = _reads(call), _writes(call)
    return (
        float(sum(elements * width for elements, width in read)),
        float(sum(elements * width for elements, width in written)),
    )


def _reads(call: Call) -> list[tuple[int, int]]:
    """Elements read and bytes of each, per tensor."""
    base = base_name(call.name)
    tensors = list(call.tensors)
    if call.written and (base in OVERWRITING or base in SCATTERING):
        tensors = tensors[1:]
    if base in GATHERING and tensors:
        table, *indices = tensors
        looked_up = sum(each.elements for each in call.results)
        if "bag" in base:
            looked_up = indices[0].elements * table.shape[-1]
        return [(looked_up, table.element_bytes)] + [_size(each) for each in indices]
    return [_size(each) for each in tensors]


def _writes(call: Call) -> list[tuple[int, int]]:
    base = base_name(call.name)
    written = call.written
    if written and base in SCATTERING:
        source = call.arguments.get(SCATTERING[base])
        written = (source,) if isinstance(source, TensorFacts) else ()
    return [_size(each) for each in (*written, *call.results)]


def _size(tensor: TensorFacts) -> tuple[int, int]:
    return tensor.elements, tensor.element_bytes


def elements_moved(call: Call) -> tuple[int, int]:
    """Elements that one call reads and writes, counted as `traffic` does."""
    return sum(elements for elements, _ in _reads(call)), sum(each for each, _ in _writes(call))
