"""Every request of a trial, kept as one Parquet file in the run directory.

Trials run anywhere on the cluster, and the run directory lies where the search runs: the file is
made where the trial is, and written there. Records are for people and for later questions;
nothing in a search depends on them, so that what cannot be kept is said and passed over.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from falcon_ray.space.configuration import Configuration
from falcon_ray.trial.requests import RequestLog

logger = logging.getLogger(__name__)

FOLDER = "requests"
MAX_REQUESTS = 2_000_000
"""Of more requests than these a random part is kept: a file of 33 MB."""
WRITE_TIMEOUT_S = 60.0
FIRST_PHASE = "deploying"
"""What `TrialRecipe` says first in each attempt."""

UNITS = {
    "phase": "warm_up, saturation, single_stream or offered",
    "attempt": "1 for the first; a further one is made when the infrastructure failed",
    "offered_rps": "requests per second that were offered; null in closed loop",
    "intended_s": "seconds from when the first request was due: when this one was due",
    "sent_s": "seconds from then: when the client sent it",
    "done_s": "seconds from then: when its answer was complete, or its failure was noticed",
    "ok": "whether it succeeded",
}
SCHEMA = pa.schema(
    [
        pa.field("phase", pa.dictionary(pa.int8(), pa.string())),
        pa.field("attempt", pa.int8()),
        pa.field("offered_rps", pa.float64()),
        pa.field("intended_s", pa.float64()),
        pa.field("sent_s", pa.float64()),
        pa.field("done_s", pa.float64()),
        pa.field("ok", pa.bool_()),
    ]
)
_PARQUET: Any = pyarrow.parquet  # its stubs leave half of the types open


@dataclass(frozen=True, slots=True)
class _Part:
    """The requests of one report."""

    phase: str
    attempt: int
    offered_rps: float | None
    log: RequestLog


@dataclass(slots=True)
class RequestRecords:
    """The requests of one trial, its attempts kept apart.

    A request takes 24 bytes, which are three times, and little more for what many have in
    common; in the file about two thirds of that.
    """

    _parts: list[_Part] = field(default_factory=list[_Part])
    _attempt: int = 0

    def watching(self, on_phase: Callable[[str], None]) -> Callable[[str], None]:
        """The same listener to a trial's phases, which also begins an attempt with a deployment."""

        def heard(phase: str) -> None:
            if phase == FIRST_PHASE:
                self._attempt += 1
            on_phase(phase)

        return heard

    def add(self, phase: str, offered_rps: float | None, log: RequestLog) -> None:
        """Take in requests; see `TrialRecipe`'s `on_requests`."""
        if log.n:
            self._parts.append(_Part(phase, max(self._attempt, 1), offered_rps, log))

    @property
    def n(self) -> int:
        """Requests so far."""
        return sum(part.log.n for part in self._parts)

    def table(self, configuration: Configuration, *, most: int = MAX_REQUESTS) -> pa.Table:
        """All requests, or a random part of `most`, in the order in which they were reported.

        The metadata holds the configuration as JSON, the units, and how many requests there were.
        """
        logs = RequestLog.concat(part.log for part in self._parts)
        zero_s = float(logs.intended_s.min()) if logs.n else 0.0
        names = list(dict.fromkeys(part.phase for part in self._parts))
        phases = self._repeated([names.index(part.phase) for part in self._parts], np.int8)
        offered = self._repeated(
            [np.nan if part.offered_rps is None else part.offered_rps for part in self._parts],
            np.float64,
        )
        table = pa.table(
            [
                pa.DictionaryArray.from_arrays(phases, pa.array(names, pa.string())),
                pa.array(self._repeated([part.attempt for part in self._parts], np.int8)),
                pa.array(offered, mask=np.isnan(offered)),
                *(pa.array(each - zero_s) for each in (logs.intended_s, logs.sent_s, logs.done_s)),
                pa.array(logs.ok),
            ],
            schema=SCHEMA.with_metadata(
                {
                    "configuration": json.dumps(dict(configuration)),
                    "units": json.dumps(UNITS),
                    "n_requests": str(logs.n),
                }
            ),
        )
        if logs.n <= most:
            return table
        kept = np.random.default_rng(logs.n).choice(logs.n, size=most, replace=False)
        return table.take(np.sort(kept))

    def parquet(self, configuration: Configuration) -> bytes:
        """What `table` gives, as a compressed Parquet file."""
        sink = pa.BufferOutputStream()
        _PARQUET.write_table(
            self.table(configuration),
            sink,
            compression="zstd",
            use_dictionary=["phase", "attempt", "offered_rps"],
            # Neighbouring times share their first bytes, which compress apart from the others.
            use_byte_stream_split=["intended_s", "sent_s", "done_s"],
        )
        return sink.getvalue().to_pybytes()

    def _repeated(self, values: list[Any], dtype: type[np.generic]) -> np.ndarray[Any, Any]:
        """One value per request from one per part."""
        counts = np.array([part.log.n for part in self._parts], dtype=np.intp)
        return np.repeat(np.array(values, dtype=dtype), counts)


@dataclass(frozen=True, slots=True)
class RequestFolder:
    """Where a search keeps the requests of its trials; it may be sent to the nodes they run on.

    Attributes:
        directory: The run directory, an absolute path of the search's own node.
        write: Writes a file there.
    """

    directory: Path
    write: Callable[[Path, bytes], None]

    @classmethod
    def here(cls, directory: Path) -> "RequestFolder":
        """In a run directory on this node."""
        return cls(directory.absolute(), _WriterOn(ray.get_runtime_context().get_node_id()))

    def path(self, name: str) -> Path:
        """The file of one trial."""
        return self.directory / FOLDER / f"{name}.parquet"

    @contextmanager
    def recording(self, name: str, configuration: Configuration) -> Iterator[RequestRecords]:
        """Collect the requests of a trial, and write them when it ends, unless by an exception."""
        records = RequestRecords()
        yield records
        if not records.n:
            return
        path = self.path(name)
        try:
            self.write(path, records.parquet(configuration))
        except (OSError, RayError) as error:
            logger.warning("the requests of %s were not kept in %s: %s", name, path, error)


@dataclass(frozen=True, slots=True)
class _WriterOn:
    """Writes on one node, from whichever node it is called on."""

    node_id: str

    def __call__(self, path: Path, data: bytes) -> None:
        if ray.get_runtime_context().get_node_id() == self.node_id:
            write_whole(path, data)
            return
        there = NodeAffinitySchedulingStrategy(self.node_id, soft=False)
        task = _write_there.options(scheduling_strategy=there).remote(path, data)
        ray.get(task, timeout=WRITE_TIMEOUT_S)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that readers see all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    try:
        with unfinished.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@ray.remote(num_cpus=0, max_retries=0)
def _write_there(path: Path, data: bytes) -> None:
    write_whole(path, data)
