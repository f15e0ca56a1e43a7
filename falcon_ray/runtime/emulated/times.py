"""How long batches of one model take on GPUs that are not there, and what memory they need.

Computed once, from the cluster's knowledge or from a table of the user's, and then plain numbers:
nothing here is asked again while trials run, and a search that is resumed finds the same times.
The module does not know replicas.

Between batch sizes times and needs are affine, as a launch cost plus a cost per request is; below
the smallest they are those of the smallest, beyond the largest they go on as between the last two.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from falcon_ray.errors import InputError
from falcon_ray.knowledge.cell_times import CellTimes, cell_times
from falcon_ray.knowledge.cells import Cells, Columns, batch_grid
from falcon_ray.knowledge.device import DeviceKind
from falcon_ray.knowledge.latency.latencies import Latencies
from falcon_ray.knowledge.memory import replica_bytes
from falcon_ray.knowledge.operators.operator import DTYPE_BYTES, Decomposition
from falcon_ray.space.catalogue import Catalogue
from falcon_ray.space.configuration import Configuration, ConfigurationSpace
from falcon_ray.space.dimension import Value
from falcon_ray.space.table import read_table

GIB = 2.0**30
DEFAULT_DTYPE = "float32"
TABLE_COLUMNS = {"gpu_type": str, "dtype": str, "batch_size": int, "latency_ms": float}
"""Of a table that a user gives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchCosts:
    """What batches take on one GPU type, in one dtype and at one share of its compute units.

    Attributes:
        gpu_type: As configurations name it.
        dtype: What the model computes in.
        gpu_share: Of the GPU.
        gpu_memory_gib: Of a whole one.
        batch_sizes: Ascending, at least one.
        seconds: Of a batch of each size.
        host_s: Of it, what no share of a GPU slows: the launches; 0 where nobody knows.
        memory_gib: What a replica needs for a batch of each size; None where nobody knows.

    Raises:
        InputError: Sizes do not ascend, numbers are missing, or a time is not positive.
    """

    gpu_type: str
    dtype: str
    gpu_share: float
    gpu_memory_gib: float
    batch_sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    host_s: float = 0.0
    memory_gib: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        where = f"{self.gpu_type} in {self.dtype}"
        sizes = self.batch_sizes
        if not sizes or sizes[0] < 1 or list(sizes) != sorted(set(sizes)):
            raise InputError(f"{where}: batch sizes must ascend from at least 1, got {sizes}")
        if len(self.seconds) != len(sizes) or not all(0 < each < np.inf for each in self.seconds):
            raise InputError(
                f"{where}: every batch size needs one positive time, got {self.seconds}"
            )
        if self.memory_gib is not None and len(self.memory_gib) != len(sizes):
            raise InputError(f"{where}: every batch size needs one amount of memory")

    def seconds_at(self, batch_size: int, *, share: float) -> float:
        """Time of a batch at a share of the GPU that need not be the one these times are of.

        There the knowledge's law of shares that nobody measured holds: time goes inversely with
        the share, but for what the host takes to launch.
        """
        total = _affine(self.batch_sizes, self.seconds, batch_size)
        host = min(self.host_s, total)
        return (total - host) * self.gpu_share / share + host

    def memory_gib_at(self, batch_size: int) -> float | None:
        """What a replica needs that forms batches of this size; None where nobody knows."""
        if self.memory_gib is None:
            return None
        return _affine(self.batch_sizes, self.memory_gib, batch_size)


