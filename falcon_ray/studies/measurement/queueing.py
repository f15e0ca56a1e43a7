"""When the requests of a known service are done: its queue, worked through by arithmetic.

It knows arrivals and the seconds of batches. It does not know clocks, trials or what is measured.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from falcon_ray.space.configuration import FloatArray

IntArray = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """What became of arrivals.

    Attributes:
        done_s: When each request was done, shape (n,).
        n_batches: Batches that served them.
    """

    done_s: FloatArray
    n_batches: int


def serve_arrivals(
    arrivals_s: FloatArray, batch_s: Sequence[float], *, batch_size: int, free_s: float = 0.0
) -> Served:
    """Serve requests first come, first served, in batches of those that wait.

    A batch starts as soon as the server is free and a request waits; it takes what waits then.

    Args:
        arrivals_s: Ascending, shape (n,).
        batch_s: Seconds of the batches to come, as many as there are arrivals at least.
        batch_size: Requests that one batch holds at most.
        free_s: When the server is free for the first of them.
    """
    arrivals = arrivals_s.tolist()
    n, first, batch = len(arrivals), 0, 0
    ends_s: list[float] = []
    sizes: list[int] = []
    while first < n:
        start_s = max(free_s, arrivals[first])
        last = bisect_right(arrivals, start_s, first, min(n, first + batch_size))
        free_s = start_s + batch_s[batch]
        ends_s.append(free_s)
        sizes.append(last - first)
        first, batch = last, batch + 1
    return Served(np.repeat(np.asarray(ends_s, dtype=np.float64), sizes), batch)


@dataclass(frozen=True, slots=True, eq=False)
class Rounds:
    """Requests that a closed loop completed, in order; all shapes (n,)."""

    sent_s: FloatArray
    done_s: FloatArray


def closed_loop(
    batch_s: FloatArray, *, concurrency: int, batch_size: int, start_s: float = 0.0
) -> Rounds:
    """Requests of clients that send the next one when the last was answered.

    All are sent at `start_s` first. They fall into cohorts of one batch each, which the server
    takes in turn; a cohort is sent again when its batch is done.

    Args:
        batch_s: Seconds of each batch, shape (k,).
        concurrency: Clients, at least 1.
        batch_size: Requests that one batch holds at most.
        start_s: When the first requests are sent.
    """
    n_cohorts = -(-concurrency // batch_size)
    ends_s = start_s + np.cumsum(batch_s)
    sent_s = np.concatenate([np.full(n_cohorts, start_s), ends_s])[: ends_s.size]
    cohort = np.arange(ends_s.size) % n_cohorts
    sizes: IntArray = np.where(
        cohort < n_cohorts - 1, batch_size, concurrency - (n_cohorts - 1) * batch_size
    )
    return Rounds(np.repeat(sent_s, sizes), np.repeat(ends_s, sizes))
