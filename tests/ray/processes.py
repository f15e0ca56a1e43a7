"""Processes that tests start: waiting for what they do, and seeing that none survives."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import psutil

N_CPUS = 2
"""What every Ray of these tests has, whatever the machine."""
POLL_S = 0.02
AGENTS = frozenset({"ray::DashboardAgent", "ray::RuntimeEnvAgent"})
"""Of Ray's own; when its head is killed they try for 60 s to tell it so before they end."""
RAY_WORKER_PORTS = range(10002, 20000)
BIN = Path(sys.executable).parent

T = TypeVar("T")


def wait_until(condition: Callable[[], T | None], what: str, *, timeout_s: float) -> T:
    """What `condition` gives once that is true.

    Raises:
        TimeoutError: It never was within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:g} s in vain until {what}")
        time.sleep(POLL_S)
    return value


def short_directory() -> Path:
    """A new directory for Ray, whose sockets' paths must not exceed 107 characters."""
    return Path(tempfile.mkdtemp(prefix="fr", dir="/tmp"))


def free_port() -> int:
    """A port of the loopback interface that is free now and none of those that Ray picks from."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port not in RAY_WORKER_PORTS:
            return port


@dataclass(frozen=True)
class OwnRay:
    """Where one more local Ray lives, and the environment of the process that starts it."""

    directory: Path
    environment: Mapping[str, str]

    def processes(self) -> dict[int, str]:
        """Command line by process id of every process of this Ray, its driver included.

        They are known by the directory: it stands in what they were started with, or they
        write their log there. Some overwrite their environment when they name themselves.
        """
        found: dict[int, str] = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
                line = " ".join(process.cmdline())
                environment = process.environ()
                files = [each.path for each in process.open_files()]
                told = [line, environment.get("RAY_TMPDIR", ""), *files]
                if any(str(self.directory) in each for each in told):
                    found[process.pid] = line.strip()[:200]
        return found

    def wait_until_gone(self, *, timeout_s: float, was_killed: bool = False) -> None:
        """Return once no process is left; what is left after `timeout_s` is killed and told.

        Args:
            timeout_s: Longest time to wait.
            was_killed: Whether the driver could not end its Ray: then Ray's agents, which go
                late, are ended here and not waited for.

        Raises:
            AssertionError: Processes were left.
        """

        def left() -> dict[int, str]:
            ignored = AGENTS if was_killed else frozenset()
            return {pid: line for pid, line in self.processes().items() if line not in ignored}

        try:
            wait_until(lambda: not left(), "Ray was gone", timeout_s=timeout_s)
        except TimeoutError:
            raise AssertionError(f"still there after {timeout_s:g} s: {left()}") from None
        finally:
            self.kill()

    def kill(self) -> None:
        """End what is left of it."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextmanager
def own_ray() -> Iterator[OwnRay]:
    """Room for one more local Ray, of which nothing is left behind."""
    directory = short_directory()
    environment = {
        **{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
        "RAY_TMPDIR": str(directory),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        # As many CPUs as the session's Ray has: a search goes on only on nodes of the same kind.
        "RAY_OVERRIDE_RESOURCES": json.dumps({"CPU": N_CPUS}),
    }
    ray = OwnRay(directory, environment)
    try:
        yield ray
        ray.wait_until_gone(timeout_s=30)
    finally:
        ray.kill()
        shutil.rmtree(directory, ignore_errors=True)


class Command:
    """A running command that writes all it says into one file.

    It leads a process group of its own, as a command in a terminal does.
    """

    def __init__(
        self, program: str, *arguments: str, environment: Mapping[str, str], directory: Path
    ) -> None:
        self._output = directory / f"{program}-{secrets.token_hex(4)}.log"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [BIN / program, *arguments],
                cwd=directory,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """What it has said so far."""
        return self._output.read_text(errors="replace")

    def wait_until(self, condition: Callable[[], T | None], what: str, *, timeout_s: float) -> T:
        """As the function of that name, and an error at once if the command ends before."""

        def condition_or_end() -> T | None:
            value = condition()
            if not value and self._process.poll() is not None:
                raise AssertionError(
                    f"it ended with {self._process.returncode} before {what}:\n{self.output}"
                )
            return value

        try:
            return wait_until(condition_or_end, what, timeout_s=timeout_s)
        except TimeoutError as error:
            raise AssertionError(f"{error}; it said:\n{self.output}") from error

    def press_ctrl_c(self) -> None:
        """Interrupt the whole process group, as a terminal does."""
        self.send_to_group(signal.SIGINT)

    def send_to_group(self, signal_number: signal.Signals) -> None:
        """Send a signal to the process and to all that it started in its group."""
        os.killpg(self._process.pid, signal_number)

    def kill(self) -> None:
        """End the process, and it alone, in a way that it cannot notice."""
        self._process.kill()
        self._process.wait()

    def wait(self, *, timeout_s: float) -> int:
        """The exit code, once it has ended."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"still running after {timeout_s:g} s:\n{self.output}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.kill()
