"""The tables of a profile: which columns each has, of which type and in which unit.

A profile holds measurements, facts and fitted constants. It holds no price and no label of a
curve's shape: prices change, and labels are derived. The module reads and writes nothing.
"""

from collections.abc import Mapping
from types import MappingProxyType

import pyarrow as pa

OPERATORS = pa.schema(
    [
        pa.field("op", pa.string(), nullable=False),  # ATen's name, e.g. conv2d
        pa.field("family", pa.string(), nullable=False),  # value of knowledge.operators.Family
        pa.field("dims", pa.list_(pa.int64()), nullable=False),  # canonical, see Family
        pa.field("dtype", pa.string(), nullable=False),
        pa.field("device", pa.string(), nullable=False),
        pa.field("threads", pa.int64(), nullable=False),  # of a CPU; 0 on a GPU
        pa.field("share", pa.float64(), nullable=False),  # of a GPU's compute units; 1 on a CPU
        pa.field("mode", pa.string(), nullable=False),  # eager, graph or compiled
        pa.field("environment", pa.string(), nullable=False),  # key of environments
        pa.field("latency_us", pa.float64(), nullable=False),  # median of one call
        pa.field("relative_sd", pa.float64(), nullable=False),  # of that median
        pa.field("n", pa.int64(), nullable=False),  # repeats behind the median
        pa.field("flops", pa.float64(), nullable=False),  # of one call
        pa.field("bytes", pa.float64(), nullable=False),  # read and written by one call
        pa.field("source", pa.string(), nullable=False),  # key of the manifest's sources
    ]
)
"""Measured times of single operators."""

MODELS = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("batch_size", pa.int64(), nullable=False),
        pa.field("dtype", pa.string(), nullable=False),
        pa.field("device", pa.string(), nullable=False),
        pa.field("threads", pa.int64(), nullable=False),
        pa.field("share", pa.float64(), nullable=False),
        pa.field("mode", pa.string(), nullable=False),
        pa.field("environment", pa.string(), nullable=False),
        pa.field("latency_us", pa.float64(), nullable=False),  # median of one forward pass
        pa.field("relative_sd", pa.float64(), nullable=False),
        pa.field("n", pa.int64(), nullable=False),
        pa.field("peak_memory_bytes", pa.float64()),  # null where it was not measured
        pa.field("source", pa.string(), nullable=False),
    ]
)
"""Measured times of whole models, end to end."""

DECOMPOSITIONS = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),  # as in models
        pa.field("position", pa.int64(), nullable=False),  # of the operator, in order of first call
        pa.field("op", pa.string(), nullable=False),
        pa.field("family", pa.string(), nullable=False),
        pa.field("dtype", pa.string(), nullable=False),  # of a float32 trace
        pa.field("count", pa.int64(), nullable=False),  # calls in one forward pass
        pa.field("batch_sizes", pa.list_(pa.int64()), nullable=False),  # the two that were traced
        pa.field("dims_low", pa.list_(pa.int64()), nullable=False),  # at the smaller batch
        pa.field("dims_high", pa.list_(pa.int64()), nullable=False),  # at the larger batch
        pa.field("flops", pa.list_(pa.float64()), nullable=False),  # of one call, at both
        pa.field("bytes_read", pa.list_(pa.float64()), nullable=False),
        pa.field("bytes_written", pa.list_(pa.float64()), nullable=False),
        pa.field("parameter_bytes", pa.float64(), nullable=False),  # of the whole model
        pa.field("activation_bytes", pa.list_(pa.float64()), nullable=False),  # likewise, peak
    ]
)
"""Operators of the measured models, so that constants can be fitted without the models."""

DEVICES = pa.schema(
    [
        pa.field("device", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),  # cpu or gpu
        pa.field("dtypes", pa.list_(pa.string()), nullable=False),
        pa.field("peak_flops_per_s", pa.list_(pa.float64()), nullable=False),  # one per dtype
        pa.field("bandwidth_bytes_per_s", pa.float64(), nullable=False),
        pa.field("memory_bytes", pa.float64(), nullable=False),
        pa.field("units", pa.int64(), nullable=False),  # SMs of a GPU, cores of a CPU
        pa.field("source", pa.string(), nullable=False),
    ]
)
"""Facts of devices that the catalogue of GPUs does not have."""

CONSTANTS = pa.schema(
    [
        pa.field("predictor", pa.string(), nullable=False),  # which predictor they belong to
        pa.field("device", pa.string(), nullable=False),  # "*": of devices nobody measured
        pa.field("dtype", pa.string(), nullable=False),
        pa.field("mode", pa.string(), nullable=False),  # eager, graph, compiled, or an engine
        pa.field("threads", pa.int64(), nullable=False),  # of a CPU; 0 on a GPU
        pa.field("share", pa.float64(), nullable=False),  # of a GPU's compute units; 1 on a CPU
        pa.field("terms", pa.list_(pa.string()), nullable=False),  # e.g. conv_1x1.flops
        pa.field("values", pa.list_(pa.float64()), nullable=False),  # one per term
        pa.field("covariance", pa.list_(pa.float64()), nullable=False),  # row by row
        pa.field("residual_sd", pa.float64(), nullable=False),  # of natural logs, out of sample
        pa.field("n", pa.int64(), nullable=False),  # measurements behind the fit
        pa.field("source", pa.string(), nullable=False),
    ]
)
"""Fitted constants: `terms` name them, `values` are multiples of ideal time, or seconds."""

ENVIRONMENTS = pa.schema(
    [
        pa.field("environment", pa.string(), nullable=False),
        pa.field("facts", pa.string(), nullable=False),  # JSON: versions, driver, clocks
    ]
)
"""What software and machine a measurement was taken with."""

TABLES: Mapping[str, pa.Schema] = MappingProxyType(
    {
        "operators": OPERATORS,
        "models": MODELS,
        "decompositions": DECOMPOSITIONS,
        "devices": DEVICES,
        "constants": CONSTANTS,
        "environments": ENVIRONMENTS,
    }
)
"""Every table of a profile by its name."""
