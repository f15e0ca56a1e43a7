"""Tables of a profile as they may be stored: checked against their schema, known by a hash.

It knows one table at a time. It does not merge rows (`merge.py`) or store them
(`files.py`).
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute

from falcon_ray.errors import InputError
from falcon_ray.knowledge.constants import Constants
from falcon_ray.knowledge.device import Device, DeviceKind
from falcon_ray.knowledge.profile.schemas import TABLES
from falcon_ray.space.configuration import FloatArray

_Field: TypeAlias = "pa.Field[Any]"
_Array: TypeAlias = "pa.Array[Any]"
_ChunkedArray: TypeAlias = "pa.ChunkedArray[Any]"

_COMPUTE: Any = pyarrow.compute  # its stubs leave half of the types open

MEASUREMENTS = ("operators", "models")
"""Names of the tables whose rows are measured latencies."""


class _Digest(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...


def checked_table(name: str, table: pa.Table, where: str) -> pa.Table:
    """A table with exactly its schema's columns and types, and values that can be true.

    Unknown columns are left out; nullable ones that are missing are filled with nulls.

    Args:
        name: One of `schemas.TABLES`.
        table: The rows.
        where: Where they come from, for messages.

    Raises:
        InputError: There is no table of that name, a column is missing or of another type, or a
            value cannot be true.
    """
    schema = TABLES.get(name)
    if schema is None:
        raise InputError(f"{where}: a profile has no table {name!r}; it has {', '.join(TABLES)}")
    columns: list[_ChunkedArray] = []
    for field in _fields(schema):
        if field.name in table.column_names:
            columns.append(_cast(table.column(field.name), field, f"{where}: {name}"))
        elif field.nullable:
            columns.append(pa.chunked_array([_nulls(table.num_rows, field)]))
        else:
            raise InputError(f"{where}: {name} lacks the column {field.name}; measure again")
    checked = pa.Table.from_arrays(columns, schema=schema)
    if name in MEASUREMENTS:
        _check_measurements(checked, f"{where}: {name}")
    elif name in ("devices", "constants"):
        _check_rows(name, checked, where)
    return checked


def content_hash(name: str, table: pa.Table) -> str:
    """SHA-256 of a checked table's values, whatever its chunks, buffers and file format."""
    digest = hashlib.sha256(name.encode())
    for field in _fields(TABLES[name]):
        digest.update(field.name.encode())
        chunks = table.column(field.name).chunks
        _feed(digest, pa.concat_arrays(chunks or [_nulls(0, field)]))
    return digest.hexdigest()


def floats(table: pa.Table, column: str) -> FloatArray:
    """A numeric column, shape (n_rows,); nulls become NaN."""
    return table.column(column).to_numpy().astype(np.float64)


def device_row(device: Device) -> dict[str, Any]:
    """A device as a row of `schemas.DEVICES`."""
    dtypes = sorted(device.peak_flops_per_s)
    return {
        "device": device.name,
        "kind": device.kind.value,
        "dtypes": dtypes,
        "peak_flops_per_s": [device.peak_flops_per_s[each] for each in dtypes],
        "bandwidth_bytes_per_s": device.bandwidth_bytes_per_s,
        "memory_bytes": device.memory_bytes,
        "units": device.units,
        "source": device.source,
    }


def device_of_row(row: Mapping[str, Any]) -> Device:
    """Read what `device_row` wrote.

    Raises:
        InputError: The facts cannot be true.
    """
    name, kinds = row["device"], [each.value for each in DeviceKind]
    if row["kind"] not in kinds or len(row["dtypes"]) != len(row["peak_flops_per_s"]):
        raise InputError(
            f"facts of {name} need a kind ({' or '.join(kinds)}) and one rate per dtype, got "
            f"{dict(row)}"
        )
    return Device(
        name=name,
        kind=DeviceKind(row["kind"]),
        peak_flops_per_s=dict(zip(row["dtypes"], row["peak_flops_per_s"], strict=True)),
        bandwidth_bytes_per_s=row["bandwidth_bytes_per_s"],
        memory_bytes=row["memory_bytes"],
        units=row["units"],
        source=row["source"],
    )


def _fields(schema: pa.Schema) -> list[_Field]:
    return cast("list[_Field]", list(schema))


def _nulls(n: int, field: _Field) -> _Array:
    return cast("pa.Array[Any]", pa.array([None] * n, type=field.type))


def _cast(
    column: _ChunkedArray,
    field: _Field,
    where: str,
) -> _ChunkedArray:
    if column.null_count and not field.nullable:
        raise InputError(f"{where} has rows without {field.name}; measure again")
    try:
        return cast("pa.ChunkedArray[Any]", cast("Any", column).cast(field.type))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"{where} has a column {field.name} that is no {field.type}: {error}"
        ) from None


def _check_measurements(table: pa.Table, where: str) -> None:
    latency_us, share = floats(table, "latency_us"), floats(table, "share")
    sd, n = floats(table, "relative_sd"), floats(table, "n")
    rules = {
        "latency_us must be positive and finite": ~(np.isfinite(latency_us) & (latency_us > 0)),
        "share must be within (0, 1]": ~((share > 0) & (share <= 1)),
        # NaN says that nobody knows it.
        "relative_sd must not be negative or infinite": (sd < 0) | np.isinf(sd),
        "n must be at least 1": ~(n >= 1),
    }
    for rule, is_broken in rules.items():
        if is_broken.any():
            row = table.slice(int(np.argmax(is_broken)), 1).to_pylist()[0]
            raise InputError(f"{where}: {rule}, got the row {row}; measure it again")


def _check_rows(name: str, table: pa.Table, where: str) -> None:
    try:
        for row in table.to_pylist():
            if name == "devices":
                device_of_row(row)
            else:
                Constants.from_row(row)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _feed(digest: _Digest, array: _Array) -> None:
    """Feed a column's values to a digest in a form that has no padding, offset or dead bytes."""
    digest.update(len(array).to_bytes(8, "little"))
    if array.null_count:
        digest.update(np.asarray(array.is_valid()).tobytes())
    if pa.types.is_list(array.type):
        digest.update(np.asarray(_COMPUTE.list_value_length(array)).tobytes())
        _feed(digest, _COMPUTE.list_flatten(array))
    elif pa.types.is_string(array.type):
        offsets = np.frombuffer(cast("bytes", array.buffers()[1] or b""), dtype=np.int32)
        offsets = offsets[array.offset : array.offset + len(array) + 1]
        digest.update(np.diff(offsets).tobytes())
        text = array.buffers()[2]
        if text is not None and len(offsets):
            digest.update(memoryview(text.to_pybytes())[int(offsets[0]) : int(offsets[-1])])
    else:
        values: _Array = _COMPUTE.fill_null(array, 0) if array.null_count else array
        digest.update(np.ascontiguousarray(values.to_numpy(zero_copy_only=False)).tobytes())
