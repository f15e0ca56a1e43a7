"""The curve store on a real Ray: what it holds outlives its readers, its writers and itself."""

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray

from falcon_ray.errors import ClusterError, InputError
from falcon_ray.knowledge.profile.files import append_part, read_profile
from falcon_ray.knowledge.profile.schemas import MODELS
from falcon_ray.runtime.curve_store import ACTOR_NAME, NAMESPACE, CurveStoreClient
from tests.ray.processes import wait_until

pytestmark = pytest.mark.ray


def models(*batch_sizes: int, latency_us: float = 100.0) -> dict[str, pa.Table]:
    """Measured rows of a model, one per batch size."""
    row = {
        "model": "tiny",
        "dtype": "float32",
        "device": "cpu",
        "threads": 1,
        "share": 1.0,
        "mode": "eager",
        "environment": "here",
        "latency_us": latency_us,
        "relative_sd": 0.01,
        "n": 5,
        "peak_memory_bytes": None,
        "source": "own",
    }
    rows = [{**row, "batch_size": each} for each in batch_sizes]
    return {"models": pa.Table.from_pylist(rows, schema=MODELS)}


def batch_sizes(table: pa.Table) -> set[int]:
    return {int(str(each)) for each in table.column("batch_size").to_pylist()}


@pytest.fixture
def store(ray_address: str, tmp_path: Path) -> Iterator[CurveStoreClient]:  # noqa: ARG001
    """A store that flushes when it is told to, and is gone afterwards."""
    client = CurveStoreClient(str(tmp_path / "profile"), flush_s=3600.0)
    yield client
    client.close()


@ray.remote(num_cpus=0)
def seen_by_task(client: CurveStoreClient) -> set[int]:
    return batch_sizes(client.profile().models)


@ray.remote(num_cpus=0)
def added_by_task(client: CurveStoreClient, batch_size: int) -> str:
    return client.add(models(batch_size))


def kill_process() -> None:
    """End the actor's process in a way that it cannot notice."""
    actor: Any = ray.get_actor(ACTOR_NAME, namespace=NAMESPACE)
    pid: Any = ray.get(actor.__ray_call__.remote(_pid))
    os.kill(pid, signal.SIGKILL)


def _pid(_: object) -> int:
    return os.getpid()


def test_what_one_client_adds_another_one_reads(store: CurveStoreClient) -> None:
    version = store.add(models(1, 2))
    other = CurveStoreClient(store.location)
    assert batch_sizes(other.profile().models) == {1, 2}
    assert other.profile().sources["own"].licence == "own measurement"
    assert other.version() == store.version() == version


def test_a_task_reads_and_adds_through_the_client_it_is_sent(store: CurveStoreClient) -> None:
    store.add(models(1))
    ray.get(added_by_task.remote(store, 2))
    assert ray.get(seen_by_task.remote(store)) == {1, 2}


def test_the_same_version_is_handed_out_once(store: CurveStoreClient) -> None:
    store.add(models(1))
    first = store.profile()
    assert store.profile() is first
    store.add(models(2))
    assert store.profile() is not first


def test_nothing_is_on_disk_before_a_flush_and_everything_after(store: CurveStoreClient) -> None:
    version = store.add(models(1))
    assert read_profile(store.location, missing_ok=True).is_empty
    assert store.flush() == version
    assert read_profile(store.location).version == version


def test_what_is_added_is_soon_on_disk_by_itself(
    ray_address: str,  # noqa: ARG001
    tmp_path: Path,
) -> None:
    store = CurveStoreClient(str(tmp_path / "profile"), flush_s=0.05)
    version = store.add(models(1))
    wait_until(
        lambda: read_profile(store.location, missing_ok=True).version == version,
        "the store flushes",
        timeout_s=10,
    )
    store.close()


def test_a_killed_store_loses_nothing_that_was_flushed(store: CurveStoreClient) -> None:
    store.add(models(1))
    version = store.flush()
    before = store.profile()
    kill_process()
    assert store.version() == version
    assert store.profile() is before  # the version says that it is the same
    assert batch_sizes(CurveStoreClient(store.location).profile().models) == {1}
    store.add(models(2))
    assert batch_sizes(store.profile().models) == {1, 2}


