"""How the canonical dimensions of a family can vary while the call stays one that models make.

Widths stay multiples of 8, square images stay square, depthwise convolutions stay depthwise, and
kernels, strides and gates stay what they are. The module knows no model and no time.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from falcon_ray.knowledge.operators.operator import Dims, Family

Rule: TypeAlias = Callable[[Dims, "_Scale"], Dims]

_LOG_SPREAD = (math.log(0.7), math.log(1.3))
_GRAIN = 8
_HEAD_DIMS = (32, 64, 96, 128)
_KEPT_HEAD_DIM = 0.6
_IMAGE_CHANNELS = 4


def moved(family: Family, dims: Dims, rng: np.random.Generator) -> Dims:
    """Dimensions near the given ones, each free one times a factor between 0.7 and 1.3."""
    return _RULES.get(family, _elements)(dims, _Scale(rng))


def between(family: Family, a: Dims, b: Dims, rng: np.random.Generator) -> Dims:
    """Dimensions between two shapes of equal names, in logarithms; what must agree is of `a`."""
    if family in _CONVOLUTIONS:
        _, _, _, groups, kernel_h, kernel_w, _, _, stride = a
        if groups != 1 or (groups, kernel_h, kernel_w, stride) != (b[3], b[4], b[5], b[8]):
            return a
    if family in {Family.RECURRENT, Family.POOL, Family.MOVE, Family.ELEMENTWISE}:
        return a
    weight = rng.random()
    return tuple(
        max(1, round(math.exp((1 - weight) * math.log(x) + weight * math.log(y))))
        for x, y in zip(a, b, strict=True)
    )


def at_batch(family: Family, dims: Dims, batch_size: int) -> Dims:
    """Dimensions of a batch, from those of a single sample."""
    n_scaled = 2 if family in _ELEMENTS else 1
    return tuple(size * batch_size if i < n_scaled else size for i, size in enumerate(dims))


@dataclass(frozen=True, slots=True)
class _Scale:
    """Draws factors for sizes of several kinds."""

    rng: np.random.Generator

    def factor(self) -> float:
        return math.exp(self.rng.uniform(*_LOG_SPREAD))

    def count(self, size: float) -> int:
        """Samples, rows, tokens, positions: any whole number."""
        return max(1, round(size * self.factor()))

    def width(self, size: float) -> int:
        """Channels and features: multiples of 8 from 8 on."""
        near = size * self.factor()
        return max(1, round(near)) if near < _GRAIN else _GRAIN * round(near / _GRAIN)


def _convolution(dims: Dims, scale: _Scale) -> Dims:
    batch, inputs, outputs, groups, kernel_h, kernel_w, out_h, out_w, stride = dims
    if groups == 1:
        widths = (
            (inputs if inputs <= _IMAGE_CHANNELS else scale.width(inputs)),
            scale.width(outputs),
        )
    elif groups == inputs:
        groups = scale.width(groups)
        widths = groups, groups * (outputs // inputs)
    else:
        groups = max(2, scale.count(groups))
        widths = inputs // dims[3] * groups, outputs // dims[3] * groups
    factor = scale.factor()
    sides = [side if side == 1 else max(2, round(side * factor)) for side in (out_h, out_w)]
    return (batch, *widths, groups, kernel_h, kernel_w, *sides, stride)


def _linear(dims: Dims, scale: _Scale) -> Dims:
    rows, outputs, inputs = dims
    return scale.count(rows), scale.width(outputs), scale.width(inputs)


def _bmm(dims: Dims, scale: _Scale) -> Dims:
    batch, m, n, k = dims
    factor = scale.factor()
    square = max(1, round(m * factor))
    return (
        scale.count(batch),
        square,
        square if n == m else scale.count(n),
        scale.width(k),
    )


def _attention(dims: Dims, scale: _Scale) -> Dims:
    batch, heads, queries, keys, head_dim = dims
    tokens = scale.count(queries)
    if scale.rng.random() >= _KEPT_HEAD_DIM:
        head_dim = int(scale.rng.choice(_HEAD_DIMS))
    return (
        batch,
        scale.count(heads),
        tokens,
        tokens if keys == queries else scale.count(keys),
        head_dim,
    )


def _recurrent(dims: Dims, scale: _Scale) -> Dims:
    batch, tokens, inputs, hidden, layers, directions, gates = dims
    hidden_width = scale.width(hidden)
    return (
        batch,
        scale.count(tokens),
        hidden_width if inputs == hidden else scale.width(inputs),
        hidden_width,
        int(scale.rng.integers(1, layers + 1)),
        directions,
        gates,
    )


def _rows_of_width(dims: Dims, scale: _Scale) -> Dims:
    return scale.count(dims[0]), scale.width(dims[1])


def _rows(dims: Dims, scale: _Scale) -> Dims:
    return scale.count(dims[0]), scale.count(dims[1])


def _elements(dims: Dims, scale: _Scale) -> Dims:
    """The operand that is spread over the other one keeps its part, whatever the sizes."""
    read, written = dims
    second = read - written
    if second <= 0 or written % second:
        n = scale.count(written)
        return n * (read // written) if written else read, n
    spread, rest = scale.count(second), written // second
    rest = rest if rest == 1 else scale.count(rest)
    return spread * (rest + 1), spread * rest


def _pool(dims: Dims, scale: _Scale) -> Dims:
    """Whole images where the windows are large, else images of a usual size."""
    read, written = dims
    ratio = max(1, round(read / written))
    if ratio > _GLOBAL:
        n = scale.width(written)
        return n * scale.count(ratio), n
    possible = [side for side in _SIDES if written >= _GRAIN * side**2] or [1]
    n = int(scale.rng.choice(possible)) ** 2
    n *= scale.width(written / n)
    return n * ratio, n


_SIDES = (7, 14, 28, 56, 112)
_GLOBAL = 25
_CONVOLUTIONS = frozenset(
    {
        Family.CONV_1X1,
        Family.CONV_3X3,
        Family.CONV_LARGE,
        Family.CONV_DEPTHWISE,
        Family.CONV_GROUPED,
    }
)
_ELEMENTS = frozenset({Family.ACTIVATION, Family.ELEMENTWISE, Family.POOL, Family.MOVE})
_RULES: Mapping[Family, Rule] = MappingProxyType(
    {
        **dict.fromkeys(_CONVOLUTIONS, _convolution),
        Family.LINEAR: _linear,
        Family.BMM: _bmm,
        Family.ATTENTION: _attention,
        Family.RECURRENT: _recurrent,
        Family.EMBEDDING: _rows_of_width,
        Family.NORM: _rows,
        Family.SOFTMAX: _rows,
        Family.POOL: _pool,
    }
)
