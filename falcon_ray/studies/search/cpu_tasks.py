"""Searches for a way to serve a model on our own CPU machine, recorded by `cpu_measurement`.

One task per model: every candidate is a configuration that real Serve trials measured. The prior
comes from a profile of the same machine that was taken with other models. The module measures
nothing and runs no search.
"""

import importlib.resources
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from falcon_ray.errors import InputError
from falcon_ray.knowledge.latency.latencies import Latencies
from falcon_ray.knowledge.mixture import ExpertMixture
from falcon_ray.knowledge.operators.operator import Decomposition
from falcon_ray.knowledge.prior import Host, expert_mixture
from falcon_ray.knowledge.profile.decompositions import decompositions_of
from falcon_ray.knowledge.profile.files import packaged_profile, read_profile
from falcon_ray.optimizers.replay import ReplayTask
from falcon_ray.space.catalogue import Catalogue
from falcon_ray.space.configuration import Configuration, ConfigurationSpace
from falcon_ray.space.listed import ListedSpace
from falcon_ray.space.objective import Objective
from falcon_ray.space.observation import Measurement, Observation, TrialStatus, TrialTimes
from falcon_ray.studies.search.cpu_table import (
    DECOMPOSITIONS_NAME,
    DIMENSIONS,
    MEDIANS,
    SCHEMA,
    TABLE_PREFIX,
    TIMES,
)

PROFILE = "cpu_profile"
"""The directory beside the tables with the machine's profile."""

_OF_MEASUREMENT = (
    "saturation_rps",
    "saturation_rps_ci_low",
    "saturation_rps_ci_high",
    *(name for name in MEDIANS if name != "error_rate"),
)


def cpu_tasks(directory: Path | None = None, *, with_prior: bool = True) -> list[ReplayTask]:
    """One task per model, in the order of their names; each model is its own family.

    Args:
        directory: Of the tables; by default those that come with falcon_ray.
        with_prior: Whether to predict every candidate from the profile.

    Raises:
        InputError: There are no tables, or they lack a column or a model's operators.
    """
    place = tables_directory() if directory is None else directory
    tables = [
        each
        for each in sorted(place.glob(f"{TABLE_PREFIX}*.parquet"))
        if each.name != DECOMPOSITIONS_NAME
    ]
    if not tables:
        raise InputError(
            f"{place} holds no {TABLE_PREFIX}*.parquet; run scripts/measure_cpu_tables"
        )
    return [_task(each, place, with_prior=with_prior) for each in tables]


def tables_directory() -> Path:
    """Where the tables lie that come with falcon_ray."""
    return Path(str(importlib.resources.files("falcon_ray") / "data" / "tables"))


def cpu_prior(
    space: ConfigurationSpace, decomposition: Decomposition, directory: Path
) -> ExpertMixture:
    """What who knows the machine's profile, and not the model, expects of every candidate."""
    latencies, host = _knowledge(directory)
    return expert_mixture(space, decomposition, latencies, host=host)


@cache
def _knowledge(directory: Path) -> tuple[Latencies, Host]:
    """What predicts times on the one machine of a profile, and that machine."""
    profile = read_profile(str(directory / PROFILE))
    device = profile.devices()[0]
    latencies = Latencies(packaged_profile().merged(profile), Catalogue.packaged())
    return latencies, Host(device=device.name, ram_bytes=device.memory_bytes)


def _task(path: Path, directory: Path, *, with_prior: bool) -> ReplayTask:
    rows = _rows(path)
    name = str(rows[0]["model"])
    space = ListedSpace.of_rows([{key: row[key] for key in DIMENSIONS} for row in rows])
    return ReplayTask(
        name=f"cpu|{name}",
        model=name,
        family=name,
        space=space,
        objective=Objective(),
        usd_per_hour=np.array([row["usd_per_hour"] for row in rows], dtype=float),
        observations=tuple(
            _observation(each, row) for each, row in zip(space.candidates, rows, strict=True)
        ),
        prior=cpu_prior(space, _decomposition(name, directory), directory) if with_prior else None,
    )


def _rows(path: Path) -> Sequence[dict[str, Any]]:
    table = pq.read_table(path)
    missing = [name for name in SCHEMA.names if name not in table.column_names]
    if missing or table.num_rows == 0:
        what = f"lacks {', '.join(missing)}" if missing else "has no rows"
        raise InputError(f"{path} {what}; build it anew with scripts/measure_cpu_tables")
    return table.to_pylist()


def _decomposition(model: str, directory: Path) -> Decomposition:
    found = decompositions_of(pq.read_table(directory / DECOMPOSITIONS_NAME))
    for each in found.values():
        if each.model == model:
            return each
    raise InputError(f"{directory / DECOMPOSITIONS_NAME} does not hold the operators of {model}")


def _observation(configuration: Configuration, row: dict[str, Any]) -> Observation:
    status = TrialStatus(row["status"])
    measurement = None
    if status is TrialStatus.MEASURED:
        measurement = Measurement(
            error_rate=row["error_rate"] or 0.0, **{name: row[name] for name in _OF_MEASUREMENT}
        )
    return Observation(
        configuration=configuration,
        status=status,
        measurement=measurement,
        reason=row["reason"] or "",
        times=TrialTimes(**{name: row[name] for name in TIMES}),
        attempts=row["n_repeats"],
    )
