"""No Ray is started here; what Ray warns of when it is imported is not ours to mend."""

import sys
import warnings
from collections.abc import Iterator

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from falcon_ray.runtime import search_job  # noqa: F401 - imports all of Ray that we use


@pytest.fixture(autouse=True)
def _imports_forgotten() -> Iterator[None]:
    """What a test makes importable, and the modules of users that it imports, are gone after it."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    added = [each for each in sys.path if each not in path]
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if any(file.startswith(directory) for directory in added):
            del sys.modules[name]
