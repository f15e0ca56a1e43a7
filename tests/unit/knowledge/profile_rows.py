"""Rows of profiles for tests."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from falcon_ray.knowledge.constants import Constants
from falcon_ray.knowledge.profile.manifest import Source
from falcon_ray.knowledge.profile.schemas import TABLES

SOURCES = {
    "lab": Source(licence="MIT", date="2026-01-31", description="a lab", url="https://lab.test")
}

OPERATOR = {
    "op": "linear",
    "family": "linear",
    "dims": [8, 16, 32],
    "dtype": "float32",
    "device": "T4",
    "threads": 0,
    "share": 1.0,
    "mode": "eager",
    "environment": "here",
    "latency_us": 100.0,
    "relative_sd": 0.02,
    "n": 10,
    "flops": 8192.0,
    "bytes": 3584.0,
    "source": "lab",
}
MODEL = {
    "model": "tiny",
    "batch_size": 4,
    "dtype": "float32",
    "device": "T4",
    "threads": 0,
    "share": 1.0,
    "mode": "eager",
    "environment": "here",
    "latency_us": 2000.0,
    "relative_sd": 0.02,
    "n": 10,
    "peak_memory_bytes": None,
    "source": "lab",
}
CONSTANT = Constants(
    predictor="roofline",
    device="T4",
    dtype="float32",
    mode="eager",
    terms=("launch_s", "flops"),
    values=np.array([1e-5, 1.5]),
    covariance=np.diag([1e-12, 0.01]),
    residual_sd=0.2,
    n=40,
    source="lab",
).to_row()
DEVICE = {
    "device": "cpu-model",
    "kind": "cpu",
    "dtypes": ["float32", "bfloat16"],
    "peak_flops_per_s": [1e11, 2e11],
    "bandwidth_bytes_per_s": 2e10,
    "memory_bytes": 8e9,
    "units": 2,
    "source": "measured",
}
_ROWS = {"operators": OPERATOR, "models": MODEL, "constants": CONSTANT, "devices": DEVICE}


def rows(name: str, *changes: Mapping[str, Any]) -> dict[str, pa.Table]:
    """A table by its name: one row for each set of columns that differ from the usual row."""
    each: Sequence[dict[str, Any]] = [{**_ROWS[name], **change} for change in changes]
    return {name: pa.Table.from_pylist(list(each), schema=TABLES[name])}


def operators(*changes: Mapping[str, Any]) -> dict[str, pa.Table]:
    """Rows of operators."""
    return rows("operators", *changes)
