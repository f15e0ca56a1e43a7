"""A cluster of emulated GPUs, with Serve and a store, for searches in processes of their own.

It knows how such a cluster is started, and what searches may not leave on it. It does not know
what happens to them.
"""

import itertools
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from falcon_ray.knowledge.profile.files import append_profile, read_profile
from falcon_ray.knowledge.profile.profile import Profile
from falcon_ray.runtime import serve_apps
from falcon_ray.runtime.curve_store import CurveStoreClient
from falcon_ray.runtime.emulated.cluster import emulated_cluster
from falcon_ray.runtime.ray_session import ray_session
from falcon_ray.runtime.testbed import cluster_faults
from falcon_ray.runtime.testbed.leftovers import Inventory, inventory
from falcon_ray.studies.knowledge.store_speed import operator_rows

GPU_TYPES = ("T4", "L4", "A100")
MODEL = "vgg16"
SPACE = (
    *("--search-space", "batch_size=1,2", "--search-space", "gpu_share=1"),
    *("--search-space", "gpu_memory_gib=3.5", "--search-space", "cpu_cores=1"),
    *("--search-space", "dtype=float32", "--search-space", "replicas=1"),
    *("--search-space", "batch_wait_ms=0"),
)
"""One candidate for each type of GPU and each size of a batch."""
SETTLE_S = 60.0
"""What a search used may take so long to be gone."""
CLEAN_UP_S = 20.0
_POLL_S = 0.5
_NOBODYS_GPU = "made-up"


@dataclass(frozen=True, slots=True)
class Site:
    """The connected cluster and where searches on it keep their files.

    Attributes:
        address: Of the cluster.
        directory: Of runs.
        store: Where the cluster keeps its knowledge.
        stack: Ends with the cluster.
        numbers: Of the runs.
    """

    address: str
    directory: Path
    store: Path
    stack: ExitStack
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def new_run(self) -> Path:
        """A directory for one search."""
        return self.directory / f"run-{next(self.numbers)}"

    def store_version(self) -> str:
        """Version of what the cluster knows, as its store says."""
        return CurveStoreClient(str(self.store)).version()

    def left_behind(self, before: Inventory) -> tuple[str, ...]:
        """What a search has left, once it had time to go."""
        deadline = time.monotonic() + SETTLE_S
        while left := self._left_since(before):
            if time.monotonic() > deadline:
                return left
            time.sleep(_POLL_S)
        return ()

    def _left_since(self, before: Inventory) -> tuple[str, ...]:
        found = list(inventory().left_since(before))
        found += [f"leases: {n} of {line}" for line, n in cluster_faults.leases().items()]
        there = cluster_faults.gpu_types()
        if there != tuple(sorted(GPU_TYPES)):
            found.append(f"nodes: {', '.join(there)}")
        return tuple(found)


@contextmanager
def site(directory: Path) -> Iterator[Site]:
    """Start a cluster of emulated GPUs with Serve and a store that knows something.

    Args:
        directory: Of runs and of the store, which may be there.
    """
    store = directory / "store"
    directory.mkdir(exist_ok=True)
    teach(store)
    with (
        emulated_cluster(GPU_TYPES) as address,
        ray_session(address),
        ExitStack() as stack,
    ):
        serve_apps.start_serve()
        try:
            yield Site(address, directory, store, stack)
        finally:
            serve_apps.delete_all("falcon-", timeout_s=CLEAN_UP_S)
            serve_apps.end_serve()


def teach(store: Path) -> str:
    """Give a store rows that no search makes use of; its version with them."""
    rows = operator_rows(1000.0, seed=0)
    index = rows.schema.get_field_index("device")
    devices = pa.array([_NOBODYS_GPU] * rows.num_rows, rows.schema.field(index).type)
    named = rows.set_column(index, rows.schema.field(index), devices)
    append_profile(store, Profile.of_tables({"operators": named}))
    return read_profile(store).version
