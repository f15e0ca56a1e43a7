"""What may end a search early, turned into one line that says how to go on.

It knows signals and Ray's errors. It does not know what a search does.
"""

import shlex
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from falcon_ray.errors import ClusterError, SearchInterruptedError
from falcon_ray.report.record import read_search
from falcon_ray.runtime.ray_session import Cluster


@contextmanager
def resumable(directory: Path, cluster: Cluster) -> Iterator[None]:
    """Say how to go on, whatever ends a search that has a journal."""
    command = f"falcon-ray search --resume {shlex.quote(str(directory))}"
    try:
        with _sigterm_as_interrupt(cluster):
            yield
    except KeyboardInterrupt:
        n_trials = len(read_search(directory).trials)
        raise SearchInterruptedError(
            f"interrupted after {n_trials} trials; go on with: {command}"
        ) from None
    except (RayError, RayServeException) as error:
        raise ClusterError(
            f"Ray failed: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}; "
            f"mend that, then go on with: {command}"
        ) from error
    except ClusterError as error:
        raise ClusterError(f"{error}; mend that, then go on with: {command}") from error


@contextmanager
def _sigterm_as_interrupt(cluster: Cluster) -> Iterator[None]:
    """Let SIGTERM end a search as Ctrl-C does; only the main thread can receive either.

    SIGTERM often goes to a whole process group, and so to a Ray of our own as well, which
    unlike SIGINT it ends: then nothing there may be waited for.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(signal_number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if cluster.is_local:
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
