"""The public table of measured operators as rows of `schemas.OPERATORS`.

It translates two collections into the names, families and canonical dimensions of this project,
and counts FLOPs and bytes. It fits nothing and judges nothing; measurements stay as published.
"""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
from numpy.typing import NDArray

from falcon_ray.knowledge.operators.operator import DTYPE_BYTES, Family
from falcon_ray.knowledge.profile.schemas import OPERATORS
from falcon_ray.studies.public_tables import public_table

_COMPUTE: Any = pyarrow.compute  # its stubs leave half of the types open

CATALOGUE_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "nvidia-p4": "P4",
        "nvidia-p100-pcie-16gb": "P100",
        "nvidia-v100-pcie-32gb": "V100-32G",
        "nvidia-t4": "T4",
        "nvidia-a100-pcie-40gb": "A100-40G",
        "nvidia-a100-pcie-80gb": "A100-80G",
        "nvidia-a100-sxm-80gb": "A100-80G",
        "nvidia-l4": "L4",
        "nvidia-l40s": "L40S",
        "nvidia-h100-sxm-80gb": "H100",
        "nvidia-h200-sxm-141gb": "H200",
        "nvidia-b200-sxm": "B200",
    }
)
"""The catalogue's name of each device; cards for PCIe share the row of those for SXM."""

MODES: Mapping[str, str] = MappingProxyType(
    {"neusight-asplos25": "eager", "aiconfigurator": "graph"}
)
"""How each collection calls an operator: timed one by one, or replayed from a CUDA graph."""

_OPERATORS: Mapping[str, tuple[str, Family, int]] = MappingProxyType(
    {
        "gemm": ("linear", Family.LINEAR, 0),
        "bmm": ("bmm", Family.BMM, 0),
        "conv": ("conv2d", Family.CONV_3X3, 0),  # every row has a 3 x 3 kernel
        "softmax": ("softmax", Family.SOFTMAX, 1),
        "ln": ("layer_norm", Family.NORM, 1),
        "add": ("add", Family.ELEMENTWISE, 2),
        "mul": ("mul", Family.ELEMENTWISE, 2),
        "div": ("div", Family.ELEMENTWISE, 2),
        "pow": ("pow", Family.ELEMENTWISE, 2),
        "addu": ("add", Family.ELEMENTWISE, 1),
        "mulu": ("mul", Family.ELEMENTWISE, 1),
        "divu": ("div", Family.ELEMENTWISE, 1),
        "powu": ("pow", Family.ELEMENTWISE, 1),
        "gelu": ("gelu", Family.ACTIVATION, 1),
        "relu": ("relu", Family.ACTIVATION, 1),
        "tanh": ("tanh", Family.ACTIVATION, 1),
    }
)
"""The published name -> ATen's name, family, tensors read by those that read whole tensors."""

_CONTRACTION_IN_THE_MIDDLE = "neusight-asplos25"
"""Multiplies (m, n) by (n, k) where others multiply (m, k) by (k, n).

Its times rise in steps of 128 along the first and the last dimension only, on every device; its
shapes of gradients make sense this way only.
"""

_N_PUBLISHED_DIMS: Mapping[Family, int] = MappingProxyType(
    {Family.LINEAR: 4, Family.BMM: 4, Family.CONV_3X3: 7}
)

IntArray = NDArray[np.int64]


def operator_rows(families: Collection[Family] | None = None) -> pa.Table:
    """The public measurements, of some families or of all (628,141 rows, about 2 s).

    The sd of a measurement was not published, so `relative_sd` is NaN.

    Raises:
        InputError: The public table is missing.
    """
    wanted = [
        name
        for name, (_, family, _) in _OPERATORS.items()
        if families is None or family in families
    ]
    published = pq.read_table(
        public_table("operator_latency.parquet"), filters=[("family", "in", wanted)]
    )
    names = _COMPUTE.cast(published["family"], pa.string())
    sources = _COMPUTE.cast(published["source"], pa.string())
    parts: list[pa.Table] = []
    for name in wanted:
        op, family, n_read = _OPERATORS[name]
        for source, mode in MODES.items():
            chosen = published.filter(
                _COMPUTE.and_(_COMPUTE.equal(names, name), _COMPUTE.equal(sources, source))
            )
            if not chosen.num_rows:
                continue
            dims = _canonical(_published_dims(chosen, family), family, source, n_read)
            parts.append(_rows(chosen, op, family, mode=mode, dims=dims))
    return pa.concat_tables(parts)


