"""Everything that a profile holds about one device in one dtype, as predictors ready to ask.

Constants are fitted on the spot from the models that the profile measured there. The module does
not know how predictions are combined; `latencies.py` does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from falcon_ray.knowledge.constants import Constants
from falcon_ray.knowledge.device import Device, DeviceKind
from falcon_ray.knowledge.latency.borrowed_shapes import BorrowedShapes
from falcon_ray.knowledge.latency.composition import fit_composition
from falcon_ray.knowledge.latency.family_features import FamilyTotals
from falcon_ray.knowledge.latency.family_fit import fit_family_constants
from falcon_ray.knowledge.latency.family_model import PREDICTOR as FAMILY
from falcon_ray.knowledge.latency.family_model import FamilyModel
from falcon_ray.knowledge.latency.family_pool import transferred
from falcon_ray.knowledge.latency.nearest_shapes import NearestShapes
from falcon_ray.knowledge.latency.setting import Setting
from falcon_ray.knowledge.operators.operator import Decomposition, FamilyCalls
from falcon_ray.knowledge.profile.decompositions import decompositions_of
from falcon_ray.knowledge.profile.profile import Profile
from falcon_ray.knowledge.profile.tables import floats
from falcon_ray.space.catalogue import Catalogue
from falcon_ray.space.configuration import FloatArray

_COMPUTE: Any = pyarrow.compute  # its stubs leave half of the types open

EAGER = "eager"
"""The mode of calls one by one."""
SERVED = "served"
"""The mode of batches inside a replica under load, as trials measure them."""
_STAND_INS = ("float32", "bfloat16", "float16")
"""Dtypes that stand in for one that nobody measured, in this order."""
_MIN_MODELS = 4
"""Fewer measured models do not say how families differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceKnowledge:
    """What is known about one device in one dtype.

    Attributes:
        device: Its facts.
        dtype: Of the arithmetic.
        measured_dtype: The dtype that the knowledge is of: another one where nobody measured
            this one.
        settings: Every number of threads, or share, that something is known for.
    """

    device: Device
    dtype: str
    measured_dtype: str
    settings: tuple[Setting, ...]


def device_knowledge(profile: Profile, device: Device, dtype: str) -> DeviceKnowledge:
    """Sort what a profile holds about a device and dtype, and fit what can be fitted.

    Where nobody measured the dtype, another one stands in: multiples of ideal time carry over,
    and ideal time is that of the dtype that is asked for.

    Args:
        profile: Measurements and constants.
        device: Facts of the device.
        dtype: Of the arithmetic.
    """
    for measured in (dtype, *(each for each in _STAND_INS if each != dtype)):
        settings = tuple(_settings(profile, device, measured, dtype))
        if settings:
            return DeviceKnowledge(
                device=device, dtype=dtype, measured_dtype=measured, settings=settings
            )
    return DeviceKnowledge(device=device, dtype=dtype, measured_dtype=dtype, settings=())


def _settings(profile: Profile, device: Device, measured: str, dtype: str) -> list[Setting]:
    """What was measured in one dtype, as predictors of another, or of the same."""
    operators = _rows_of(profile.operators, device.name, measured, modes=(EAGER,))
    models = _rows_of(profile.models, device.name, measured, modes=(EAGER, SERVED))
    decompositions = decompositions_of(profile.table("decompositions")) if models.num_rows else {}
    constants = profile.constants(FAMILY)
    pooled = transferred(constants, device, measured)
    own: dict[tuple[int, float], Constants] = {}
    for each in constants:
        if each.device == device.name and each.dtype == measured:
            place = (each.threads, each.share)
            # In want of calls one by one, another mode is nearer than another device.
            if each.mode == EAGER or place not in own:
                own[place] = each
    places = {
        (int(threads), float(share))
        for table in (operators, models)
        for threads, share in zip(floats(table, "threads"), floats(table, "share"), strict=True)
    }
    assumed = {(0, 1.0)} if device.kind is DeviceKind.GPU else set[tuple[int, float]]()
    borrowed = None if operators.num_rows else _borrowed(profile, device, measured, dtype)
    settings = [
        _setting(
            _at(operators, *each),
            _Runs.of(_at(models, *each), decompositions, measured),
            device=device,
            measured=measured,
            dtype=dtype,
            threads=each[0],
            share=each[1],
            shipped=own.get(each),
            pooled=pooled,
            borrowed=borrowed,
        )
        for each in sorted(places | set(own) | assumed)
    ]
    return [each for each in settings if each.knows_something]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Runs:
    """Measured forward passes of whole models whose operators are known.

    Attributes:
        calls: Of each run, at its batch size.
        seconds: Measured, shape (m,).
        model: Number of each run's model, shape (m,).
        source: Of the measurements.
    """

    calls: tuple[tuple[FamilyCalls, ...], ...]
    seconds: FloatArray
    model: NDArray[np.intp]
    source: str

    @classmethod
    def of(cls, rows: pa.Table, decompositions: Mapping[str, Decomposition], dtype: str) -> "_Runs":
        known = [row for row in rows.to_pylist() if row["model"] in decompositions]
        names = sorted({str(row["model"]) for row in known})
        return cls(
            calls=tuple(
                decompositions[row["model"]].calls(
                    np.array([float(row["batch_size"])]), dtype=dtype
                )
                for row in known
            ),
            seconds=np.array([row["latency_us"] / 1e6 for row in known]),
            model=np.array([names.index(row["model"]) for row in known], dtype=np.intp),
            source=str(known[0]["source"]) if known else "",
        )

    @property
    def n_models(self) -> int:
        return len(np.unique(self.model))


