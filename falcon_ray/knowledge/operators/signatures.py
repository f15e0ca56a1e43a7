"""Which family a call belongs to, its canonical dimensions, and what follows from these alone.

`names.py` holds the names; one that it does not know is `Family.OTHER`, of which only
bytes are known. The module knows shapes. It knows neither torch, nor values, nor any time.

Only multiplications and additions of the families that are bound by arithmetic count as FLOPs;
the time of the others follows the bytes that they move.
"""

import math
from collections.abc import Callable
from typing import TypeAlias

from falcon_ray.knowledge.operators.calls import Call, elements_moved
from falcon_ray.knowledge.operators.contractions import contraction
from falcon_ray.knowledge.operators.names import (
    ATTENTIONS,
    CONV_FAMILIES,
    CONVOLUTIONS,
    EMBEDDINGS,
    GATES,
    NORM,
    PLAIN,
    PRODUCTS,
    SOFTMAX,
    base_name,
    is_transposed,
)
from falcon_ray.knowledge.operators.operator import DTYPE_BYTES, Dims, Family


def signature(call: Call) -> tuple[Family, Dims]:
    """The family of a call and its canonical dimensions, as `Family` says.

    A call that returns a view, or nothing that is a tensor, moves nothing: `Family.VIEW`.
    A matrix product with a two-dimensional right factor is `Family.LINEAR`, otherwise `BMM`.
    The kernel and the height of a 3-d convolution include its depth, so that FLOPs are right.
    """
    base = base_name(call.name)
    if call.is_idle:
        return Family.VIEW, (0, 0)
    for names, rule in _RULES:
        if base in names:
            found = rule(base, call)
            if found is not None:
                return found
    if base in {"max", "min"} and "other" in call.arguments:
        return Family.ELEMENTWISE, elements_moved(call)
    return PLAIN.get(base, Family.OTHER), elements_moved(call)


def flops(family: Family, name: str, dims: Dims) -> float:
    """Floating-point operations of one call; a multiplication and an addition are two.

    Args:
        family: Of the operator.
        name: ATen's; only transposed convolutions need it.
        dims: The family's canonical dimensions.

    Returns:
        0 for families that are bound by memory.
    """
    if family in CONV_FAMILIES:
        batch, inputs, outputs, groups, kernel_h, kernel_w, out_h, out_w, stride = dims
        positions = out_h * out_w
        if is_transposed(name):  # every pixel of the input meets the kernel, not of the output
            positions = math.ceil(out_h / stride) * math.ceil(out_w / stride)
        return 2.0 * batch * positions * inputs * outputs * kernel_h * kernel_w / groups
    if family in {Family.LINEAR, Family.BMM}:
        return 2.0 * math.prod(dims)
    if family is Family.ATTENTION:
        return 4.0 * math.prod(dims)  # scores and mixture, no discount for causal masks
    if family is Family.RECURRENT:
        batch, tokens, _, hidden, _, directions, gates = dims
        widths = sum(width + hidden for width in _layer_widths(dims))
        return 2.0 * batch * tokens * directions * gates * hidden * widths
    return 0.0


def minimal_bytes(family: Family, name: str, dims: Dims, dtype: str) -> float:
    """Bytes that a call with these dimensions moves at least, each operand once.

    It equals what `traffic` says of a call with a bias (but none for `matmul`, `mm`, `bmm`),
    with affine parameters in layer and RMS norms, "same" padding, no mask and indices of int64. The
    parameters of other norms are left out; their share is small.

    Args:
        family: Of the operator.
        name: ATen's.
        dims: The family's canonical dimensions.
        dtype: A key of `DTYPE_BYTES`.
    """
    return _minimal_elements(family, name, dims) * DTYPE_BYTES[dtype] + (
        8.0 * dims[0] if family is Family.EMBEDDING else 0.0
    )


