"""Rows of one key as one row: measurements by inverse variance, facts by the later source.

It knows rows. It does not know parts or files.
"""

import json
from collections.abc import Mapping
from typing import Any, TypeAlias, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from falcon_ray.knowledge.profile.manifest import Source
from falcon_ray.knowledge.profile.schemas import TABLES
from falcon_ray.knowledge.profile.tables import MEASUREMENTS, floats
from falcon_ray.space.configuration import FloatArray

IntArray: TypeAlias = NDArray[np.int64]

_Field: TypeAlias = "pa.Field[Any]"

_COMPUTE: Any = pyarrow.compute  # its stubs leave half of the types open

KEYS: Mapping[str, tuple[str, ...]] = {
    "operators": (
        *("op", "family", "dims", "dtype", "device"),
        *("threads", "share", "mode", "environment", "source"),
    ),
    "models": (
        *("model", "batch_size", "dtype", "device"),
        *("threads", "share", "mode", "environment", "source"),
    ),
    "decompositions": ("model", "position"),
    "devices": ("device",),
    "constants": ("predictor", "device", "dtype", "mode", "threads", "share"),
    "environments": ("environment",),
}
"""Columns that say what a row is about."""

UNKNOWN_RELATIVE_SD = 0.03
"""Of a single repeat whose noise nobody measured: what quiet machines show."""

LEAST_RELATIVE_SD = 0.001
"""Clocks and their drift allow no less."""

_LARGEST = {"operators": ("flops", "bytes"), "models": ("peak_memory_bytes",)}


def merged_rows(name: str, table: pa.Table, sources: Mapping[str, Source]) -> pa.Table:
    """One row per key; order follows the first row of each key.

    Args:
        name: Of the table.
        table: Checked rows.
        sources: Of two facts or fits of one key, the one whose source is later counts.
    """
    if name in MEASUREMENTS:
        return _merged_measurements(name, table)
    return _latest_facts(name, table, sources)


def relative_sd(table: pa.Table) -> FloatArray:
    """Relative sd of every measurement's median, shape (n_rows,), positive and finite.

    Zero is taken for unknown: the clock was too coarse, or there was one repeat.
    """
    sd, n = floats(table, "relative_sd"), floats(table, "n")
    assumed = UNKNOWN_RELATIVE_SD / np.sqrt(n)
    return np.maximum(np.where(sd > 0, sd, assumed), LEAST_RELATIVE_SD)


def _merged_measurements(name: str, table: pa.Table) -> pa.Table:
    """The inverse-variance weighted mean of log latency of every key.

    Where the measurements of a key differ by more than their errors allow, the error of the mean
    grows by the ratio of Birge (1932): the square root of chi-square over its degrees of freedom.
    """
    sd, n, latency_us = relative_sd(table), floats(table, "n"), floats(table, "latency_us")
    group, first = _groups(table, KEYS[name])
    if len(first) == table.num_rows:
        return _with_columns(table, {"relative_sd": sd})
    k = len(first)
    precision, log_us = sd**-2, np.log(latency_us)
    total = np.bincount(group, precision, k)
    mean = np.bincount(group, precision * log_us, k) / total
    chi_square = np.bincount(group, precision * (log_us - mean[group]) ** 2, k)
    count = np.bincount(group, minlength=k)
    birge = np.sqrt(np.maximum(chi_square / np.maximum(count - 1, 1), 1.0))
    is_single = count == 1
    columns = {
        "latency_us": np.where(is_single, latency_us[first], np.exp(mean)),
        "relative_sd": np.where(is_single, sd[first], birge / np.sqrt(total)),
        "n": np.bincount(group, n, k).astype(np.int64),
    }
    for column in _LARGEST[name]:
        columns[column] = _largest(floats(table, column), group, k)
    return _with_columns(table.take(first), columns)


def _groups(table: pa.Table, keys: tuple[str, ...]) -> tuple[IntArray, IntArray]:
    """The number of every row's key, shape (n_rows,), and the first row of each key, (n_keys,).

    Keys are numbered in the order of their first rows.
    """
    codes = np.zeros(table.num_rows, dtype=np.int64)
    for key in keys:
        column: object = table.column(key)
        if key == "dims":
            column = _COMPUTE.binary_join(table.column(key).cast(pa.list_(pa.string())), ",")
        column_codes, n_values = _encoded(column)
        # Numbered anew after every column, so that the product never overflows.
        codes, _ = _encoded(pa.chunked_array([pa.array(codes * max(n_values, 1) + column_codes)]))
    first = np.full(int(codes.max(initial=-1)) + 1, table.num_rows, dtype=np.int64)
    np.minimum.at(first, codes, np.arange(table.num_rows))
    return codes, first


def _encoded(column: object) -> tuple[IntArray, int]:
    """The number of every value in the order of first appearance, and how many there are."""
    chunks: Any = column
    encoded = chunks.combine_chunks().dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), len(encoded.dictionary)


def _largest(values: FloatArray, group: IntArray, k: int) -> FloatArray:
    """Largest value of each group, shape (k,); NaN where it has none."""
    largest = np.full(k, -np.inf)
    np.maximum.at(largest, group, np.where(np.isnan(values), -np.inf, values))
    return np.where(np.isneginf(largest), np.nan, largest)


def _with_columns(table: pa.Table, columns: Mapping[str, np.ndarray[Any, Any]]) -> pa.Table:
    for name, values in columns.items():
        index = table.schema.get_field_index(name)
        field: _Field = cast("Any", table.schema).field(index)
        array = cast("pa.Array[Any]", pa.array(values, type=field.type, mask=np.isnan(values)))
        table = table.set_column(index, field, array)
    return table


def _latest_facts(name: str, table: pa.Table, sources: Mapping[str, Source]) -> pa.Table:
    latest: dict[tuple[Any, ...], tuple[tuple[str, int, str], dict[str, Any]]] = {}
    for row in table.to_pylist():
        source = sources.get(row.get("source", ""))
        # The text decides between equals, so that the order of parts never does.
        text = json.dumps(row, sort_keys=True)
        rank = ("" if source is None else source.date, int(row.get("n", 0)), text)
        key = tuple(row[column] for column in KEYS[name])
        if key not in latest or latest[key][0] < rank:
            latest[key] = (rank, row)
    rows = [latest[key][1] for key in sorted(latest)]
    return pa.Table.from_pylist(rows, schema=TABLES[name])
