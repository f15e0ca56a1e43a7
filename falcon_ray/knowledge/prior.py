"""What is expected of every candidate of a space before the first trial: means and error bars.

Rates and latencies per modelled metric as normal distributions of their natural logs, memory,
and the probability that it suffices. The prior knows what the dimensions of a served torch model
mean; it does not know prices or scores. Everything is computed once per device, dtype, share and
batch size, and then looked up, so that a million candidates cost little more than a thousand.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from falcon_ray.errors import InputError, UnknownDeviceError
from falcon_ray.knowledge.device import Device, DeviceKind
from falcon_ray.knowledge.latency.latencies import Latencies
from falcon_ray.knowledge.memory import probability_of_fitting, replica_bytes
from falcon_ray.knowledge.operators.operator import DTYPE_BYTES, Decomposition, FamilyCalls
from falcon_ray.knowledge.profile.decompositions import model_key
from falcon_ray.knowledge.serving import BatchTimes, capacity_rps, floor_latency_ms, saturation_rps
from falcon_ray.space.configuration import ConfigurationSpace, FloatArray, IndexArray
from falcon_ray.space.dimension import Dimension, Value
from falcon_ray.space.objective import Slo

UNDERSTOOD = frozenset(
    {
        "gpu_type",
        "gpu_share",
        "gpu_memory_gib",
        "cpu_cores",
        "batch_size",
        "batch_wait_ms",
        "dtype",
        "replicas",
    }
)
"""Dimensions whose effect is predicted; of any other the prior expects none."""
_UNKNOWN_DEVICE_SD = 1.0
QUEUEING_SD = 0.2
"""Assumed further sd of the log of what an SLO hangs on: a service time holds no queues."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """One positive metric of n candidates: mean and sd of its natural log, shapes (n,)."""

    mean: FloatArray
    sd: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """What is expected of n candidates.

    Attributes:
        metrics: By the names of `Measurement`.
        memory_bytes: Of one replica, shape (n,).
        probability_fits: That this is within what the candidate allows, shape (n,).
        warnings: Where the knowledge is thin, one line each.
    """

    metrics: Mapping[str, Expectation]
    memory_bytes: FloatArray
    probability_fits: FloatArray
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The machine whose CPUs serve the candidates that name no GPU.

    Attributes:
        device: Name of the CPU in the profile; empty where no candidate runs on one.
        ram_bytes: What one replica may take at most.
    """

    device: str
    ram_bytes: float


def expected_metrics(
    space: ConfigurationSpace,
    decomposition: Decomposition,
    latencies: Latencies,
    *,
    host: Host,
    slo: Slo | None = None,
) -> Prior:
    """The prior of every candidate of a space.

    Args:
        space: The n candidates.
        decomposition: The model that is served.
        latencies: What predicts the times of its batches.
        host: For candidates without `gpu_type`.
        slo: With one, `capacity_rps` and `floor_latency_ms` are expected as well.

    Raises:
        UnknownDeviceError: Nothing is known about any device that a candidate would run on.
        InputError: A candidate names no device, or a dtype of unknown width.
    """
    columns = _Columns(space)
    cells = _Cells(columns, host)
    batch_sizes = _batch_grid(columns)
    found = _cell_times(cells, batch_sizes, decomposition, latencies, host=host)
    notes = [
        f"the prior does not know what {name} does, and expects no effect"
        for name in columns.unknown
    ]
    group = cells.of_candidates()
    batch = columns.positions("batch_size", batch_sizes, default=1)
    times = BatchTimes(batch_sizes, np.exp(found.log_seconds))
    replicas = columns.numbers("replicas", default=1.0)
    spread = found.sd[group, batch]
    metrics = {
        "service_time_ms": Expectation(found.log_seconds[group, batch] + np.log(1e3), spread),
        "saturation_rps": Expectation(
            np.log(saturation_rps(times, group=group, batch=batch, replicas=replicas)), spread
        ),
    }
    if slo is not None:
        with_queue = np.sqrt(spread**2 + QUEUEING_SD**2)
        capacity = capacity_rps(times, slo, group=group, batch=batch, replicas=replicas)
        floor = floor_latency_ms(
            times,
            group=group,
            batch=batch,
            batch_wait_ms=columns.numbers("batch_wait_ms", default=0.0),
        )
        metrics["capacity_rps"] = Expectation(np.log(capacity), with_queue)
        metrics["floor_latency_ms"] = Expectation(
            np.log(floor), np.sqrt(found.sd[group, 0] ** 2 + QUEUEING_SD**2)
        )
    memory = found.needed_bytes[group, batch]
    # The replicas of a CPU node share its memory.
    sharing = 1.0 if "gpu_type" in columns.dimensions else replicas
    allowed = np.minimum(
        found.limit_bytes[group] / sharing,
        2.0**30 * columns.numbers("gpu_memory_gib", default=np.inf),
    )
    return Prior(
        metrics=metrics,
        memory_bytes=memory,
        probability_fits=probability_of_fitting(memory, allowed),
        warnings=(*notes, *found.warnings),
    )


@dataclass(frozen=True, slots=True)
class _CellTimes:
    """Of every cell: times and needs at b batch sizes, shapes (cells, b), and limits, (cells,)."""

    log_seconds: FloatArray
    sd: FloatArray
    needed_bytes: FloatArray
    limit_bytes: FloatArray
    warnings: tuple[str, ...]