def workspace_bytes(call: Call) -> float:
    """Memory that a call holds beside its operands and results, where that is much.

    As torch 2.13 does on a CPU: convolutions copy their operands into a blocked layout; recurrent
    operators compute the gates of all tokens of a layer before they step through them, keep each
    step until the layer's output is put together, and an LSTM copies a layer's weights. Libraries
    for GPUs need about as much for the former and have their weights in order for the latter.
    """
    family, dims = signature(call)
    if not call.results:
        return 0.0
    result = call.results[0]
    if family in CONV_FAMILIES:
        source, weight = (each.elements for each in call.tensors[:2])
        copies = source + weight
        if is_transposed(call.name):
            copies = result.elements + max(source, result.elements) + weight
        return float(copies * result.element_bytes)
    if family is not Family.RECURRENT:
        return 0.0
    batch, tokens, _, hidden, layers, directions, gates = dims
    lstm = base_name(call.name).startswith("lstm")
    per_token = gates * hidden + (directions * hidden if layers > 1 else 0)
    if directions > 1:  # output and steps of both, beside their concatenation
        per_token += 4 * hidden
    elif not lstm:
        per_token += hidden
    weights = gates * hidden * (max(_layer_widths(dims)) + hidden) if lstm else 0
    return float((batch * tokens * per_token + weights) * result.element_bytes)


def _minimal_elements(family: Family, name: str, dims: Dims) -> float:
    base = base_name(name)
    match family:
        case Family.LINEAR:
            rows, outputs, inputs = dims
            bias = outputs if base in {"linear", "addmm"} else 0
            elements = rows * (inputs + outputs) + inputs * outputs + bias
        case Family.BMM:
            batch, m, n, k = dims
            elements = batch * (m * k + k * n + m * n)
        case Family.ATTENTION:
            batch, heads, queries, keys, width = dims
            elements = 2 * batch * heads * (queries + keys) * width
        case Family.RECURRENT:
            elements = _recurrent_elements(base, dims)
        case Family.EMBEDDING:  # of a bag, only sums leave the operator
            elements = dims[0] * dims[1] * (1 if "bag" in base else 2)
        case Family.NORM | Family.SOFTMAX:
            elements = (2 * dims[0] + {"layer_norm": 2, "rms_norm": 1}.get(base, 0)) * dims[1]
        case _ if family in CONV_FAMILIES:
            elements = _convolution_elements(base, dims)
        case _:
            elements = sum(dims)
    return float(elements)


def _convolution_elements(base: str, dims: Dims) -> float:
    batch, inputs, outputs, groups, kernel_h, kernel_w, out_h, out_w, stride = dims
    if is_transposed(base):
        in_h, in_w = math.ceil(out_h / stride), math.ceil(out_w / stride)
    else:
        in_h, in_w = out_h * (stride if out_h > 1 else 1), out_w * stride
    weights = inputs * outputs * kernel_h * kernel_w / groups
    return batch * (inputs * in_h * in_w + outputs * out_h * out_w) + weights + outputs


def _recurrent_elements(base: str, dims: Dims) -> float:
    batch, tokens, inputs, hidden, layers, directions, gates = dims
    per_unit = sum(width + hidden + 2 for width in _layer_widths(dims))  # 2 biases
    states = 2 * (2 if base.startswith("lstm") else 1) * layers * directions * batch * hidden
    if base.endswith("_cell"):  # its output is its state
        sequences = batch * inputs
    else:
        sequences = batch * tokens * (inputs + directions * hidden)
    return directions * gates * hidden * per_unit + sequences + states


def _layer_widths(dims: Dims) -> list[int]:
    """Features that enter each layer of a recurrent operator."""
    _, _, inputs, hidden, layers, directions, _ = dims
    return [inputs] + [hidden * directions] * (layers - 1)


_Rule: TypeAlias = Callable[[str, Call], tuple[Family, Dims] | None]


def _convolution(base: str, call: Call) -> tuple[Family, Dims]:
    (source, weight), result = call.tensors[:2], call.results[0]
    groups = call.arguments.get("groups", 1)
    assert isinstance(groups, int)
    spatial = len(weight.shape) - 2
    kernel, out = weight.shape[2:], result.shape[-spatial:]
    batch = source.shape[0] if len(source.shape) == spatial + 2 else 1
    if is_transposed(base) or call.arguments.get("transposed") is True:
        inputs, outputs = weight.shape[0], weight.shape[1] * groups
    else:
        inputs, outputs = weight.shape[1] * groups, weight.shape[0]
    stride = call.arguments.get("stride", 1)
    if isinstance(stride, tuple):
        strides = [each for each in stride if isinstance(each, int)]
        stride = max(strides, default=1)
    assert isinstance(stride, int)
    if groups > 1:
        family = Family.CONV_DEPTHWISE if groups == inputs else Family.CONV_GROUPED
    elif math.prod(kernel) == 1:
        family = Family.CONV_1X1
    else:
        family = Family.CONV_3X3 if kernel == (3, 3) else Family.CONV_LARGE
    return family, (
        batch,
        inputs,
        outputs,
        groups,
        math.prod(kernel[:-1]),
        kernel[-1],
        math.prod(out[:-1]),
        out[-1],
        stride,
    )


