"""Which shapes of each operator to measure: near those that models use, and never the same.

Most shapes are a reference model's key operators with every dimension moved by up to 30 %; the
rest lies anywhere between two of them. No shape is one that a reference model itself uses, at any
batch size: what a profile then predicts of a reference model, it was not told. The module knows
shapes and what they cost at least. It does not time anything.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from falcon_ray.knowledge.device import Device
from falcon_ray.knowledge.operators.operator import Decomposition, Dims, Family, Operator
from falcon_ray.knowledge.operators.signatures import flops, minimal_bytes
from falcon_ray.profiling.shape_moves import at_batch, between, moved

Seed: TypeAlias = tuple[str, Dims]
"""Name and canonical dimensions of an operator."""

FAMILIES = tuple(each for each in Family if each not in {Family.VIEW, Family.OTHER})
"""Those whose operators can be timed alone."""

_FILLING = 0.2
_TRIES = 40
_ATTAINED = 0.25
"""Of a device's peak rates: what the estimate of a shape's cost counts on."""
_MAX_BYTES = 2.0**30
_LEAST_SHARE = 0.001

_ELSEWHERE: tuple[tuple[str, Family, Dims], ...] = (
    ("conv2d", Family.CONV_GROUPED, (1, 128, 128, 32, 3, 3, 56, 56, 1)),  # ResNeXt-50
    ("conv2d", Family.CONV_GROUPED, (1, 256, 256, 32, 3, 3, 56, 56, 2)),
    ("conv2d", Family.CONV_GROUPED, (1, 512, 512, 32, 3, 3, 14, 14, 1)),
    ("conv2d", Family.CONV_GROUPED, (1, 288, 288, 12, 3, 3, 28, 28, 1)),  # RegNet
    ("conv2d", Family.CONV_LARGE, (1, 192, 192, 1, 1, 7, 17, 17, 1)),  # Inception
    ("conv1d", Family.CONV_LARGE, (1, 80, 512, 1, 1, 3, 1, 750, 1)),  # Whisper
    ("bmm", Family.BMM, (12, 128, 128, 64)),  # attention written out
    ("bmm", Family.BMM, (12, 128, 64, 128)),
    ("softmax", Family.SOFTMAX, (1536, 128)),
    ("softmax", Family.SOFTMAX, (2364, 197)),
    ("softmax", Family.SOFTMAX, (1, 1000)),
    ("gru", Family.RECURRENT, (1, 50, 256, 512, 1, 1, 3)),
    ("lstm", Family.RECURRENT, (1, 50, 128, 256, 1, 2, 4)),
    ("gelu", Family.ACTIVATION, (393216, 393216)),
    ("silu", Family.ACTIVATION, (602112, 602112)),
    ("tanh", Family.ACTIVATION, (98304, 98304)),
    ("sigmoid", Family.ACTIVATION, (2048, 2048)),
    ("relu", Family.ACTIVATION, (200704, 200704)),
    ("mul", Family.ELEMENTWISE, (196608, 98304)),
    ("add", Family.ELEMENTWISE, (98304, 98304)),
    ("group_norm", Family.NORM, (32, 40960)),
    ("avg_pool2d", Family.POOL, (401408, 100352)),
    ("adaptive_avg_pool2d", Family.POOL, (100352, 2048)),
    ("contiguous", Family.MOVE, (98304, 98304)),
    ("cat", Family.MOVE, (401408, 401408)),
)
"""What common models call that are not among the reference models, at batch size 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DesignSize:
    """How many shapes, and how large they may be.

    Attributes:
        linear: Shapes of the family that most models spend most time in.
        other: Shapes of every other family.
        largest_batch: Batch sizes are drawn from 1 to it.
        max_call_s: Shapes that take longer on the device, by a rough estimate, are left out.
    """

    linear: int = 100
    other: int = 50
    largest_batch: int = 64
    max_call_s: float = 0.1

    def of(self, family: Family) -> int:
        """How many shapes of a family."""
        return self.linear if family is Family.LINEAR else self.other


