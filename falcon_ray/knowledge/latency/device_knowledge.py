"""Everything that a profile holds about one device in one dtype, as predictors ready to ask.

Constants are fitted on the spot from the models that the profile measured there. The module does
not know how predictions are combined; `latencies.py` does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from falcon_ray.knowledge.constants import Constants
from falcon_ray.knowledge.device import Device, DeviceKind
from falcon_ray.knowledge.latency.borrowed_shapes import BorrowedShapes
from falcon_ray.knowledge.latency.composition import fit_composition
from falcon_ray.knowledge.latency.family_features import FamilyTotals
from falcon_ray.knowledge.latency.family_fit import fit_family_constants
from falcon_ray.knowledge.latency.family_model import FamilyModel
from falcon_ray.knowledge.latency.family_pool import transferred
from falcon_ray.knowledge.latency.nearest_shapes import NearestShapes
from falcon_ray.knowledge.latency.profile_view import EAGER, ProfileView, at, places
from falcon_ray.knowledge.latency.setting import Setting
from falcon_ray.knowledge.operators.operator import Decomposition, FamilyCalls
from falcon_ray.knowledge.profile.decompositions import fingerprint
from falcon_ray.space.configuration import FloatArray

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


def device_knowledge(view: ProfileView, device: Device, dtype: str) -> DeviceKnowledge:
    """Sort what a profile holds about a device and dtype, and fit what can be fitted.

    Where nobody measured the dtype, another one stands in: multiples of ideal time carry over,
    and ideal time is that of the dtype that is asked for. Where nobody measured the device at
    all, other devices stand in.

    Args:
        view: Of the profile.
        device: Facts of the device.
        dtype: Of the arithmetic.
    """
    dtypes = (dtype, *(each for each in _STAND_INS if each != dtype))
    for find in (_measured_settings, _settings_of_others):
        for measured in dtypes:
            settings = find(view, device, measured, dtype)
            if settings:
                return DeviceKnowledge(
                    device=device, dtype=dtype, measured_dtype=measured, settings=settings
                )
    return DeviceKnowledge(device=device, dtype=dtype, measured_dtype=dtype, settings=())


def _measured_settings(
    view: ProfileView, device: Device, measured: str, dtype: str
) -> tuple[Setting, ...]:
    """What was measured on the device in one dtype, as predictors of another, or of the same."""
    operators = view.rows("operators", device.name, measured)
    models = view.rows("models", device.name, measured)
    own: dict[tuple[int, float], Constants] = {}
    for each in view.constants:
        if each.device == device.name and each.dtype == measured:
            place = (each.threads, each.share)
            # In want of calls one by one, another mode is nearer than another device.
            if each.mode == EAGER or place not in own:
                own[place] = each
    pooled = transferred(view.constants, device, measured)
    settings = [
        _setting(
            view.shapes(device, measured, threads=threads, share=share),
            _Runs.of(at(models, threads, share), view.decompositions, measured),
            device=device,
            measured=measured,
            dtype=dtype,
            threads=threads,
            share=share,
            shipped=own.get((threads, share)),
            pooled=pooled,
        )
        for threads, share in sorted(places((operators, models)) | set(own))
    ]
    return tuple(each for each in settings if each.is_measured)


def _settings_of_others(
    view: ProfileView, device: Device, measured: str, dtype: str
) -> tuple[Setting, ...]:
    """What other GPUs say of a whole GPU; nothing for a CPU, whose threads they do not share."""
    if device.kind is not DeviceKind.GPU:
        return ()
    lenders = view.shapes_of_other_gpus(device, measured)
    setting = Setting(
        threads=0,
        share=1.0,
        shapes=None,
        composition=None,
        family=None,
        transferred=_model(transferred(view.constants, device, measured), device, dtype),
        borrowed=BorrowedShapes([each.moved_to(device, dtype=dtype) for each in lenders])
        if lenders
        else None,
    )
    return (setting,) if setting.knows_something else ()


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
        # One model may have been called by several names.
        models = [fingerprint(row["model"]) for row in known]
        names = sorted(set(models))
        return cls(
            calls=tuple(
                decompositions[row["model"]].calls(
                    np.array([float(row["batch_size"])]), dtype=dtype
                )
                for row in known
            ),
            seconds=np.array([row["latency_us"] / 1e6 for row in known]),
            model=np.array(
                [names.index(fingerprint(row["model"])) for row in known], dtype=np.intp
            ),
            source=str(known[0]["source"]) if known else "",
        )

    @property
    def n_models(self) -> int:
        return len(np.unique(self.model))


def _setting(
    shapes: NearestShapes | None,
    runs: _Runs,
    *,
    device: Device,
    measured: str,
    dtype: str,
    threads: int,
    share: float,
    shipped: Constants | None,
    pooled: Constants | None,
) -> Setting:
    """The predictors of one setting, fitted to the runs measured in it where they suffice.

    On a GPU, multiples of ideal time carry over to another dtype's rate. On a CPU they do not:
    whether there are instructions for it, and kernels that use them, is another matter.
    """
    used = measured if device.kind is DeviceKind.CPU else dtype
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
    setting = Setting(
        threads=threads,
        share=share,
        shapes=shapes,
        composition=None,
        family=_model(family, device, used),
        transferred=_model(pooled, device, used),
    )
    if shapes is None:
        return setting
    moved = shapes if used == measured else shapes.moved_to(device, dtype=used, share=share)
    if not runs.calls:
        return replace(setting, shapes=moved)
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
    return replace(setting, shapes=moved, composition=composition)


def _model(constants: Constants | None, device: Device, dtype: str) -> FamilyModel | None:
    return None if constants is None else FamilyModel(replace(constants, dtype=dtype), device)
