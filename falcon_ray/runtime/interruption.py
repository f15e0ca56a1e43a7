"""What may end a search early, turned into one line that says how to go on.

It knows signals and Ray's errors. It does not know what a search does.
"""

import os
import shlex
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType

import ray
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from falcon_ray.errors import ClusterError, SearchInterruptedError
from falcon_ray.report.record import read_search
from falcon_ray.runtime.job_package import is_job
from falcon_ray.runtime.last_words import last_words
from falcon_ray.runtime.ray_session import Cluster
from falcon_ray.runtime.signal_watchdog import ended_by_force

GRACE_S = 12.0
"""From SIGTERM to the end of a search and of its own Ray. Where the whole group was told, and so
the Ray too, leaving it takes some 9 s: its client waits 5 s for a server that is gone."""


@contextmanager
def resumable(directory: Path, cluster: Cluster) -> Iterator[None]:
    """Say how to go on, whatever ends a search that has a journal."""
    command = resume_command(directory)

    def interrupted() -> str:
        n_trials = len(read_search(directory).trials)
        return f"interrupted after {n_trials} trials; go on with: {command}"

    gone = (
        "falcon-ray: the search's process was ended, by Ray where its node is gone or by the "
        f"system where memory is short; go on with: {command}"
    )
    try:
        with last_words(gone) as others_were_said:

            def cut_off() -> str:
                others_were_said()
                return f"falcon-ray: {interrupted()}"

            with _sigterm_as_interrupt(cluster, cut_off):
                yield
    except KeyboardInterrupt:
        raise SearchInterruptedError(interrupted()) from None
    except (RayError, RayServeException) as error:
        raise ClusterError(
            f"Ray failed: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}; "
            f"mend that, then go on with: {command}"
        ) from error
    except ClusterError as error:
        raise ClusterError(f"{error}; mend that, then go on with: {command}") from error


def resume_command(directory: Path, environment: Mapping[str, str] = os.environ) -> str:
    """What to run to go on with a search, for a person or, of a job, for the next job."""
    quoted = shlex.quote(str(directory))
    if is_job(environment):
        return (
            "ray job submit --address ... --working-dir . -- python scripts/search.py "
            f"--resume {quoted}"
        )
    return f"falcon-ray search --resume {quoted}"


@contextmanager
def _sigterm_as_interrupt(cluster: Cluster, last_words: Callable[[], str]) -> Iterator[None]:
    """Let SIGTERM end a search as Ctrl-C does; only the main thread can receive either.

    SIGTERM often goes to a whole process group, and so to a Ray of our own as well, which
    unlike SIGINT it ends: then nothing there may be waited for. What waits all the same, for a
    minute and deaf to signals, is cut off.
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
        with _own_ray_ended_in_time(last_words) if cluster.is_local else nullcontext():
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _own_ray_ended_in_time(last_words: Callable[[], str]) -> Iterator[None]:
    """Bound the time from SIGTERM until our own Ray is shut down, as that may hang as well."""
    with ended_by_force(
        signal.SIGTERM,
        after_s=GRACE_S,
        last_words=last_words,
        exit_code=SearchInterruptedError.exit_code,
    ):
        try:
            yield
        except KeyboardInterrupt:
            ray.shutdown()
            raise
