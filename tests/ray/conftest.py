"""One local Ray for the whole session, without a dashboard or a proxy, and models to serve."""

import atexit
import logging
import os
import secrets
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.ray.processes import N_CPUS, short_directory

# Before Ray is imported, which reads them then: it answers to these tests alone.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
# What searches learn here is no knowledge of the user's.
os.environ["FALCON_RAY_PROFILE"] = tempfile.mkdtemp(prefix="falcon-ray-profile-")
atexit.register(shutil.rmtree, os.environ["FALCON_RAY_PROFILE"], ignore_errors=True)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what Ray imports is deprecated here and there
    import ray
    from ray import serve, tune  # noqa: F401 - tune, so that it is not imported with warnings

    import falcon_ray
    from falcon_ray.runtime import search_job, serve_apps  # noqa: F401 - likewise
    from falcon_ray.runtime.references import Reference

TARGETS = Path(__file__).parent / "targets"
OBJECT_STORE_BYTES = 200 * 2**20


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """Address of a Ray with two CPUs that this process is connected to."""
    directory = short_directory()
    ray.init(
        address="local",
        num_cpus=N_CPUS,
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _temp_dir=str(directory),
    )
    try:
        serve_apps.start_serve(http=True)
        yield ray.get_runtime_context().gcs_address
        serve.shutdown()
    finally:
        ray.shutdown()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def local_environment(ray_address: str) -> Mapping[str, str]:  # noqa: ARG001 - its token is set
    """Environment of a command that connects to the session's Ray."""
    return {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}


@pytest.fixture
def no_app_left(ray_address: str) -> Iterator[None]:  # noqa: ARG001 - Ray has to be there
    """Fails a test that leaves a Serve application behind, and removes that for the next one."""
    yield
    left = list(serve.status().applications)
    for name in left:
        serve_apps.delete(name, timeout_s=30)
    assert left == []


@pytest.fixture(scope="session")
def targets() -> Path:
    """A directory with a user's files: tiny.py and echo.py."""
    return TARGETS


@pytest.fixture(scope="session")
def tiny_search(
    ray_address: str,  # noqa: ARG001 - Ray has to be there
    tmp_path_factory: pytest.TempPathFactory,
) -> falcon_ray.SearchResult:
    """A finished search on tiny.py: three trials, and the confirmation of what it found."""
    return falcon_ray.search(
        model=f"{TARGETS}/tiny.py:tiny",
        search_space={
            "cpu_cores": [1],
            "batch_size": [1, 2, 4],
            "batch_wait_ms": [0],
            "dtype": ["float32", "bfloat16"],
            "replicas": [1],
        },
        max_trials=3,
        warm_up_s=0.5,
        measure_s=1.0,
        output_dir=tmp_path_factory.mktemp("search") / "run",
    )


def target_reference(file: str, name: str) -> Reference:
    """What a user names by `file:name` in the directory of the targets."""
    return Reference(f"{TARGETS / file}:{name}", str(TARGETS))