def test_concurrent_adders_lose_nothing(store: CurveStoreClient) -> None:
    n = 24
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda each: store.add(models(each)), range(1, n + 1)))
    ray.get([added_by_task.remote(store, each) for each in range(n + 1, n + 5)])
    store.flush()
    assert batch_sizes(read_profile(store.location).models) == set(range(1, n + 5))


def test_what_is_added_twice_counts_once(store: CurveStoreClient) -> None:
    version = store.add(models(1))
    assert store.add(models(1)) == version
    store.flush()
    assert store.add(models(1)) == version
    assert store.profile().models.column("n").to_pylist() == [5]


def test_rows_written_by_others_are_seen(store: CurveStoreClient) -> None:
    append_part(store.location, models(7))
    wait_until(lambda: batch_sizes(store.profile().models) == {7}, "the store looks", timeout_s=15)


def test_rows_that_cannot_be_are_refused_in_one_line(store: CurveStoreClient) -> None:
    with pytest.raises(InputError, match=r"^the rows given: models: latency_us must be positive"):
        store.add(models(1, latency_us=-1.0))
    unsourced = (
        models(1)["models"]
        .drop_columns("source")
        .append_column(MODELS.field("source"), pa.array(["somewhere"]))
    )
    with pytest.raises(InputError, match=r"^[^\n]*the source 'somewhere'[^\n]*$"):
        store.add({"models": unsourced})


def test_a_second_location_is_refused_and_both_are_named(
    store: CurveStoreClient, tmp_path: Path
) -> None:
    other = str(tmp_path / "other")
    with pytest.raises(InputError, match=r"keeps its profile at .*profile, not at .*other"):
        CurveStoreClient(other)
    assert store.version()


def test_an_unwritable_location_is_an_error_and_no_dead_actor(
    ray_address: str,  # noqa: ARG001
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"^[^\n]*file/profile cannot be written[^\n]*$"):
        CurveStoreClient(str(tmp_path / "file" / "profile"))
    store = CurveStoreClient(str(tmp_path / "profile"))
    assert store.profile().is_empty
    store.close()


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class _Broken:
    """A store that goes wrong in every way."""

    def opened(self) -> tuple[str, None]:
        return "here", None

    def version(self) -> str:
        raise ZeroDivisionError("first line\nsecond line")

    def flush(self) -> None:
        threading.Event().wait()

    def end(self) -> None:
        os._exit(1)


@pytest.fixture
def broken(ray_address: str) -> Iterator[object]:  # noqa: ARG001
    """The handle of such a store's actor."""
    actor_class: Any = _Broken
    actor = actor_class.remote()
    yield actor
    ray.kill(actor)


def test_a_fault_of_the_store_is_one_line(broken: object) -> None:
    message = r"^[^\n]*/here failed: ZeroDivisionError: first line; look at [^\n]*$"
    with pytest.raises(ClusterError, match=message):
        CurveStoreClient("/here", actor=broken).version()


@ray.remote(num_cpus=0)
def told_by_flush(client: CurveStoreClient) -> str:
    try:
        return client.flush()
    except ClusterError as error:
        return str(error)


def test_a_call_takes_no_longer_than_allowed_also_in_tasks(broken: object) -> None:
    impatient = CurveStoreClient("/here", actor=broken, timeout_s=0.5)
    assert "did not answer within 0.5 s" in ray.get(told_by_flush.remote(impatient))


def test_a_store_that_breaks_while_it_ends_is_not_taken_for_closed(
    broken: object,
) -> None:
    with pytest.raises(ClusterError, match="/here broke 3 times while it was to end"):
        CurveStoreClient("/here", actor=broken).close()


def test_a_closed_store_starts_again_with_what_it_had(store: CurveStoreClient) -> None:
    store.add(models(1))
    store.close()
    assert batch_sizes(store.profile().models) == {1}


def test_a_profile_whose_store_died_can_still_be_read(store: CurveStoreClient) -> None:
    store.add(models(1, 2, 3))
    profile = store.profile()
    store.flush()
    kill_process()
    assert batch_sizes(profile.models) == {1, 2, 3}
