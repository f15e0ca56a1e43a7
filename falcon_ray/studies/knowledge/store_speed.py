"""How fast the curve store hands a profile of 100 MB to a new reader on the same node.

The rows are made up: their values do not matter for the time, their number and types do.
"""

import statistics
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from falcon_ray.knowledge.operators.operator import Family
from falcon_ray.knowledge.profile.files import write_profile
from falcon_ray.knowledge.profile.profile import Profile
from falcon_ray.knowledge.profile.schemas import OPERATORS
from falcon_ray.runtime.curve_store import CurveStoreClient
from falcon_ray.runtime.ray_session import ray_session
from falcon_ray.runtime.store_timing import times_of_new_readers
from falcon_ray.studies.figure import Figure

SIZE_BYTES = 100e6
GOAL_MS = 10.0


def figures(*, size_bytes: float = SIZE_BYTES, n_readers: int = 15, seed: int = 0) -> list[Figure]:
    """Median times to have the profile, on the Ray that is there or a local one.

    Args:
        size_bytes: Of the profile in memory.
        n_readers: Processes that read, one after the other.
        seed: Of the made-up rows.
    """
    table = operator_rows(size_bytes, seed)
    with tempfile.TemporaryDirectory(prefix="store_speed") as directory, ray_session(None):
        location = str(Path(directory) / "profile")
        write_profile(location, Profile.of_tables({"operators": table}))
        store = CurveStoreClient(location)
        try:
            readings = times_of_new_readers(store, n_readers)
        finally:
            store.close()
    both = (*readings.given, *readings.finding)
    assert all(each.n_rows == table.num_rows for each in both)
    size = both[0].size_bytes
    given, finding = readings.given, readings.finding
    # Finding an actor by its name is Ray's time, once per process, and no handing over.
    return [
        _figure("a new process is given the reference", size, [e.first_ms for e in given], GOAL_MS),
        _figure("a new process asks the store", size, [e.first_ms for e in finding], GOAL_MS),
        _figure("that process asks again", size, [e.second_ms for e in finding], GOAL_MS),
        _figure(
            "that process found the store by name", size, [e.connect_ms for e in finding], None
        ),
    ]


def _figure(
    name: str, size_bytes: float, times_ms: list[float], at_most_ms: float | None
) -> Figure:
    return Figure(
        name=f"curve store: {name}",
        value=statistics.median(times_ms),
        unit="ms",
        at_most=at_most_ms,
        note=(
            f"{size_bytes / 1e6:.0f} MB, median of {len(times_ms)} processes on the store's node, "
            f"{min(times_ms):.1f} to {max(times_ms):.1f} ms; starts and imports not counted"
        ),
    )


def operator_rows(size_bytes: float, seed: int) -> pa.Table:
    """Made-up measurements of matrix products, all keys different, of about a size in memory."""
    sample = _rows(1000, seed)
    return _rows(round(1000 * size_bytes / sample.nbytes), seed)


def _rows(n: int, seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    dims = np.column_stack(
        (np.arange(1, n + 1), rng.integers(1, 8193, size=n), rng.integers(1, 8193, size=n))
    )
    flops = 2.0 * dims.prod(axis=1, dtype=np.float64)
    columns = {
        "op": pa.array(["linear"] * n),
        "family": pa.array([Family.LINEAR.value] * n),
        "dims": pa.array(list(dims)),
        "dtype": pa.array(rng.choice(["float32", "bfloat16"], size=n)),
        "device": pa.array(rng.choice(["A100-40G", "H100", "L4"], size=n)),
        "threads": pa.array(np.zeros(n, dtype=np.int64)),
        "share": pa.array(np.ones(n)),
        "mode": pa.array(["eager"] * n),
        "environment": pa.array(["made-up"] * n),
        "latency_us": pa.array(rng.lognormal(4.0, 1.0, size=n)),
        "relative_sd": pa.array(rng.uniform(0.005, 0.05, size=n)),
        "n": pa.array(np.full(n, 20)),
        "flops": pa.array(flops),
        "bytes": pa.array(flops / 50),
        "source": pa.array(["own"] * n),
    }
    return pa.Table.from_pydict(columns, schema=OPERATORS)
