"""The time of a batch, and what it needs of memory, in every cell of a space.

Each cell is predicted once, at all batch sizes together. The module knows models, devices and
cells. It does not know how times become rates, nor candidates.

Notation: c cells, b batch sizes.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from falcon_ray.errors import UnknownDeviceError
from falcon_ray.knowledge.cells import Cells
from falcon_ray.knowledge.device import Device, DeviceKind
from falcon_ray.knowledge.latency.estimates import LatencyEstimate
from falcon_ray.knowledge.latency.latencies import Latencies
from falcon_ray.knowledge.memory import replica_bytes
from falcon_ray.knowledge.operators.operator import Decomposition, FamilyCalls
from falcon_ray.knowledge.profile.decompositions import model_key
from falcon_ray.space.configuration import FloatArray

UNKNOWN_DEVICE_SD = 1.0
"""Of the log time on a device that nothing is known about."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prediction:
    """What is predicted of one cell.

    Attributes:
        device: What it runs on.
        dtype: What it computes in.
        part: Of the device: a share of a GPU's compute units, or used cores of a CPU over all.
        calls: Operators by family, at the b batch sizes.
        estimate: Of a forward pass.
        log_factor: What trials showed that serving adds to its log.
    """

    device: Device
    dtype: str
    part: float
    calls: tuple[FamilyCalls, ...]
    estimate: LatencyEstimate
    log_factor: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CellTimes:
    """Times and needs of all cells; those that no candidate is in hold zeros.

    Attributes:
        batch_sizes: Ascending, shape (b,).
        log_seconds: Natural log, shape (c, b).
        sd: Of it, shape (c, b).
        needed_bytes: Of a replica, shape (c, b).
        limit_bytes: What all replicas on one device may take there, infinite where nobody knows
            it, shape (c,).
        predictions: By cell; those on devices that nobody knows are missing.
        strangers: Cells on such devices.
        variance_left: Share of the variance that trials of this model left, 1 without any.
        warnings: Where the knowledge is thin, one line each.
    """

    batch_sizes: FloatArray
    log_seconds: FloatArray
    sd: FloatArray
    needed_bytes: FloatArray
    limit_bytes: FloatArray
    predictions: Mapping[int, Prediction]
    strangers: frozenset[int]
    variance_left: float
    warnings: tuple[str, ...]


def cell_times(
    cells: Cells,
    batch_sizes: FloatArray,
    decomposition: Decomposition,
    latencies: Latencies,
    *,
    ram_bytes: float,
) -> CellTimes:
    """Predict each cell; of unknown devices expect what the known ones do on average.

    Args:
        cells: Of the space.
        batch_sizes: Ascending, shape (b,).
        decomposition: The model.
        latencies: What predicts its times.
        ram_bytes: What the replicas on a CPU may take.

    Raises:
        UnknownDeviceError: Nothing is known about any of the devices.
        InputError: See `Cells.describe`.
    """
    log_seconds = np.zeros((cells.n, batch_sizes.size))
    sd, needed = np.zeros_like(log_seconds), np.zeros_like(log_seconds)
    limit = np.full(cells.n, np.inf)
    calls: dict[str, tuple[FamilyCalls, ...]] = {}
    key = model_key(decomposition)
    predictions: dict[int, Prediction] = {}
    variance_left = 1.0
    warnings: dict[str, None] = {}
    for cell in cells.occurring:
        device_name, dtype, share, cores = cells.describe(cell)
        try:
            predictor = latencies.on(device_name, dtype)
            device = predictor.device
            on_cpu = device.kind is DeviceKind.CPU
            traffic = predictor.traffic_dtype
            if traffic not in calls:
                calls[traffic] = decomposition.calls(batch_sizes, dtype=traffic)
            predicted = predictor.predict(
                calls[traffic], threads=cores if on_cpu else 0, share=share
            )
        except UnknownDeviceError as error:
            warnings[str(error)] = None
            continue
        served = latencies.served(device_name, key)
        log_seconds[cell] = predicted.log_seconds + served.log_factor
        sd[cell] = predicted.sd
        if not predictor.is_stand_in:
            sd[cell] *= np.sqrt(served.variance_left)
            variance_left = min(variance_left, served.variance_left)
        needed[cell] = replica_bytes(decomposition, batch_sizes, dtype=dtype, kind=device.kind)
        limit[cell] = ram_bytes if on_cpu else share * device.memory_bytes
        warnings |= dict.fromkeys(predicted.warnings)
        predictions[cell] = Prediction(
            device=device,
            dtype=traffic,
            part=min(cores / device.units, 1.0) if on_cpu else share,
            calls=calls[traffic],
            estimate=predicted,
            log_factor=served.log_factor,
        )
    if not predictions:
        raise UnknownDeviceError(next(iter(warnings)))
    strangers = frozenset(cells.occurring) - predictions.keys()
    for table in (log_seconds, needed):
        fill_with_average(table, known=predictions.keys(), unknown=strangers)
    sd[list(strangers)] = UNKNOWN_DEVICE_SD
    return CellTimes(
        batch_sizes=batch_sizes,
        log_seconds=log_seconds,
        sd=sd,
        needed_bytes=needed,
        limit_bytes=limit,
        predictions=predictions,
        strangers=strangers,
        variance_left=variance_left,
        warnings=tuple(warnings),
    )


def fill_with_average(
    table: FloatArray, *, known: Collection[int], unknown: Collection[int]
) -> None:
    """Put the mean of some rows of a table of shape (c, ...) into others, in place."""
    if unknown:
        table[list(unknown)] = table[list(known)].mean(axis=0)