def flops_and_bytes(
    family: Family, dims: IntArray, *, element_bytes: float | NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """FLOPs of matrix products and convolutions (else 0), and bytes that each call must move.

    Args:
        family: Of all n operators: one that the public table has.
        dims: Canonical dimensions, shape (n, d).
        element_bytes: Of every tensor, a number or shape (n,).

    Returns:
        Two arrays of shape (n,).
    """
    d = dims.astype(np.float64).T
    flops = np.zeros(len(dims))
    if family is Family.LINEAR:
        rows, n_out, n_in = d
        flops = 2 * rows * n_out * n_in
        elements = rows * n_in + n_in * n_out + rows * n_out
    elif family is Family.BMM:
        batch, m, n, k = d
        flops = 2 * batch * m * n * k
        elements = batch * (m * k + k * n + m * n)
    elif family is Family.CONV_3X3:
        batch, n_in, n_out, groups, kernel_h, kernel_w, out_h, out_w, stride = d
        weights = n_out * n_in / groups * kernel_h * kernel_w
        flops = 2 * batch * out_h * out_w * weights
        elements = batch * out_h * out_w * (n_out + n_in * stride**2) + weights
    elif family in (Family.SOFTMAX, Family.NORM):
        elements = 2 * d[0] * d[1]
    else:
        elements = d[0] + d[1]
    return flops, elements * element_bytes


def _published_dims(chosen: pa.Table, family: Family) -> IntArray:
    values = _COMPUTE.list_flatten(chosen["dims"]).to_numpy()
    return values.astype(np.int64).reshape(-1, _N_PUBLISHED_DIMS.get(family, 2))


def _canonical(dims: IntArray, family: Family, source: str, n_read: int) -> IntArray:
    """Published dimensions in the order that `Family` states."""
    if family in (Family.LINEAR, Family.BMM):
        batch, m, n, k = dims.T
        if source == _CONTRACTION_IN_THE_MIDDLE:
            n, k = k, n
        columns = [m, n, k] if family is Family.LINEAR else [batch, m, n, k]
    elif family is Family.CONV_3X3:
        batch, n_in, n_out, kernel, size, stride, padding = dims.T
        out = (size + 2 * padding - kernel) // stride + 1
        columns = [batch, n_in, n_out, np.ones_like(out), kernel, kernel, out, out, stride]
    elif family in (Family.SOFTMAX, Family.NORM):
        columns = list(dims.T)
    else:
        elements = dims[:, 0] * dims[:, 1]
        columns = [n_read * elements, elements]
    return np.stack(columns, axis=1)


def _rows(chosen: pa.Table, op: str, family: Family, *, mode: str, dims: IntArray) -> pa.Table:
    n, width = dims.shape
    dtypes = _COMPUTE.cast(chosen["dtype"], pa.string())
    element_bytes = np.array([DTYPE_BYTES[str(each)] for each in dtypes.to_pylist()])
    flops, bytes_moved = flops_and_bytes(family, dims, element_bytes=element_bytes)
    offsets: Any = pa.array(np.arange(0, n * width + 1, width, dtype=np.int32))
    sources = _COMPUTE.cast(chosen["source"], pa.string())
    columns = {
        "op": pa.repeat(pa.scalar(op), n),
        "family": pa.repeat(pa.scalar(family.value), n),
        "dims": pa.ListArray.from_arrays(offsets, pa.array(dims.ravel())),
        "dtype": dtypes,
        "device": pa.array(
            [
                CATALOGUE_NAMES[each]
                for each in _COMPUTE.cast(chosen["device"], pa.string()).to_pylist()
            ]
        ),
        "threads": pa.array(np.zeros(n, dtype=np.int64)),
        "share": _COMPUTE.cast(chosen["share"], pa.float64()),
        "mode": pa.repeat(pa.scalar(mode), n),
        "environment": sources,
        "latency_us": _COMPUTE.cast(chosen["latency_us"], pa.float64()),
        "relative_sd": pa.array(np.full(n, np.nan)),
        "n": _COMPUTE.cast(chosen["n"], pa.int64()),
        "flops": pa.array(flops),
        "bytes": pa.array(bytes_moved),
        "source": sources,
    }
    return pa.table([columns[name] for name in OPERATORS.names], schema=OPERATORS)
