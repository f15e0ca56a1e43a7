"""Decompositions as rows of a profile, under names that no two different models share.

It knows rows and names. It does not know files.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from falcon_ray.errors import InputError
from falcon_ray.knowledge.operators.operator import Decomposition, Family, Operator
from falcon_ray.knowledge.profile.schemas import DECOMPOSITIONS

_FINGERPRINT_LENGTH = 8


def model_key(decomposition: Decomposition) -> str:
    """The model's name and a fingerprint of its operators, e.g. "resnet50#1f0c9a3e"."""
    digest = hashlib.sha256()
    for each in (*decomposition.low, *decomposition.high):
        text = f"{each.name} {each.family.value} {each.dims} {each.dtype} {each.count}\n"
        digest.update(text.encode())
    return f"{decomposition.model}#{digest.hexdigest()[:_FINGERPRINT_LENGTH]}"


def fingerprint(key: str) -> str:
    """What a key says of a model's operators, whatever its name."""
    return key.rpartition("#")[2]


def decomposition_rows(decomposition: Decomposition) -> pa.Table:
    """A decomposition as rows of `schemas.DECOMPOSITIONS`, shapes left out."""
    key = model_key(decomposition)
    rows: list[dict[str, Any]] = [
        {
            "model": key,
            "position": position,
            "op": low.name,
            "family": low.family.value,
            "dtype": low.dtype,
            "count": low.count,
            "batch_sizes": list(decomposition.batch_sizes),
            "dims_low": list(low.dims),
            "dims_high": list(high.dims),
            "flops": [low.flops, high.flops],
            "bytes_read": [low.bytes_read, high.bytes_read],
            "bytes_written": [low.bytes_written, high.bytes_written],
            "parameter_bytes": decomposition.parameter_bytes,
            "activation_bytes": list(decomposition.activation_bytes),
        }
        for position, (low, high) in enumerate(
            zip(decomposition.low, decomposition.high, strict=True)
        )
    ]
    return pa.Table.from_pylist(rows, schema=DECOMPOSITIONS)


def decompositions_of(table: pa.Table) -> dict[str, Decomposition]:
    """The decompositions in rows of `schemas.DECOMPOSITIONS`, by model key.

    Raises:
        InputError: A row names a family that this version does not know.
    """
    by_model: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        by_model.setdefault(row["model"], []).append(row)
    return {
        key: _decomposition(key, sorted(rows, key=lambda row: row["position"]))
        for key, rows in by_model.items()
    }


def _decomposition(key: str, rows: Iterable[Mapping[str, Any]]) -> Decomposition:
    ordered = list(rows)
    first = ordered[0]
    return Decomposition(
        model=key.rpartition("#")[0],
        batch_sizes=(first["batch_sizes"][0], first["batch_sizes"][1]),
        low=tuple(_operator(row, 0) for row in ordered),
        high=tuple(_operator(row, 1) for row in ordered),
        parameter_bytes=first["parameter_bytes"],
        activation_bytes=(first["activation_bytes"][0], first["activation_bytes"][1]),
        uncovered=tuple(
            dict.fromkeys(row["op"] for row in ordered if row["family"] == Family.OTHER.value)
        ),
    )


def _operator(row: Mapping[str, Any], which: int) -> Operator:
    try:
        family = Family(row["family"])
    except ValueError:
        raise InputError(
            f"the profile holds an operator of the unknown family {row['family']!r}; upgrade "
            "falcon_ray, or profile again with this version"
        ) from None
    return Operator(
        name=row["op"],
        family=family,
        dims=tuple(row["dims_high" if which else "dims_low"]),
        dtype=row["dtype"],
        count=row["count"],
        flops=row["flops"][which],
        bytes_read=row["bytes_read"][which],
        bytes_written=row["bytes_written"][which],
    )
