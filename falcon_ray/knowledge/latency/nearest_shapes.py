"""Latency of single operators from the nearest shapes that were measured on the same device.

Works on the deviation of measured latencies from ideal times, family by family. The module does
not know models, nor what to do about a family that nobody measured: it says that it is not
covered.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from falcon_ray.errors import InputError
from falcon_ray.knowledge.device import Device
from falcon_ray.knowledge.latency.shape_coordinates import (
    Machine,
    Shapes,
    coordinates,
    ideal_seconds,
    roofline_s,
)
from falcon_ray.knowledge.latency.shape_regression import ShapeRegression
from falcon_ray.knowledge.operators.operator import N_DIMS, Family
from falcon_ray.space.configuration import FloatArray

_NAME_DISTANCE = 0.5
"""How far a name moves an operator, in units of `coordinates`; an unknown one is in the middle."""
_NEVER_MEASURED_SD = 1.0
_NOTHING_S = 1e-9
"""Roofline of an operator that neither computes nor moves."""


@dataclass(frozen=True, slots=True, eq=False)
class OperatorPrediction:
    """Latency of n operators, one call each.

    Attributes:
        log_seconds: Natural log, shape (n,); where not covered, of the roofline.
        sd: Of `log_seconds`, shape (n,).
        covered: Whether operators of this family were measured, shape (n,).
    """

    log_seconds: FloatArray
    sd: FloatArray
    covered: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _FamilyShapes:
    names: Mapping[str, int]
    regression: ShapeRegression


class NearestShapes:
    """Predicts operators of one device in one dtype, mode, number of threads and share.

    Args:
        families: What was fitted, by family.
        machine: The device that is predicted.
        floor_s: The shortest latency that was measured; none is predicted below.
    """

    def __init__(
        self, families: Mapping[Family, _FamilyShapes], machine: Machine, *, floor_s: float
    ) -> None:
        self._families = families
        self._machine = machine
        self._floor_s = floor_s

    @classmethod
    def from_rows(
        cls, rows: pa.Table, device: Device, *, dtype: str = "float32", share: float = 1.0
    ) -> "NearestShapes":
        """Fit to measurements.

        Args:
            rows: Of `schemas.OPERATORS`, all of this device, dtype and share, in one mode and
                with one number of threads.
            device: What they were measured on.
            dtype: What was computed in.
            share: Of the device's compute units.

        Raises:
            InputError: There are no rows, or a row has dimensions of another family.
        """
        if not rows.num_rows:
            raise InputError(
                f"nobody measured operators on {device.name} in {dtype}; run falcon-ray profile"
            )
        machine = Machine.of(device, dtype=dtype, share=share)
        families = np.array(rows["family"].to_pylist())
        seconds = rows["latency_us"].to_numpy() * 1e-6
        timed = families != Family.VIEW.value
        floor_s = float(seconds[timed].min() if timed.any() else seconds.min())
        fitted: dict[Family, _FamilyShapes] = {}
        for family in Family:
            chosen = np.flatnonzero(families == family.value)
            if chosen.size:
                fitted[family] = _fit(family, rows.take(chosen), machine, floor_s)
        return cls(MappingProxyType(fitted), machine, floor_s=floor_s)

    @property
    def families(self) -> tuple[Family, ...]:
        """Those that were measured."""
        return tuple(self._families)

    def moved_to(
        self, device: Device, *, dtype: str = "float32", share: float = 1.0
    ) -> "NearestShapes":
        """The same efficiency on another device; only as good as the two are alike."""
        machine = Machine.of(device, dtype=dtype, share=share)
        return NearestShapes(self._families, machine, floor_s=self._floor_s)

    def predict(
        self,
        family: Family,
        names: Sequence[str] | str,
        dims: FloatArray,
        flops: FloatArray,
        bytes_moved: FloatArray,
    ) -> OperatorPrediction:
        """Latency of n operators of one family.

        Args:
            family: Of all of them.
            names: ATen's, of each, or one for all.
            dims: Canonical dimensions, shape (n, d).
            flops: Of one call, shape (n,).
            bytes_moved: By one call, shape (n,).
        """
        shapes = Shapes(family=family, dims=dims, flops=flops, bytes_moved=bytes_moved)
        n = len(dims)
        fitted = self._families.get(family)
        if fitted is None:
            log_seconds = np.log(np.maximum(roofline_s(shapes, self._machine), _NOTHING_S))
            sd, covered = np.full(n, _NEVER_MEASURED_SD), np.zeros(n, dtype=np.bool_)
        else:
            points = _points(shapes, names, fitted.names, self._machine)
            log_seconds, sd = fitted.regression.predict(
                ideal_seconds(shapes, self._machine), points
            )
            covered = np.ones(n, dtype=np.bool_)
            if family is not Family.VIEW:
                log_seconds = np.maximum(log_seconds, np.log(self._floor_s))
        return OperatorPrediction(log_seconds, sd, covered)


def _fit(family: Family, rows: pa.Table, machine: Machine, floor_s: float) -> _FamilyShapes:
    lengths = pc.list_value_length(rows["dims"]).to_numpy()
    if not (lengths == N_DIMS[family]).all():
        raise InputError(
            f"{family.value} has {N_DIMS[family]} dimensions, but a measured row has "
            f"{sorted(set(lengths.tolist()))}; measure the profile again"
        )
    dims = pc.list_flatten(rows["dims"]).to_numpy().astype(np.float64)
    shapes = Shapes(
        family=family,
        dims=dims.reshape(len(lengths), -1),
        flops=rows["flops"].to_numpy(),
        bytes_moved=rows["bytes"].to_numpy(),
    )
    names = [_plain(str(each)) for each in rows["op"].to_pylist()]
    codes = {name: code for code, name in enumerate(dict.fromkeys(names))}
    regression = ShapeRegression.fit(
        ideal_seconds(shapes, machine),
        _points(shapes, names, codes, machine),
        rows["latency_us"].to_numpy() * 1e-6,
        floor_s=floor_s,
    )
    return _FamilyShapes(names=MappingProxyType(codes), regression=regression)


def _points(
    shapes: Shapes, names: Sequence[str] | str, codes: Mapping[str, int], machine: Machine
) -> FloatArray:
    """Coordinates and names of operators, shape (n, p + number of names)."""
    where = coordinates(shapes, has_tiles=machine.units is not None)
    if len(codes) == 1:
        return where
    each_name = [names] * len(where) if isinstance(names, str) else names
    code_of = {name: codes.get(_plain(name), len(codes)) for name in set(each_name)}
    found = np.array([code_of[name] for name in each_name], dtype=np.intp)
    # The last row stands for names that nobody measured.
    marks = np.eye(len(codes) + 1)[:, :-1] * _NAME_DISTANCE
    return np.concatenate([where, marks[found]], axis=1)


def _plain(name: str) -> str:
    """Operators that change their argument in place cost what the others do."""
    return name.strip("_").removeprefix("native_")