def _cell_times(
    cells: "_Cells",
    batch_sizes: FloatArray,
    decomposition: Decomposition,
    latencies: Latencies,
    *,
    host: Host,
) -> _CellTimes:
    """Predict each cell once; of unknown devices expect what the known ones do on average.

    Raises:
        UnknownDeviceError: Nothing is known about any of the devices.
    """
    log_seconds = np.zeros((cells.n, batch_sizes.size))
    sd, needed = np.zeros_like(log_seconds), np.zeros_like(log_seconds)
    limit = np.full(cells.n, np.inf)
    calls: dict[str, tuple[FamilyCalls, ...]] = {}
    key = model_key(decomposition)
    known: list[int] = []
    warnings: dict[str, None] = {}
    for cell in cells.occurring:
        device_name, dtype, share, cores = cells.describe(cell)
        try:
            predictor = latencies.on(device_name, dtype)
            device: Device = predictor.device
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
        log_seconds[cell], sd[cell] = predicted.log_seconds, predicted.sd
        served = latencies.served(device_name, key)
        log_seconds[cell] += served.log_factor
        if not predictor.is_stand_in:
            sd[cell] *= np.sqrt(served.variance_left)
        needed[cell] = replica_bytes(decomposition, batch_sizes, dtype=dtype, kind=device.kind)
        limit[cell] = host.ram_bytes if on_cpu else share * device.memory_bytes
        warnings |= dict.fromkeys(predicted.warnings)
        known.append(cell)
    if not known:
        raise UnknownDeviceError(next(iter(warnings)))
    for cell in set(cells.occurring) - set(known):
        log_seconds[cell] = log_seconds[known].mean(axis=0)
        sd[cell] = _UNKNOWN_DEVICE_SD
        needed[cell] = needed[known].mean(axis=0)
    return _CellTimes(log_seconds, sd, needed, limit, tuple(warnings))


class _Columns:
    """The values of a space's candidates, one array per dimension."""

    def __init__(self, space: ConfigurationSpace) -> None:
        self.dimensions: dict[str, Dimension] = {each.name: each for each in space.dimensions}
        self.codes: dict[str, IndexArray] = {
            each.name: space.codes[:, i] for i, each in enumerate(space.dimensions)
        }
        self.n = len(space)

    @property
    def unknown(self) -> Sequence[str]:
        return [
            name
            for name, each in self.dimensions.items()
            if name not in UNDERSTOOD and len(each.values) > 1
        ]

    def values(self, name: str, default: Value) -> tuple[Value, ...]:
        return self.dimensions[name].values if name in self.dimensions else (default,)

    def code(self, name: str) -> IndexArray:
        return self.codes[name] if name in self.codes else np.zeros(self.n, dtype=np.int32)

    def numbers(self, name: str, *, default: float) -> FloatArray:
        table = np.array([float(each) for each in self.values(name, default)])
        return table[self.code(name)]

    def positions(self, name: str, grid: FloatArray, *, default: float) -> IndexArray:
        """Where each candidate's value stands in an ascending grid that holds all of them."""
        table = np.array([float(each) for each in self.values(name, default)])
        return np.searchsorted(grid, table).astype(np.int32)[self.code(name)]


class _Cells:
    """The combinations of device, dtype, share and cores, each of which is predicted once."""

    _NAMES = ("gpu_type", "dtype", "gpu_share", "cpu_cores")
    _DEFAULTS: tuple[Value, ...] = ("", "float32", 1.0, 1)

    def __init__(self, columns: _Columns, host: Host) -> None:
        # Behind a GPU cores do not change the time of a batch, so they make no cells there.
        self._names = tuple(
            name
            for name in self._NAMES
            if name != "cpu_cores" or "gpu_type" not in columns.dimensions
        )
        self._host = host
        self._values = [
            columns.values(name, default)
            for name, default in zip(self._NAMES, self._DEFAULTS, strict=True)
            if name in self._names
        ]
        self._sizes = [len(each) for each in self._values]
        self._of_candidates: NDArray[np.intp] = np.ravel_multi_index(
            [columns.code(name) for name in self._names], self._sizes
        )
        self.n = int(np.prod(self._sizes))

    @property
    def occurring(self) -> list[int]:
        return [int(cell) for cell in np.flatnonzero(np.bincount(self._of_candidates))]

    def of_candidates(self) -> IndexArray:
        return self._of_candidates.astype(np.int32)

    def describe(self, cell: int) -> tuple[str, str, float, int]:
        """Device, dtype, share and cores of a cell.

        Raises:
            InputError: It runs on a CPU, and nobody said on which, or its dtype is unknown.
        """
        places = np.unravel_index(cell, self._sizes)
        found: dict[str, Value] = {
            name: values[int(place)]
            for name, values, place in zip(self._names, self._values, places, strict=True)
        }
        device = str(found["gpu_type"]) or self._host.device
        dtype = str(found["dtype"])
        if not device:
            raise InputError("the space names no gpu_type and no CPU is known; name either")
        if dtype not in DTYPE_BYTES:
            raise InputError(
                f"dtype {dtype!r} has no known width; known are {', '.join(DTYPE_BYTES)}"
            )
        return device, dtype, float(found["gpu_share"]), int(found.get("cpu_cores", 1))


def _batch_grid(columns: _Columns) -> FloatArray:
    """The batch sizes of the space, 1, and the powers of two up to the largest, ascending."""
    wanted = {float(each) for each in columns.values("batch_size", 1)}
    powers = {2.0**i for i in range(int(np.log2(max(wanted))) + 1)}
    return np.array(sorted({1.0} | wanted | powers))
