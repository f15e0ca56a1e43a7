"""A profile as predictors look at it: rows of one device, decompositions, fitted shapes.

Everything is sorted or fitted when it is first asked for, and kept. The module does not know
what is predicted from it.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from falcon_ray.knowledge.constants import Constants
from falcon_ray.knowledge.device import Device, DeviceKind
from falcon_ray.knowledge.latency.family_model import PREDICTOR as FAMILY
from falcon_ray.knowledge.latency.nearest_shapes import NearestShapes
from falcon_ray.knowledge.operators.operator import Decomposition
from falcon_ray.knowledge.profile.decompositions import decompositions_of
from falcon_ray.knowledge.profile.profile import Profile
from falcon_ray.knowledge.profile.tables import floats
from falcon_ray.space.catalogue import Catalogue

_COMPUTE: Any = pyarrow.compute  # its stubs leave half of the types open

EAGER = "eager"
"""The mode of calls one by one."""
SERVED = "served"
"""The mode of batches inside a replica under load, as trials measure them."""


class ProfileView:
    """What a profile holds, by device.

    Args:
        profile: Measurements and constants.
        catalogue: Facts of GPUs.
    """

    def __init__(self, profile: Profile, catalogue: Catalogue) -> None:
        self._profile = profile
        self._catalogue = catalogue
        self._by_device: dict[tuple[str, str], pa.Table] = {}
        self._shapes: dict[tuple[str, str, int, float], NearestShapes | None] = {}

    @cached_property
    def constants(self) -> tuple[Constants, ...]:
        """All fitted constants of families."""
        return self._profile.constants(FAMILY)

    @cached_property
    def decompositions(self) -> Mapping[str, Decomposition]:
        """Operators of the measured models, by model key."""
        return decompositions_of(self._profile.table("decompositions"))

    @cached_property
    def devices(self) -> Mapping[str, Device]:
        """Facts of every device that the catalogue or the profile has, by name."""
        gpus = {each.gpu_type: Device.of_gpu(each) for each in self._catalogue.gpus}
        return gpus | {each.name: each for each in self._profile.devices()}

    @cached_property
    def measured_devices(self) -> frozenset[str]:
        """Names of the devices that something was measured on."""
        tables = (self._profile.operators, self._profile.models)
        return frozenset(
            str(name) for table in tables for name in table.column("device").unique().to_pylist()
        )

    def rows(self, table: str, device: str, dtype: str, *, mode: str = EAGER) -> pa.Table:
        """Measurements of one device, in one dtype and mode.

        Args:
            table: "operators" or "models".
            device: Its name.
            dtype: Of the arithmetic.
            mode: How it was called.
        """
        own = self._own(table, device)
        mask = np.ones(own.num_rows, dtype=np.bool_)
        for column, wanted in (("dtype", dtype), ("mode", mode)):
            mask &= _equal(own, column, wanted)
        return _filtered(own, mask)

    def shapes(
        self, device: Device, dtype: str, *, threads: int, share: float
    ) -> NearestShapes | None:
        """Predictor of the operators that were measured in a setting; None without any."""
        key = (device.name, dtype, threads, share)
        if key not in self._shapes:
            rows = at(self.rows("operators", device.name, dtype), threads, share)
            self._shapes[key] = (
                NearestShapes.from_rows(rows, device, dtype=dtype, share=share)
                if rows.num_rows
                else None
            )
        return self._shapes[key]

    def shapes_of_other_gpus(self, device: Device, dtype: str) -> list[NearestShapes]:
        """Predictors of whole GPUs other than this one, on their own facts."""
        names = sorted((self.measured_devices & set(self.devices)) - {device.name})
        gpus = [each for each in map(self.devices.get, names) if each is not None]
        found = [
            self.shapes(each, dtype, threads=0, share=1.0)
            for each in gpus
            if each.kind is DeviceKind.GPU
        ]
        return [each for each in found if each is not None]

    def _own(self, table: str, device: str) -> pa.Table:
        key = (table, device)
        if key not in self._by_device:
            whole = self._profile.table(table)
            known = device in self.measured_devices
            self._by_device[key] = (
                _filtered(whole, _equal(whole, "device", device)) if known else whole.slice(0, 0)
            )
        return self._by_device[key]


def at(table: pa.Table, threads: int, share: float) -> pa.Table:
    """The rows of one setting."""
    return _filtered(
        table, (floats(table, "threads") == threads) & (floats(table, "share") == share)
    )


def places(tables: Sequence[pa.Table]) -> set[tuple[int, float]]:
    """The settings (threads, share) that occur in tables of measurements."""
    return {
        (int(threads), float(share))
        for table in tables
        for threads, share in zip(floats(table, "threads"), floats(table, "share"), strict=True)
    }


def _equal(table: pa.Table, column: str, wanted: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.asarray(_COMPUTE.equal(table.column(column), wanted).to_numpy(), dtype=np.bool_)


def _filtered(table: pa.Table, mask: np.ndarray[Any, np.dtype[np.bool_]]) -> pa.Table:
    return table.filter(_COMPUTE.cast(mask, pa.bool_()))