@dataclass(frozen=True, slots=True)
class EmulatedTimes:
    """Costs of one model on every GPU type that is emulated.

    Attributes:
        costs: One for each GPU type, dtype and share.
        source: Where they come from, in words.
    """

    costs: tuple[BatchCosts, ...]
    source: str

    def of(self, configuration: Configuration) -> BatchCosts:
        """Costs at the share that a configuration takes, or the nearest to it that there is.

        Raises:
            InputError: It names no GPU type, takes several GPUs, or nothing is known of its GPU
                type in its dtype.
        """
        if configuration.count("n_gpus", 1) > 1:
            raise InputError(
                f"n_gpus {configuration.count('n_gpus', 1)} cannot be emulated: what several GPUs "
                "gain is not known; leave it at 1"
            )
        return self._nearest(
            configuration.text("gpu_type", ""),
            configuration.text("dtype", DEFAULT_DTYPE),
            configuration.number("gpu_share", 1.0),
        )

    def check_covers(self, space: ConfigurationSpace, baseline: Configuration | None) -> None:
        """Notice before the first trial what could not be emulated.

        Raises:
            InputError: See `of`.
        """
        cells = Cells(Columns(space), cpu="")
        for cell in cells.occurring:
            gpu_type, dtype, share, _ = cells.describe(cell)
            self._nearest(gpu_type, dtype, share)
        if baseline is not None:
            self.of(baseline)

    def _nearest(self, gpu_type: str, dtype: str, share: float) -> BatchCosts:
        found = [each for each in self.costs if (each.gpu_type, each.dtype) == (gpu_type, dtype)]
        if not gpu_type:
            raise InputError("only GPUs are emulated; give the configuration a gpu_type")
        if not found:
            known = dict.fromkeys(f"{each.gpu_type} in {each.dtype}" for each in self.costs)
            raise InputError(
                f"nothing says how long {gpu_type} takes in {dtype}, so it cannot be emulated; "
                f"known are {', '.join(known)}; give a table with it, or leave it out of the space"
            )
        return min(found, key=lambda each: abs(np.log(each.gpu_share / share)))

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values, for the journal."""
        return {"source": self.source, "costs": [asdict(each) for each in self.costs]}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "EmulatedTimes":
        """Read what `to_json` wrote.

        Raises:
            InputError: A value is missing or does not fit.
        """
        try:
            return cls(tuple(_costs_of(each) for each in record["costs"]), record["source"])
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"this is no record of emulated times: {error}") from error


def _costs_of(record: Mapping[str, Any]) -> BatchCosts:
    values = dict(record)
    for name in ("batch_sizes", "seconds", "memory_gib"):
        values[name] = None if values[name] is None else tuple(values[name])
    return BatchCosts(**values)


def predicted_times(
    space: ConfigurationSpace,
    baseline: Configuration | None,
    decomposition: Decomposition,
    latencies: Latencies,
) -> EmulatedTimes:
    """What the knowledge expects of every GPU type, dtype and share of a space and its baseline.

    Args:
        space: What may be searched.
        baseline: Need not be in it.
        decomposition: The model.
        latencies: What predicts its times.

    Raises:
        InputError: The space names no GPU type, or nothing is known about one of them.
    """
    asked = _asked_of_times(space, baseline)
    cells, grid = Cells(Columns(asked), cpu=""), batch_grid(Columns(asked))
    found = cell_times(cells, grid, decomposition, latencies, ram_bytes=0.0)
    costs = tuple(_costs(cells, found, cell) for cell in found.predictions)
    times = EmulatedTimes(costs, "predicted by what is known of the model's operators")
    times.check_covers(space, baseline)
    return times


def _asked_of_times(
    space: ConfigurationSpace, baseline: Configuration | None
) -> ConfigurationSpace:
    """The values that times depend on, in every combination."""
    columns = Columns(space)
    defaults: dict[str, Value] = {
        "gpu_type": "",
        "dtype": DEFAULT_DTYPE,
        "gpu_share": 1.0,
        "batch_size": 1,
    }
    values = {name: dict.fromkeys(columns.values(name, of)) for name, of in defaults.items()}
    for name, of in defaults.items():
        if baseline is not None:
            values[name][baseline.get(name, of)] = None
    if "" in values["gpu_type"]:
        raise InputError("only GPUs are emulated; give the space and its baseline a gpu_type")
    return ConfigurationSpace.of(
        {
            "gpu_type": values["gpu_type"],
            "dtype": values["dtype"],
            "gpu_share": sorted(float(each) for each in values["gpu_share"]),
            "batch_size": sorted(int(each) for each in values["batch_size"]),
        }
    )


def _costs(cells: Cells, found: CellTimes, cell: int) -> BatchCosts:
    gpu_type, dtype, share, _ = cells.describe(cell)
    predicted = found.predictions[cell]
    return BatchCosts(
        gpu_type=gpu_type,
        dtype=dtype,
        gpu_share=share,
        gpu_memory_gib=float(predicted.device.memory_bytes) / GIB,
        batch_sizes=tuple(int(each) for each in found.batch_sizes),
        seconds=tuple(float(each) for each in np.exp(found.log_seconds[cell])),
        host_s=float(predicted.estimate.host_seconds * np.exp(predicted.log_factor)),
        memory_gib=tuple(float(each) / GIB for each in found.needed_bytes[cell]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedBatch:
    """One row of a user's table: what one batch takes on a whole GPU.

    Raises:
        InputError: The batch size or the time is not positive, or nobody knows the dtype.
    """

    gpu_type: str
    dtype: str
    batch_size: int
    latency_ms: float

    def __post_init__(self) -> None:
        if self.dtype not in DTYPE_BYTES:
            raise InputError(
                f"dtype {self.dtype!r} has no known width; known are {', '.join(DTYPE_BYTES)}"
            )
        if self.batch_size < 1 or not 0 < self.latency_ms < np.inf:
            raise InputError(
                f"batch_size and latency_ms must be positive, got {self.batch_size} and "
                f"{self.latency_ms:g}"
            )


def read_batches(text: str, file: str) -> tuple[TimedBatch, ...]:
    """The rows of a CSV text with the columns gpu_type,dtype,batch_size,latency_ms.

    Raises:
        InputError: A column or a value does not fit; the message names file and line.
    """
    return read_table(text, file, TABLE_COLUMNS, TimedBatch)


def tabled_times(
    batches: Sequence[TimedBatch], decomposition: Decomposition | None, *, source: str
) -> EmulatedTimes:
    """What a user's table says; the memory that it needs follows from the model.

    Args:
        batches: Rows in any order.
        decomposition: The model; without it no memory limit is held.
        source: Where the table comes from, in words.

    Raises:
        InputError: A batch stands twice, or the catalogue does not know a GPU.
    """
    catalogue = Catalogue.packaged()
    groups: dict[tuple[str, str], dict[int, float]] = {}
    for each in batches:
        group = groups.setdefault((each.gpu_type, each.dtype), {})
        if each.batch_size in group:
            raise InputError(
                f"{each.gpu_type} in {each.dtype} has two times for batch size {each.batch_size}; "
                "remove a row"
            )
        group[each.batch_size] = each.latency_ms / 1e3
    costs: list[BatchCosts] = []
    for (gpu_type, dtype), seconds in groups.items():
        sizes = sorted(seconds)
        memory = None
        if decomposition is not None:
            needed = replica_bytes(
                decomposition, np.array(sizes, dtype=float), dtype=dtype, kind=DeviceKind.GPU
            )
            memory = tuple(float(each) / GIB for each in needed)
        costs.append(
            BatchCosts(
                gpu_type=gpu_type,
                dtype=dtype,
                gpu_share=1.0,
                gpu_memory_gib=catalogue.gpu(gpu_type).memory_gib,
                batch_sizes=tuple(sizes),
                seconds=tuple(seconds[each] for each in sizes),
                memory_gib=memory,
            )
        )
    return EmulatedTimes(tuple(costs), source)


def _affine(sizes: Sequence[int], values: Sequence[float], size: int) -> float:
    if size <= sizes[-1]:
        return float(np.interp(size, sizes, values))
    if len(sizes) == 1:
        return values[0] * size / sizes[0]
    slope = (values[-1] - values[-2]) / (sizes[-1] - sizes[-2])
    return values[-1] + max(slope, 0.0) * (size - sizes[-1])
