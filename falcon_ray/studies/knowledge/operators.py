"""Single operators predicted from other shapes on the same device, and from other devices.

Shapes whose dimensions hash into one fifth are held out everywhere. The study knows the public
table of operators only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from falcon_ray.knowledge.device import Device
from falcon_ray.knowledge.latency.borrowed_shapes import BorrowedShapes
from falcon_ray.knowledge.latency.nearest_shapes import NearestShapes, OperatorPrediction
from falcon_ray.knowledge.operators.operator import Family
from falcon_ray.space.catalogue import Catalogue
from falcon_ray.space.configuration import FloatArray
from falcon_ray.studies.figure import Figure
from falcon_ray.studies.operator_tables import operator_rows

GROUPS: Mapping[str, tuple[Family, ...]] = {
    "matmul": (Family.LINEAR, Family.BMM),
    "elementwise": (Family.ELEMENTWISE, Family.ACTIVATION),
    "reductions": (Family.SOFTMAX, Family.NORM),
    "convolutions": (Family.CONV_3X3,),
}
GOALS_PERCENT: Mapping[str, float] = {"matmul": 7.0, "elementwise": 2.0, "reductions": 2.0}
PROFILE_SHAPES: Mapping[Family, int] = {Family.LINEAR: 100, Family.BMM: 100}
OTHER_PROFILE_SHAPES = 50
LENT_SHAPES = 400
"""Rows of each family that a device lends to one that nobody measured."""
_MAX_QUERIES = 500
_Z80, _Z95 = 1.2816, 1.9600
Measured = Mapping[Family, pa.Table]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Errors:
    """Predicted against measured.

    Attributes:
        where: Device and dtype.
        family: Of the operators.
        logs: Predicted less measured log latency of the n held-out operators, shape (n,).
        sd: As predicted, shape (n,).
    """

    where: str
    family: Family
    logs: FloatArray
    sd: FloatArray


def figures(*, seed: int = 0) -> list[Figure]:
    """Errors with whole tables, with tables of the size of a profile, and without any table."""
    tables = tables_by_device()
    whole: list[Errors] = []
    small: list[Errors] = []
    rng = np.random.default_rng(seed)
    for (name, dtype), families in tables.items():
        device = facts_of(name)
        known = {family: _split(rows)[0] for family, rows in families.items()}
        held_out = {family: _split(rows)[1] for family, rows in families.items()}
        where = f"{device.name} {dtype}"
        whole += _errors(where, shapes_of(known, device, dtype), held_out)
        sampled = {
            family: _sample(rows, PROFILE_SHAPES.get(family, OTHER_PROFILE_SHAPES), rng)
            for family, rows in known.items()
        }
        few = {family: _sample(rows, _MAX_QUERIES, rng) for family, rows in held_out.items()}
        small += _errors(where, shapes_of(sampled, device, dtype), few)
    return [
        *_summaries("whole tables", whole, goals=GOALS_PERCENT),
        *_summaries("100 or 50 shapes", small, goals={}),
        *_summaries("device left out", device_left_out(tables, rng), goals={}),
    ]


def facts_of(device: str) -> Device:
    """The catalogue's facts of a device."""
    return Device.of_gpu(Catalogue.packaged().gpu(device))


def tables_by_device() -> dict[tuple[str, str], Measured]:
    """The public measurements of each device and dtype, by family."""
    rows = operator_rows()
    keys = ["device", "dtype", "family"]
    positions = rows.select(keys).to_pandas().groupby(keys).indices
    tables: dict[tuple[str, str], dict[Family, pa.Table]] = {}
    for key, chosen in positions.items():
        device, dtype, family = cast(tuple[str, str, str], key)
        tables.setdefault((device, dtype), {})[Family(family)] = rows.take(np.sort(chosen))
    return dict(tables)


def shapes_of(families: Measured, device: Device, dtype: str) -> NearestShapes:
    """The predictor of one device from its measurements."""
    return NearestShapes.from_rows(pa.concat_tables(families.values()), device, dtype=dtype)


