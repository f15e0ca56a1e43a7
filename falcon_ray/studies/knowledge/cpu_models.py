"""How well whole models are predicted on a CPU that was profiled, each model left out in turn.

It reads the profile that `falcon-ray profile` wrote, by default the user's own. Operators of the
profile are near those of the reference models but never equal to one, and the end-to-end times of
the model that is predicted are taken out; those of the other models stay.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from falcon_ray.errors import InputError
from falcon_ray.knowledge.device import Device, DeviceKind
from falcon_ray.knowledge.latency.family_model import half_width
from falcon_ray.knowledge.latency.latencies import Latencies
from falcon_ray.knowledge.latency.profile_view import EAGER
from falcon_ray.knowledge.profile.decompositions import decompositions_of, fingerprint
from falcon_ray.knowledge.profile.files import default_location, packaged_profile, read_profile
from falcon_ray.knowledge.profile.profile import Profile
from falcon_ray.knowledge.profile.schemas import MODELS, TABLES
from falcon_ray.space.catalogue import Catalogue
from falcon_ray.space.configuration import FloatArray
from falcon_ray.studies.figure import Figure

_MIN_MODELS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutRun:
    """One measured forward pass of a model that the prediction knew nothing of.

    Attributes:
        model: Its name.
        device: What ran it.
        dtype: Of the arithmetic.
        threads: Of the CPU.
        batch_size: Samples in it.
        log_error: Of measured over predicted.
        sd: As predicted.
    """

    model: str
    device: str
    dtype: str
    threads: int
    batch_size: int
    log_error: float
    sd: float


def figures(location: str | None = None) -> list[Figure]:
    """Errors and coverage of left-out models on every CPU of a profile.

    Args:
        location: Of the profile; by default the user's own.

    Raises:
        InputError: The profile holds no CPU with enough measured models.
    """
    profile = packaged_profile().merged(read_profile(location or default_location()))
    runs = list(held_out_runs(profile))
    if not runs:
        raise InputError(
            "the profile holds no CPU with measured models; run falcon-ray profile first"
        )
    errors = np.array([each.log_error for each in runs])
    sds = np.array([each.sd for each in runs])
    names = sorted({each.model for each in runs})
    found = [
        Figure(
            name="CPU, models left out: median error",
            value=_median_error(errors),
            unit="%",
            at_most=15.0,
            note=f"{len(runs)} runs of {len(names)} models on {runs[0].device}",
        )
    ]
    for coverage in (0.8, 0.95):
        inside = np.abs(errors) <= half_width(sds, coverage)
        found.append(
            Figure(
                name=f"CPU, models left out: {coverage:.0%} intervals cover",
                value=100 * float(inside.mean()),
                unit="%",
            )
        )
    for threads, dtype in sorted({(each.threads, each.dtype) for each in runs}):
        own = [
            e for e, r in zip(errors, runs, strict=True) if (r.threads, r.dtype) == (threads, dtype)
        ]
        found.append(
            Figure(
                name=f"CPU, {threads} threads, {dtype}: median error",
                value=_median_error(np.array(own)),
                unit="%",
            )
        )
    for name in names:
        own = [e for e, r in zip(errors, runs, strict=True) if r.model == name]
        found.append(
            Figure(name=f"CPU, {name}: median error", value=_median_error(np.array(own)), unit="%")
        )
    return found


def held_out_runs(profile: Profile) -> Iterator[HeldOutRun]:
    """Every eager run of a model on a CPU, predicted without that model."""
    decompositions = decompositions_of(profile.table("decompositions"))
    for device in profile.devices():
        if device.kind is not DeviceKind.CPU:
            continue
        rows = _runs_on(profile, device)
        keys = sorted({str(row["model"]) for row in rows} & set(decompositions))
        if len(keys) < _MIN_MODELS:
            continue
        for key in keys:
            latencies = Latencies(_without(profile, key), Catalogue.packaged())
            for row in rows:
                if row["model"] != key:
                    continue
                batch = np.array([1.0 * row["batch_size"]])
                predicted = latencies.on(device.name, row["dtype"]).predict(
                    decompositions[key].calls(batch, dtype=row["dtype"]), threads=row["threads"]
                )
                log_measured = float(np.log(row["latency_us"] / 1e6))
                yield HeldOutRun(
                    model=decompositions[key].model,
                    device=device.name,
                    dtype=row["dtype"],
                    threads=row["threads"],
                    batch_size=row["batch_size"],
                    log_error=log_measured - float(predicted.log_seconds[0]),
                    sd=float(predicted.sd[0]),
                )


def _runs_on(profile: Profile, device: Device) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = profile.models.to_pylist()
    return [row for row in rows if row["device"] == device.name and row["mode"] == EAGER]


def _without(profile: Profile, key: str) -> Profile:
    """The profile without any end-to-end time of one model."""
    tables: dict[str, pa.Table] = {name: profile.table(name) for name in TABLES}
    own = fingerprint(key)
    rows = [row for row in profile.models.to_pylist() if fingerprint(row["model"]) != own]
    tables["models"] = pa.Table.from_pylist(rows, schema=MODELS)
    return Profile.of_tables(tables, profile.sources)


def _median_error(log_errors: FloatArray) -> float:
    """Of predicted over measured, in percent."""
    return 100 * float(np.median(np.abs(np.expm1(-log_errors))))
