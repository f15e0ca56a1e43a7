"""Heads of clusters as `ray start` makes them, with a dashboard that takes jobs."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.ray.conftest import OBJECT_STORE_BYTES
from tests.ray.processes import BIN, Command, free_port, own_ray

START_TIMEOUT_S = 90.0


@dataclass(frozen=True)
class Head:
    """A head that runs.

    Attributes:
        address: Of its Ray.
        dashboard: Where jobs are submitted.
        environment: Of a command that is to be let in.
    """

    address: str
    dashboard: str
    environment: Mapping[str, str]


@contextmanager
def started_head(directory: Path, *options: str, **variables: str) -> Iterator[Head]:
    """A head of its own, of which nothing is left behind.

    Args:
        directory: Where it is started; its output goes there.
        options: Further ones of `ray start`.
        variables: Of its environment, beside those of this process.
    """
    port, dashboard, client, agent = (free_port() for _ in range(4))
    with own_ray() as ray:
        environment = {
            **{name: value for name, value in ray.environment.items() if name != "PYTHONPATH"},
            # What a job calls python is the one that runs the tests.
            "PATH": f"{BIN}{os.pathsep}{ray.environment['PATH']}",
            **variables,
        }
        head = Command(
            *("ray", "start", "--head", "--block", "--port", str(port)),
            *("--include-dashboard", "true", "--dashboard-port", str(dashboard)),
            *("--ray-client-server-port", str(client)),
            *("--dashboard-agent-listen-port", str(agent)),
            *("--object-store-memory", str(OBJECT_STORE_BYTES)),
            *("--temp-dir", str(ray.directory), *options),
            environment=environment,
            directory=directory,
        )
        with head:
            head.wait_until(
                lambda: "Ray runtime started" in head.output,
                "the head runs",
                timeout_s=START_TIMEOUT_S,
            )
            try:
                yield Head(f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}", environment)
            finally:
                # SIGTERM would let it drain for 30 s.
                head.kill()
                ray.kill()
