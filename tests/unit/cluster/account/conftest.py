"""Every test here has an account of its own, and no way to a real one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.clients import Clients
from cluster.state.directory import StateDirectory
from tests.unit.cluster.account import emulated


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of nobody, before any client is made."""
    for name, value in emulated.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)


@pytest.fixture
def clients() -> Iterator[Clients]:
    """Of a fresh account."""
    with emulated.account():
        yield emulated.connect()


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    """What this machine keeps of the cluster: nothing yet."""
    return StateDirectory(tmp_path / "clusters", emulated.NAME)


@pytest.fixture
def time() -> emulated.FakeTime:
    """Goes on only by pauses."""
    return emulated.FakeTime()