def predictions(
    predictor: NearestShapes | BorrowedShapes, family: Family, rows: pa.Table
) -> OperatorPrediction:
    """What a predictor says of measured operators."""
    return predictor.predict(
        family,
        [str(each) for each in rows["op"].to_pylist()],
        dims_of(rows).astype(np.float64),
        rows["flops"].to_numpy(),
        rows["bytes"].to_numpy(),
    )


def device_left_out(
    tables: Mapping[tuple[str, str], Measured], rng: np.random.Generator
) -> list[Errors]:
    """Errors on held-out shapes in float32 of devices that nobody measured."""
    lenders: dict[str, NearestShapes] = {}
    held_out: dict[str, Measured] = {}
    for (name, dtype), families in tables.items():
        if dtype != "float32":
            continue
        lent = {f: _sample(_split(rows)[0], LENT_SHAPES, rng) for f, rows in families.items()}
        lenders[name] = shapes_of(lent, facts_of(name), dtype)
        held_out[name] = {
            f: _sample(_split(rows)[1], _MAX_QUERIES, rng) for f, rows in families.items()
        }
    found: list[Errors] = []
    for name, rows in held_out.items():
        device = facts_of(name)
        others = [each.moved_to(device) for other, each in lenders.items() if other != name]
        found += _errors(name, BorrowedShapes(others), rows)
    return found


def dims_of(rows: pa.Table) -> NDArray[np.int64]:
    """Canonical dimensions of operators of one family, shape (n, d)."""
    return pc.list_flatten(rows["dims"]).to_numpy().reshape(rows.num_rows, -1)


def is_held_out(dims: NDArray[np.int64]) -> NDArray[np.bool_]:
    """One fifth of all shapes, the same on every device; dims of shape (n, d) -> (n,)."""
    mixed = np.zeros(len(dims), dtype=np.uint64)
    for column in dims.astype(np.uint64).T:
        # A round of splitmix64; Steele et al. (2014).
        mixed = (mixed ^ column) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(31)
    return mixed % np.uint64(5) == 0


def _split(rows: pa.Table) -> tuple[pa.Table, pa.Table]:
    held_out = is_held_out(dims_of(rows))
    return rows.filter(pa.array(~held_out)), rows.filter(pa.array(held_out))


def _sample(rows: pa.Table, n: int, rng: np.random.Generator) -> pa.Table:
    chosen = rng.choice(rows.num_rows, min(n, rows.num_rows), replace=False)
    return rows.take(np.sort(chosen))


def _errors(
    where: str, predictor: NearestShapes | BorrowedShapes, held_out: Measured
) -> list[Errors]:
    found: list[Errors] = []
    for family, rows in held_out.items():
        predicted = predictions(predictor, family, rows)
        if rows.num_rows and predicted.covered.all():
            logs = predicted.log_seconds - np.log(rows["latency_us"].to_numpy() * 1e-6)
            found.append(Errors(where=where, family=family, logs=logs, sd=predicted.sd))
    return found


def median_percent(logs: FloatArray) -> float:
    """Median absolute relative error of errors of the log."""
    return float(100 * np.median(np.abs(np.expm1(logs))))


def _summaries(case: str, errors: Sequence[Errors], *, goals: Mapping[str, float]) -> list[Figure]:
    found: list[Figure] = []
    for group, families in GROUPS.items():
        chosen = [each for each in errors if each.family in families]
        logs = np.concatenate([each.logs for each in chosen])
        deviations = np.abs(logs) / np.concatenate([each.sd for each in chosen])
        by_place = {
            place: np.concatenate([each.logs for each in chosen if each.where == place])
            for place in dict.fromkeys(each.where for each in chosen)
        }
        places = [(median_percent(each), place) for place, each in by_place.items()]
        found += [
            Figure(
                name=f"operators, {case}: {group}, median error",
                value=median_percent(logs),
                unit="%",
                at_most=goals.get(group),
                note=f"{logs.size:,} held-out shapes; "
                + ", ".join(f"{place} {error:.1f}" for error, place in sorted(places)),
            ),
            Figure(
                name=f"operators, {case}: {group}, 80 % interval covers",
                value=100 * float(np.mean(deviations < _Z80)),
                unit="%",
                note=f"the 95 % interval {100 * np.mean(deviations < _Z95):.0f} %",
            ),
        ]
    return found
