"""From a signature to calls that can be timed: ATen's function on operands of the right shapes.

A signature does not say everything: padding, bias, window sizes and layouts are chosen as most
models have them, and said beside each maker. The module knows no clock.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from falcon_ray.knowledge.operators.operator import Dims, Family
from falcon_ray.profiling.benchmark import Call
from falcon_ray.profiling.operands import Operands

Maker: TypeAlias = Callable[[Operands, str, Dims], Call]

_TABLE_ROWS = 2**15
_GLOBAL_WINDOW = 36
_SIDES = (112, 56, 28, 14, 7, 48, 24, 12, 6, 4, 2, 1)
_RECURRENT = MappingProxyType({4: torch.lstm, 3: torch.gru, 1: torch.rnn_tanh})


class NoCallError(ValueError):
    """Nobody here knows how to make such a call."""


def operator_calls(name: str, family: Family, dims: Dims, operands: Operands) -> tuple[Call, ...]:
    """Calls of one operator that differ in their weights only, to be timed in turns.

    Results are kept for a while, as a model keeps them until the next operators have read them:
    so memory that is written to is not in the caches already.

    Args:
        name: As in `Operator.name`.
        family: Decides what `dims` mean.
        dims: The family's canonical dimensions.
        operands: Where tensors come from; used up by the next operator.

    Raises:
        NoCallError: The family moves nothing, or the name is unknown in it.
    """
    make = _MAKERS.get(family)
    if make is None:
        raise NoCallError(f"operators of family {family.value} cannot be timed alone")
    operands.start()
    calls = [make(operands, name, dims)]
    while operands.next_turn():
        calls.append(make(operands, name, dims))
    return operands.keep_results(calls)


def _convolution(operands: Operands, name: str, dims: Dims) -> Call:
    """Without bias, as before a batch norm, and padded by half the kernel where strides overlap."""
    batch, inputs, outputs, groups, kernel_h, kernel_w, out_h, out_w, stride = dims
    pads = [kernel // 2 if stride < kernel else 0 for kernel in (kernel_h, kernel_w)]
    sizes = [
        _input_size(out, kernel, stride, pad)
        for out, kernel, pad in zip((out_h, out_w), (kernel_h, kernel_w), pads, strict=True)
    ]
    if name == "conv1d":
        x = operands.activation(batch, inputs, sizes[1])
        weight = operands.weight(outputs, inputs // groups, kernel_w)
        return partial(torch.conv1d, x, weight, None, stride, pads[1], 1, groups)
    if name != "conv2d":
        raise NoCallError(f"no call of {name} is known")
    x = operands.activation(batch, inputs, *sizes)
    weight = operands.weight(outputs, inputs // groups, kernel_h, kernel_w)
    # A stride is the same in both directions, but for kernels that move in one only.
    strides = [
        stride if kernel > 1 or kernel_h == kernel_w else 1 for kernel in (kernel_h, kernel_w)
    ]
    return partial(torch.conv2d, x, weight, None, strides, pads, 1, groups)


def _input_size(out: int, kernel: int, stride: int, pad: int) -> int:
    """The even size where several give the same output, as images have it."""
    exact = (out - 1) * stride + kernel - 2 * pad
    even = out * stride
    return even if exact <= even < exact + stride else max(exact, 1)


def _linear(operands: Operands, name: str, dims: Dims) -> Call:
    """With a bias where the operator takes one."""
    rows, outputs, inputs = dims
    x = operands.activation(rows, inputs)
    if name == "linear":
        weight = operands.weight(outputs, inputs)
        return partial(functional.linear, x, weight, operands.weight(outputs))
    if name == "addmm":
        weight = operands.weight(inputs, outputs)
        return partial(torch.addmm, operands.weight(outputs), x, weight)
    return partial(_named(name), x, operands.weight(inputs, outputs))


def _bmm(operands: Operands, name: str, dims: Dims) -> Call:
    """Of two activations."""
    batch, m, n, k = dims
    a, b = operands.activation(batch, m, k), operands.activation(batch, k, n)
    if name == "baddbmm":
        return partial(torch.baddbmm, operands.activation(batch, m, n), a, b)
    return partial(_named(name), a, b)


def _attention(operands: Operands, name: str, dims: Dims) -> Call:
    """Without a mask; heads are slices of one projection, as after a linear layer."""
    if name != "scaled_dot_product_attention":
        raise NoCallError(f"no call of {name} is known")
    batch, heads, queries, keys, head_dim = dims

    def split(tokens: int) -> Tensor:
        return operands.activation(batch, tokens, heads, head_dim).transpose(1, 2)

    return partial(
        functional.scaled_dot_product_attention, split(queries), split(keys), split(keys)
    )


def _recurrent(operands: Operands, name: str, dims: Dims) -> Call:
    """With biases, batch first, without dropout."""
    batch, tokens, inputs, hidden, layers, directions, gates = dims
    function = _RECURRENT.get(gates)
    if function is None:
        raise NoCallError(f"no recurrent operator has {gates} gates, got {name}")
    state = operands.activation(layers * directions, batch, hidden)
    states = (state, state) if gates == 4 else state
    weights: list[Tensor] = []
    for layer in range(layers):
        width = inputs if layer == 0 else directions * hidden
        for _ in range(directions):
            weights += [
                operands.weight(gates * hidden, width),
                operands.weight(gates * hidden, hidden),
                operands.weight(gates * hidden),
                operands.weight(gates * hidden),
            ]
    x = operands.activation(batch, tokens, inputs)
    return partial(
        function,
        x,
        states,
        weights,
        True,
        layers,
        0.0,
        False,
        directions == 2,
        True,
    )


def _embedding(operands: Operands, name: str, dims: Dims) -> Call:
    """From a table of 32,768 rows, or of as many as a quarter of the pool holds."""
    rows, width = dims
    table = operands.activation(_TABLE_ROWS, width)
    indices = operands.indices(rows, below=_TABLE_ROWS)
    if name == "embedding":
        return partial(functional.embedding, indices, table)
    if name == "embedding_bag":
        bags = torch.arange(0, rows, device=operands.device)
        return partial(functional.embedding_bag, indices, table, bags, mode="sum")
    if name == "index_select":
        return partial(torch.index_select, table, 0, indices)
    raise NoCallError(f"no call of {name} is known")


def _elementwise(operands: Operands, name: str, dims: Dims) -> Call:
    """Of one operand where as much is read as written, else of two.

    The smaller of two operands is spread over space by a product (squeeze and excitation) and
    over rows by everything else (positions, biases).
    """
    read, written = dims
    if name == "glu":
        return partial(functional.glu, operands.activation(read), -1)
    plain = name.removesuffix("_")
    second = read - written
    x = operands.activation(written)
    arguments: tuple[Tensor | float, ...] = (x,)
    if plain not in _UNARY:
        if plain not in _BINARY or second < 0:
            raise NoCallError(f"no call of {name} that reads {read} and writes {written} is known")
        if second == 0:
            arguments = (x, 1.0)
        elif second == written or written % second:
            arguments = (x, operands.activation(second if second == written else 1))
        elif plain == "mul":
            arguments = (x.view(second, -1), operands.activation(second, 1))
        else:
            arguments = (x.view(-1, second), operands.activation(second))
    if name == plain or plain in _STABLE:
        return partial(_named(name), *arguments)
    # Again and again in place it would tend to zero, and the smallest numbers are slow.
    result = operands.activation(written).view(arguments[0].shape)
    return partial(getattr(torch.ops.aten, plain).out, *arguments, out=result)


def _norm(operands: Operands, name: str, dims: Dims) -> Call:
    """With weights; 32 channels of a batch norm's row, 10 of a group norm's."""
    rows, size = dims
    if name in {"layer_norm", "rms_norm"}:
        x, weight = operands.activation(rows, size), operands.activation(size)
        if name == "rms_norm":
            return partial(functional.rms_norm, x, (size,), weight)
        return partial(functional.layer_norm, x, (size,), weight, weight)
    if name == "batch_norm":
        x = operands.activation(1, rows, size, 1)
        mean, scale = operands.activation(rows), operands.activation(rows)
        return partial(functional.batch_norm, x, mean, torch.ones_like(scale), scale, mean)
    if name == "group_norm":
        channels = next(n for n in (16, 10, 8, 4, 2, 1) if size % n == 0)
        x = operands.activation(1, rows * channels, size // channels)
        weight = operands.activation(rows * channels)
        return partial(functional.group_norm, x, rows, weight, weight)
    raise NoCallError(f"no call of {name} is known")


def _softmax(operands: Operands, name: str, dims: Dims) -> Call:
    """Over the last dimension."""
    return partial(_named(name), operands.activation(*dims), -1)


def _pool(operands: Operands, name: str, dims: Dims) -> Call:
    """Windows next to each other; the whole image where that is 36 times the output or more."""
    read, written = dims
    ratio = read / max(written, 1)
    if name in {"mean", "sum", "amax"}:
        return partial(_named(name), operands.activation(written, read // written), -1)
    if name == "adaptive_avg_pool2d" or ratio >= _GLOBAL_WINDOW:
        x = operands.activation(1, written, read // written, 1)
        return partial(functional.adaptive_avg_pool2d, x, 1)
    stride = max(1, round(math.sqrt(ratio)))
    side = next(n for n in _SIDES if written % n**2 == 0)
    x = operands.activation(1, written // side**2, side * stride, side * stride)
    if name == "max_pool2d":
        return partial(functional.max_pool2d, x, stride, stride)
    if name == "avg_pool2d":
        return partial(functional.avg_pool2d, x, stride, stride)
    raise NoCallError(f"no call of {name} is known")


def _join(operands: Operands, name: str, dims: Dims) -> Call:
    half = dims[0] // 2
    if name == "stack" and dims[0] % 2:  # of parts of equal size
        return partial(torch.stack, (operands.activation(dims[0]),))
    parts = (operands.activation(half), operands.activation(dims[0] - half))
    return partial(_named(name), parts)


def _gather(operands: Operands, name: str, dims: Dims) -> Call:
    """Whole rows, of which what is read beyond them tells the number."""
    read, written = dims
    rows = max(read - written, 1)
    table = operands.activation(_TABLE_ROWS, max(written // rows, 1))
    return partial(_named(name), table, 0, operands.indices(rows, below=_TABLE_ROWS))


def _reorder(operands: Operands, name: str, dims: Dims) -> Call:
    """Of heads of 64 where that divides it, as attention does."""
    del name
    read = dims[0]
    width = 64 if read % 64 == 0 else 1
    heads = next(n for n in (12, 8, 4, 2, 1) if read % (n * width) == 0)
    x = operands.activation(read // (heads * width), heads, width).transpose(0, 1)
    return partial(torch.clone, x, memory_format=torch.contiguous_format)


def _convert(operands: Operands, name: str, dims: Dims) -> Call:
    del name
    other = torch.bfloat16 if operands.dtype is torch.float32 else torch.float32
    return partial(operands.activation(dims[0]).to, other)


def _copy(operands: Operands, name: str, dims: Dims) -> Call:
    del name
    return partial(operands.activation(dims[1]).copy_, operands.activation(dims[0]))


def _create(operands: Operands, name: str, dims: Dims) -> Call:
    dtype = torch.int64 if name == "arange" else operands.dtype
    return partial(_named(name), dims[1], dtype=dtype, device=operands.device)


def _upsample(operands: Operands, name: str, dims: Dims) -> Call:
    del name
    read, written = dims
    side = next(n for n in _SIDES if read % n**2 == 0)
    x = operands.activation(1, read // side**2, side, side)
    return partial(functional.interpolate, x, scale_factor=max(1, round(math.sqrt(written / read))))


_MOVES: Mapping[str, Maker] = MappingProxyType(
    {
        "cat": _join,
        "stack": _join,
        "index_select": _gather,
        "contiguous": _reorder,
        "clone": _reorder,
        "reshape": _reorder,
        "to": _convert,
        "copy_": _copy,
        "zeros": _create,
        "ones": _create,
        "arange": _create,
        "upsample_nearest2d": _upsample,
    }
)


def _move(operands: Operands, name: str, dims: Dims) -> Call:
    if name not in _MOVES:
        raise NoCallError(f"no call of {name} is known")
    return _MOVES[name](operands, name, dims)


def _named(name: str) -> Callable[..., object]:
    for module in (torch, functional):
        function = getattr(module, name, None)
        if callable(function):
            return function
    method = getattr(Tensor, name, None)
    if callable(method):
        return method
    raise NoCallError(f"torch has no function {name}")


_UNARY = frozenset(
    {
        *("relu", "gelu", "silu", "hardswish", "hardsigmoid", "hardtanh", "relu6", "leaky_relu"),
        *("elu", "softplus", "mish", "sigmoid", "tanh", "exp", "log", "erf", "neg", "abs"),
        *("sqrt", "rsqrt", "sin", "cos", "square", "reciprocal"),
    }
)
_BINARY = frozenset({"add", "sub", "mul", "div", "maximum", "minimum"})
_STABLE = frozenset({"relu", "hardtanh", "relu6", "add", "sub"})
"""In place, numbers do not shrink."""
_MAKERS: Mapping[Family, Maker] = MappingProxyType(
    {
        Family.CONV_1X1: _convolution,
        Family.CONV_3X3: _convolution,
        Family.CONV_LARGE: _convolution,
        Family.CONV_DEPTHWISE: _convolution,
        Family.CONV_GROUPED: _convolution,
        Family.LINEAR: _linear,
        Family.BMM: _bmm,
        Family.ATTENTION: _attention,
        Family.RECURRENT: _recurrent,
        Family.EMBEDDING: _embedding,
        Family.ACTIVATION: _elementwise,
        Family.ELEMENTWISE: _elementwise,
        Family.NORM: _norm,
        Family.SOFTMAX: _softmax,
        Family.POOL: _pool,
        Family.MOVE: _move,
    }
)
