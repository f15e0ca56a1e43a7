"""Where an operator lies among measured ones, and the ideal times that its latency is made of.

All from its family, its dimensions and the facts of a device. The module knows no measurement:
`shape_regression.py` finds out how far the ideal times are from measured ones.

    b, m, n, k    b products of an (m, k) and a (k, n) matrix, which a family amounts to
    tile          edge of the square of results that one streaming multiprocessor computes
"""

from dataclasses import dataclass

import numpy as np

from falcon_ray.knowledge.device import Device, DeviceKind
from falcon_ray.knowledge.operators.operator import Family
from falcon_ray.space.configuration import FloatArray

TILES = (64, 128)
_OCTAVES = 2.0
"""Doubling a dimension moves an operator by half of what a quarter of a tile's waste does."""

_CONVOLUTIONS = (
    Family.CONV_1X1,
    Family.CONV_3X3,
    Family.CONV_LARGE,
    Family.CONV_DEPTHWISE,
    Family.CONV_GROUPED,
)
_ARITHMETIC = (*_CONVOLUTIONS, Family.LINEAR, Family.BMM, Family.ATTENTION, Family.RECURRENT)
_DIMENSIONS_MATTER = (
    Family.ATTENTION,
    Family.RECURRENT,
    Family.EMBEDDING,
    Family.NORM,
    Family.SOFTMAX,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shapes:
    """Several operators of one family, as predictors take them.

    Attributes:
        family: Of all n operators.
        dims: Canonical dimensions, shape (n, d).
        flops: Of one call, shape (n,).
        bytes_moved: By one call, shape (n,).
    """

    family: Family
    dims: FloatArray
    flops: FloatArray
    bytes_moved: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The facts of a device that ideal times follow from.

    Attributes:
        flops_per_s: In the dtype that is computed in.
        bytes_per_s: Of its main memory.
        units: Streaming multiprocessors that may be used; None on a CPU, which has no tiles.
    """

    flops_per_s: float
    bytes_per_s: float
    units: float | None

    @classmethod
    def of(cls, device: Device, *, dtype: str, share: float) -> "Machine":
        """A device in a dtype, with a share of its compute units."""
        return cls(
            flops_per_s=device.peak(dtype) * share,
            bytes_per_s=device.bandwidth_bytes_per_s,
            units=device.units * share if device.kind is DeviceKind.GPU else None,
        )


def roofline_s(shapes: Shapes, machine: Machine) -> FloatArray:
    """The longer of computing and moving at peak rates; Williams et al. (2009). Shape (n,)."""
    return np.maximum(shapes.flops / machine.flops_per_s, shapes.bytes_moved / machine.bytes_per_s)


def ideal_seconds(shapes: Shapes, machine: Machine) -> FloatArray:
    """Times at peak rates that a latency is a non-negative combination of.

    Columns: one launch (1), moving (s), and for families that compute: arithmetic (s),
    arithmetic in full waves of 64 and 128 wide tiles (s; only on GPUs), steps of recurrence.
    A wave of tiles takes as long when it is not full, as in Lee et al. (2025), eq. 2.

    Returns:
        Shape (n, number of columns), the first column 1.
    """
    columns = [np.ones(len(shapes.dims)), shapes.bytes_moved / machine.bytes_per_s]
    if shapes.family in _ARITHMETIC:
        columns.append(shapes.flops / machine.flops_per_s)
    product = _product(shapes)
    if machine.units is not None and product is not None:
        b, m, n, k = product
        for tile in TILES:
            waves = np.ceil(b * np.ceil(m / tile) * np.ceil(n / tile) / machine.units)
            columns.append(waves * machine.units * 2 * tile**2 * k / machine.flops_per_s)
    if shapes.family is Family.RECURRENT:
        tokens, layers = shapes.dims[:, 1], shapes.dims[:, 4]
        columns.append(tokens * layers)
    return np.stack(columns, axis=1)


def coordinates(shapes: Shapes, *, has_tiles: bool) -> FloatArray:
    """Where operators lie: near ones are equally far from their ideal times.

    Args:
        shapes: n operators.
        has_tiles: Whether a product's last tiles may be partly empty, as on GPUs.

    Returns:
        Shape (n, p), in units of two octaves of a dimension or one of a tile's waste.
    """
    dims = np.maximum(shapes.dims, 1.0)
    product = _product(shapes)
    waste: list[FloatArray] = []
    if shapes.family in _DIMENSIONS_MATTER:
        sizes = list(dims.T)
    elif shapes.family in _CONVOLUTIONS:
        batch, n_in, n_out, groups, kernel_h, kernel_w, out_h, out_w, stride = dims.T
        sizes = [batch * out_h * out_w, n_out / groups, n_in / groups * kernel_h * kernel_w]
        sizes += [out_h, kernel_h * kernel_w, groups, stride]
        waste = [_waste(n_out / groups, tile) for tile in TILES]
    elif product is not None:
        sizes = list(product)
        waste = [_waste(product[1], tile) + _waste(product[2], tile) for tile in TILES]
    else:
        read, written = dims.T
        sizes = [written, read / written]
    logs = [np.log2(each) / _OCTAVES for each in sizes]
    return np.stack([*logs, *(waste if has_tiles else [])], axis=1)


def _product(shapes: Shapes) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray] | None:
    """The matrix products that operators amount to, as b, m, n, k, each of shape (n,)."""
    dims = np.maximum(shapes.dims, 1.0).T
    if shapes.family is Family.LINEAR:
        rows, n_out, n_in = dims
        return np.ones_like(rows), rows, n_out, n_in
    if shapes.family is Family.BMM:
        batch, m, n, k = dims
        return batch, m, n, k
    if shapes.family in _CONVOLUTIONS and shapes.family is not Family.CONV_DEPTHWISE:
        batch, n_in, n_out, groups, kernel_h, kernel_w, out_h, out_w, _ = dims
        inner = n_in / groups * kernel_h * kernel_w
        return groups, batch * out_h * out_w, n_out / groups, inner
    if shapes.family is Family.ATTENTION:
        batch, heads, queries, keys, width = dims
        return batch * heads, queries, keys, 2 * width
    return None


def _waste(size: FloatArray, tile: int) -> FloatArray:
    """Octaves by which whole tiles exceed a size."""
    return np.log2(np.ceil(size / tile) * tile / size)