def _product(base: str, call: Call) -> tuple[Family, Dims] | None:
    if base == "linear":
        source, weight = call.tensor("input").shape, call.tensor("weight").shape
        return Family.LINEAR, (math.prod(source[:-1]), math.prod(weight[:-1]), weight[-1])
    if base == "einsum":
        equation = call.arguments.get("equation")
        shapes = [each.shape for each in call.tensors]
        if not isinstance(equation, str) or len(shapes) != 2:
            return None
        return contraction(equation, shapes[0], shapes[1])
    left, right = (each.shape for each in call.tensors[-2:])
    if len(right) <= 2:
        return Family.LINEAR, (math.prod(left[:-1]), math.prod(right[1:]), left[-1])
    n_rows_axes = min(len(left), 2) - 1  # none of a vector
    result = call.results[0].shape
    lead = result[: len(result) - n_rows_axes - 1]
    return Family.BMM, (math.prod(lead), math.prod(left[:-1][-1:]), *right[-1:], *left[-1:])


def _attention(base: str, call: Call) -> tuple[Family, Dims]:
    del base
    query, key = call.tensor("query").shape, call.tensor("key").shape
    *lead, queries, width = query
    heads = lead.pop() if len(lead) > 1 else 1
    return Family.ATTENTION, (math.prod(lead), heads, queries, key[-2], width)


def _recurrent(base: str, call: Call) -> tuple[Family, Dims] | None:
    gates = GATES[base]
    if "input" not in call.arguments:  # a packed sequence, whose lengths are values
        return None
    source = call.tensor("input").shape
    if base.endswith("_cell"):
        hidden = call.results[0].shape[-1]
        return Family.RECURRENT, (math.prod(source[:-1]), 1, source[-1], hidden, 1, 1, gates)
    arguments = call.arguments
    layers, directions = arguments.get("num_layers"), 2 if arguments.get("bidirectional") else 1
    assert isinstance(layers, int)
    hidden = call.results[0].shape[-1] // directions
    batch, tokens = source[:2] if arguments.get("batch_first") else source[1::-1]
    return Family.RECURRENT, (batch, tokens, source[-1], hidden, layers, directions, gates)


def _embedding(base: str, call: Call) -> tuple[Family, Dims]:
    del base
    return Family.EMBEDDING, (
        math.prod(call.tensor("indices").shape),
        call.tensor("weight").shape[-1],
    )


def _norm(base: str, call: Call) -> tuple[Family, Dims]:
    shape = call.tensors[0].shape
    if "layer" in base or "rms" in base:
        normalized = call.arguments.get("normalized_shape")
        assert isinstance(normalized, tuple)
        each = math.prod(shape[len(shape) - len(normalized) :])
    elif "group" in base:
        groups = call.arguments.get("num_groups", call.arguments.get("group"))
        assert isinstance(groups, int)
        each = math.prod(shape[1:]) // groups
    else:  # each channel of each sample
        each = math.prod(shape[2:])
    return Family.NORM, (math.prod(shape) // max(each, 1), each)


def _softmax(base: str, call: Call) -> tuple[Family, Dims]:
    del base
    shape, axis = call.tensors[0].shape, call.arguments.get("dim")
    each = shape[axis] if shape and isinstance(axis, int) else 1
    return Family.SOFTMAX, (math.prod(shape) // max(each, 1), each)


_RULES: tuple[tuple[frozenset[str], _Rule], ...] = (
    (CONVOLUTIONS, _convolution),
    (PRODUCTS, _product),
    (ATTENTIONS, _attention),
    (frozenset(GATES), _recurrent),
    (EMBEDDINGS, _embedding),
    (NORM, _norm),
    (SOFTMAX, _softmax),
)
"""Names with the rule that reads their dimensions from the call."""