def _setting(
    operators: pa.Table,
    runs: _Runs,
    *,
    device: Device,
    measured: str,
    dtype: str,
    threads: int,
    share: float,
    shipped: Constants | None,
    pooled: Constants | None,
    borrowed: BorrowedShapes | None,
) -> Setting:
    """The predictors of one setting, fitted to the runs measured in it where they suffice."""
    family = shipped
    if runs.n_models >= _MIN_MODELS:
        family = fit_family_constants(
            FamilyTotals.concatenated([FamilyTotals.of_calls(each) for each in runs.calls]),
            runs.seconds,
            groups=runs.model,
            device=device,
            dtype=measured,
            mode=EAGER,
            source=runs.source,
            ridge_towards=shipped or pooled,
            threads=threads,
            share=share,
        )
    shapes = (
        NearestShapes.from_rows(operators, device, dtype=measured, share=share)
        if operators.num_rows
        else None
    )
    setting = Setting(
        threads=threads,
        share=share,
        shapes=shapes,
        composition=None,
        family=_model(family, device, dtype),
        transferred=_model(pooled, device, dtype),
        borrowed=borrowed,
    )
    if shapes is None or not runs.calls:
        return setting
    sums = [setting.operator_sum(shapes, each) for each in runs.calls]
    composition = fit_composition(
        np.array([seconds for seconds, _ in sums]),
        np.array([n_calls for _, n_calls in sums]),
        runs.seconds,
        model=runs.model.astype(np.float64),
        device=device.name,
        dtype=measured,
        mode=EAGER,
        threads=threads,
        share=share,
        source=runs.source,
    )
    moved = shapes if dtype == measured else shapes.moved_to(device, dtype=dtype)
    return replace(setting, shapes=moved, composition=composition)


def _borrowed(profile: Profile, device: Device, measured: str, dtype: str) -> BorrowedShapes | None:
    """What the operators of other GPUs would take on this one; None where nobody measured any."""
    if device.kind is not DeviceKind.GPU:
        return None
    catalogue = {gpu.gpu_type: Device.of_gpu(gpu) for gpu in Catalogue.packaged().gpus}
    known = catalogue | {each.name: each for each in profile.devices()}
    names = {str(name) for name in profile.operators.column("device").unique().to_pylist()}
    lenders: list[NearestShapes] = []
    for name in sorted(names & set(known)):
        rows = _at(_rows_of(profile.operators, name, measured, modes=(EAGER,)), 0, 1.0)
        if rows.num_rows and known[name].kind is DeviceKind.GPU:
            shapes = NearestShapes.from_rows(rows, known[name], dtype=measured)
            lenders.append(shapes.moved_to(device, dtype=dtype))
    return BorrowedShapes(lenders) if lenders else None


def _model(constants: Constants | None, device: Device, dtype: str) -> FamilyModel | None:
    return None if constants is None else FamilyModel(replace(constants, dtype=dtype), device)


def _rows_of(table: pa.Table, device: str, dtype: str, *, modes: Sequence[str]) -> pa.Table:
    mask = np.ones(table.num_rows, dtype=np.bool_)
    for column, wanted in (("device", [device]), ("dtype", [dtype]), ("mode", modes)):
        mask &= _COMPUTE.is_in(table.column(column), pa.array(list(wanted))).to_numpy()
    return table.filter(_COMPUTE.cast(mask, pa.bool_()))


def _at(table: pa.Table, threads: int, share: float) -> pa.Table:
    mask = (floats(table, "threads") == threads) & (floats(table, "share") == share)
    return table.filter(_COMPUTE.cast(mask, pa.bool_()))
