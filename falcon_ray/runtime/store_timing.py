"""How long the curve store takes to hand its profile to a reader in another process.

It measures what `studies/knowledge/store_speed.py` reports; it does not know the goals.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import ray

from falcon_ray.knowledge.profile.profile import Profile
from falcon_ray.runtime.curve_store import CurveStoreClient


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingTimes:
    """Times of one reader, in milliseconds.

    Attributes:
        connect_ms: To find the store; 0 for a reader that was given a reference.
        first_ms: To have the profile, from then on.
        second_ms: To have it again.
        size_bytes: Of the tables that were handed over.
        n_rows: In the table of operators, so that what was read is known to be it.
    """

    connect_ms: float
    first_ms: float
    second_ms: float
    size_bytes: int
    n_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """Times of several readers, each a process that has not read before.

    Attributes:
        given: They were given the store's reference, as tasks are.
        finding: They knew only the location, as another driver does, and asked the store twice.
    """

    given: tuple[ReadingTimes, ...]
    finding: tuple[ReadingTimes, ...]


def times_of_new_readers(client: CurveStoreClient, n_readers: int) -> Readings:
    """Let one new process after the other read the profile that a store holds.

    The start of a process and its imports are not counted.

    Args:
        client: Of the store.
        n_readers: How many of each kind.
    """
    client.profile()  # from here on the store has merged and put this version
    # max_calls: a worker ends after its task, so that the next reader is a new process.
    task = ray.remote(num_cpus=0, max_calls=1)
    read_given, read_finding = task(_read_given), task(_read_finding)
    given: list[ReadingTimes] = []
    finding: list[ReadingTimes] = []
    for _ in range(n_readers):
        # In a list, so that Ray leaves it to the reader to get the profile.
        given.append(ray.get(read_given.remote([client.reference()])))
        finding.append(ray.get(read_finding.remote(client.location)))
    return Readings(given=tuple(given), finding=tuple(finding))


def _read_given(references: list[ray.ObjectRef]) -> ReadingTimes:
    return _read(lambda: lambda: ray.get(references[0]))


def _read_finding(location: str) -> ReadingTimes:
    return _read(lambda: CurveStoreClient(location).profile)


def _read(connect: Callable[[], Callable[[], Profile]]) -> ReadingTimes:
    started = time.perf_counter()
    read = connect()
    connect_s = time.perf_counter() - started
    started = time.perf_counter()
    profile = read()
    operators = profile.operators
    first_s = time.perf_counter() - started
    started = time.perf_counter()
    read()
    second_s = time.perf_counter() - started
    return ReadingTimes(
        connect_ms=1e3 * connect_s,
        first_ms=1e3 * first_s,
        second_ms=1e3 * second_s,
        size_bytes=sum(part.rows.nbytes for part in profile.parts),
        n_rows=operators.num_rows,
    )