def design(
    decompositions: Sequence[Decomposition],
    *,
    device: Device,
    seed: int = 0,
    size: DesignSize | None = None,
    families: Sequence[Family] = FAMILIES,
) -> tuple[Operator, ...]:
    """Shapes to measure, families in turn, so that a run that ends early knows a bit of each.

    Args:
        decompositions: Of the models that the shapes should be near to.
        device: Bounds what a shape may cost.
        seed: Equal seeds give equal designs. Every shape has a stream of its own, so that what a
            slightly faster device can afford changes few of them.
        size: How many, and how large.
        families: Of which operators.

    Returns:
        Distinct operators in float32, fewer than asked for where the bounds leave fewer.
    """
    wanted = size or DesignSize()
    taken = reference_signatures(decompositions, wanted.largest_batch)
    columns: list[list[Operator]] = []
    for family in families:
        seeds = _Seeds(decompositions, family, device=device, largest_batch=wanted.largest_batch)
        column: list[Operator] = []
        for turn in range(wanted.of(family) if seeds else 0):
            rng = np.random.default_rng((seed, zlib.crc32(family.value.encode()), turn))
            for _ in range(_TRIES):
                name, dims = seeds.candidate(turn, rng)
                operator = _operator(name, family, dims)
                if (name, dims) not in taken and _is_affordable(operator, device, wanted):
                    taken.add((name, dims))
                    column.append(operator)
                    break
        columns.append(column)
    longest = max((len(column) for column in columns), default=0)
    return tuple(column[i] for i in range(longest) for column in columns if i < len(column))


def reference_signatures(
    decompositions: Sequence[Decomposition], largest_batch: int
) -> set[tuple[str, Dims]]:
    """Everything that the models call at any batch size up to the largest."""
    return {
        (operator.name, operator.dims)
        for each in decompositions
        for batch_size in range(1, largest_batch + 1)
        for operator in each.at(batch_size)
    }


class _Seeds:
    """What shapes of one family grow from: a model at a time, all of them in turn."""

    def __init__(
        self,
        decompositions: Sequence[Decomposition],
        family: Family,
        *,
        device: Device,
        largest_batch: int,
    ) -> None:
        self._family = family
        self._largest_batch = largest_batch
        models = [_KeyOperators(each, family, device) for each in decompositions]
        self._models = [each for each in models if each.n]
        self._elsewhere = [(name, dims) for name, of, dims in _ELSEWHERE if of is family]

    def __bool__(self) -> bool:
        return bool(self._models or self._elsewhere)

    def candidate(self, turn: int, rng: np.random.Generator) -> Seed:
        """A shape near one that the turn's model calls, or between that and another one's."""
        name, dims = self._drawn(turn, rng)
        if rng.random() < _FILLING:
            other, other_dims = self._drawn(int(rng.integers(len(self._models) + 1)), rng)
            if other == name:
                dims = between(self._family, dims, other_dims, rng)
        return name, moved(self._family, dims, rng)

    def _drawn(self, turn: int, rng: np.random.Generator) -> Seed:
        batch_size = round(math.exp(rng.uniform(0, math.log(self._largest_batch))))
        index = turn % (len(self._models) + bool(self._elsewhere))
        if index < len(self._models):
            return self._models[index].draw(batch_size, rng)
        name, dims = self._elsewhere[rng.integers(len(self._elsewhere))]
        return name, at_batch(self._family, dims, batch_size)


class _KeyOperators:
    """The operators of one model and family, drawn by the square root of their share of time."""

    def __init__(self, decomposition: Decomposition, family: Family, device: Device) -> None:
        self._decomposition = decomposition
        times_s = np.array([each.count * _ideal_s(each, device) for each in decomposition.high])
        shares = times_s / times_s.sum()
        self._indices = [
            i
            for i, each in enumerate(decomposition.high)
            if each.family is family and shares[i] >= _LEAST_SHARE
        ]
        self._weights = np.sqrt(shares[self._indices])

    @property
    def n(self) -> int:
        return len(self._indices)

    def draw(self, batch_size: int, rng: np.random.Generator) -> Seed:
        index = rng.choice(self._indices, p=self._weights / self._weights.sum())
        chosen = self._decomposition.at(batch_size)[index]
        return chosen.name, chosen.dims


def _operator(name: str, family: Family, dims: Dims) -> Operator:
    return Operator(
        name=name,
        family=family,
        dims=dims,
        flops=flops(family, name, dims),
        bytes_read=minimal_bytes(family, name, dims, "float32"),
    )


def _ideal_s(operator: Operator, device: Device) -> float:
    return max(
        operator.flops / device.peak("float32"),
        operator.bytes_moved / device.bandwidth_bytes_per_s,
    )


def _is_affordable(operator: Operator, device: Device, size: DesignSize) -> bool:
    return (
        operator.bytes_moved <= min(_MAX_BYTES, device.memory_bytes / 8)
        and _ideal_s(operator, device) <= _ATTAINED * size.max_call_s
    )
