"""From the journal of a measurement to one table per model: a row for every configuration.

It knows how repeats are pooled. It neither runs trials nor searches.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from falcon_ray.errors import InputError
from falcon_ray.knowledge.operators.operator import Decomposition
from falcon_ray.knowledge.profile.decompositions import decomposition_rows
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.observation import Measurement, TrialStatus
from falcon_ray.studies.search.cpu_trials import RecordedTrial

DIMENSIONS: Mapping[str, pa.DataType] = MappingProxyType(
    {
        "cpu_cores": pa.int32(),
        "batch_size": pa.int32(),
        "batch_wait_ms": pa.int32(),
        "dtype": pa.string(),
        "replicas": pa.int32(),
    }
)
MEDIANS = (
    "service_time_ms",
    "model_rps",
    "latency_p50_ms",
    "latency_p90_ms",
    "latency_p95_ms",
    "latency_p99_ms",
    "error_rate",
    "memory_gib",
    "output_error",
)
"""Metrics of a `Measurement`, of which a row holds the median over its repeats."""
TIMES = ("deploy_s", "warm_up_s", "measure_s", "teardown_s")
"""Of a trial, likewise."""

SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        *DIMENSIONS.items(),
        ("usd_per_hour", pa.float64()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("n_repeats", pa.int32()),
        *((f"saturation_rps{end}", pa.float64()) for end in ("", "_min", "_max")),
        *((f"saturation_rps_ci_{end}", pa.float64()) for end in ("low", "high")),
        *((name, pa.float64()) for name in (*MEDIANS, *TIMES)),
    ]
)

TABLE_PREFIX = "cpu_"
DECOMPOSITIONS_NAME = "cpu_decompositions.parquet"

_Z95 = 1.96


def model_tables(recorded: Iterable[RecordedTrial]) -> dict[str, pa.Table]:
    """The rows of every model, in the order of their dimensions' values.

    A configuration counts as measured where at least half of its settled trials measured it.
    Its interval takes the larger of two variances of the log of one trial's throughput: that
    between repeats, pooled over all configurations of the model, and that of the trials' own
    95 % intervals; either over the number of repeats.

    Returns:
        By the model's name, columns as in `SCHEMA`.

    Raises:
        InputError: No trial is settled.
    """
    by_model: dict[str, dict[Configuration, list[RecordedTrial]]] = {}
    for each in recorded:
        if each.is_settled:
            of_model = by_model.setdefault(each.trial.model, {})
            of_model.setdefault(each.trial.configuration, []).append(each)
    if not by_model:
        raise InputError("no trial has ended yet; measure first")
    return {name: _table(name, rows) for name, rows in sorted(by_model.items())}


def write_tables(
    recorded: Iterable[RecordedTrial],
    directory: Path,
    *,
    operators: Sequence[Decomposition],
) -> list[Path]:
    """Write `cpu_MODEL.parquet` for every model and the operators of all, and say where.

    Args:
        recorded: Trials of any number of repeats.
        directory: Made where there is none.
        operators: Of every model.

    Raises:
        InputError: There is nothing to write, or no place for it.
    """
    tables = model_tables(recorded)
    files = {f"{TABLE_PREFIX}{name}.parquet": table for name, table in tables.items()}
    files[DECOMPOSITIONS_NAME] = pa.concat_tables([decomposition_rows(each) for each in operators])
    for name, table in files.items():
        try:
            directory.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, directory / name, compression="zstd")
        except OSError as error:
            raise InputError(
                f"{directory / name} cannot be written: {error.strerror}; choose another directory"
            ) from None
    return [directory / name for name in files]


def variance_between_repeats(groups: Iterable[Sequence[float]]) -> float:
    """Variance of one log around the mean of its group, pooled over the groups; 0 without any.

    Args:
        groups: Logs of the repeats of each configuration; those of a single repeat say nothing.
    """
    squares, freedom = 0.0, 0
    for each in groups:
        squares += float(np.sum((np.array(each) - np.mean(each)) ** 2))
        freedom += len(each) - 1
    return squares / freedom if freedom else 0.0


def _table(model: str, trials: Mapping[Configuration, list[RecordedTrial]]) -> pa.Table:
    logs = {c: [math.log(m.saturation_rps) for m in _measured(own)] for c, own in trials.items()}
    variance = variance_between_repeats(own for own in logs.values() if own)
    order = sorted(trials, key=lambda c: tuple(c[name] for name in DIMENSIONS))
    rows = [
        {
            "model": model,
            **{name: each[name] for name in DIMENSIONS},
            **_row(trials[each], variance),
        }
        for each in order
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _row(trials: Sequence[RecordedTrial], between: float) -> dict[str, object]:
    measured = _measured(trials)
    row: dict[str, object] = {
        "usd_per_hour": trials[0].usd_per_hour,
        **{
            name: float(np.median([getattr(each.observation.times, name) for each in trials]))
            for name in TIMES
        },
    }
    if 2 * len(measured) < len(trials):
        refused = [each for each in trials if each.observation.measurement is None]
        return row | {
            "status": TrialStatus.INFEASIBLE.value,
            "reason": refused[0].observation.reason,
            "n_repeats": len(refused),
        }
    rates = np.array([each.saturation_rps for each in measured])
    own = float(np.mean([_own_variance(each) for each in measured]))
    factor = math.exp(_Z95 * math.sqrt(max(between, own) / len(measured)))
    rate = float(np.median(rates))
    return row | {
        "status": TrialStatus.MEASURED.value,
        "reason": "",
        "n_repeats": len(measured),
        "saturation_rps": rate,
        "saturation_rps_min": float(rates.min()),
        "saturation_rps_max": float(rates.max()),
        "saturation_rps_ci_low": rate / factor,
        "saturation_rps_ci_high": rate * factor,
        **{name: _median(each.metric(name) for each in measured) for name in MEDIANS},
    }


def _measured(trials: Sequence[RecordedTrial]) -> list[Measurement]:
    found = [each.observation.measurement for each in trials]
    return [each for each in found if each is not None]


def _own_variance(measurement: Measurement) -> float:
    """Of the log of its throughput, from its own 95 % interval; 0 where it has none."""
    low, high = measurement.saturation_rps_ci_low, measurement.saturation_rps_ci_high
    if low is None or high is None or low <= 0:
        return 0.0
    return (math.log(high / low) / (2 * _Z95)) ** 2


def _median(values: Iterable[float | None]) -> float | None:
    known = [each for each in values if each is not None]
    return float(np.median(known)) if known else None
