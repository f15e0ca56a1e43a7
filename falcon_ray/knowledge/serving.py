"""From the time of a batch to what a deployment delivers: rates and latencies under load.

A replica takes the requests that wait, at most a batch of them, and computes; while it does,
the next ones wait. The module knows service times and queues. It does not know models, devices
or prices.
"""

from dataclasses import dataclass

import numpy as np

from falcon_ray.space.configuration import FloatArray, IndexArray
from falcon_ray.space.objective import Slo

_SAFE_LOAD = 0.9
"""Assumed share of a replica's saturation at which random arrivals still meet the percentile."""
_CYCLES_WAITED = 2.0
"""A request that arrives just too late for a batch waits for it, and then for its own."""
_OVERLOADED_S = 10.0
"""For so long a rate is offered before its latency is looked at; a queue grows all that time."""


@dataclass(frozen=True, slots=True)
class BatchTimes:
    """Seconds of one batch by its size, for g groups of configurations that share a device.

    Attributes:
        batch_sizes: Ascending, shape (b,).
        seconds: Shape (g, b).
    """

    batch_sizes: FloatArray
    seconds: FloatArray


def saturation_rps(
    times: BatchTimes, *, group: IndexArray, batch: IndexArray, replicas: FloatArray
) -> FloatArray:
    """Requests per second with every batch full.

    Args:
        times: Of one replica.
        group: Row of `times.seconds` of each of n configurations, shape (n,).
        batch: Column of it, shape (n,).
        replicas: Shape (n,).
    """
    rate = times.batch_sizes[None, :] / times.seconds
    return replicas * rate[group, batch]


def floor_latency_ms(
    times: BatchTimes, *, group: IndexArray, batch: IndexArray, batch_wait_ms: FloatArray
) -> FloatArray:
    """Latency of a request that finds the service idle: it waits for company, then runs alone.

    Args:
        times: Of one replica; the first batch size stands for a lone request.
        group: Shape (n,).
        batch: Largest batch of each configuration, as a column; a batch of one never waits.
        batch_wait_ms: Shape (n,).
    """
    alone = np.asarray(1e3 * times.seconds[group, 0])
    return alone + np.where(times.batch_sizes[batch] > 1, batch_wait_ms, 0.0)


def capacity_rps(
    times: BatchTimes,
    slo: Slo,
    *,
    group: IndexArray,
    batch: IndexArray,
    replicas: FloatArray,
) -> FloatArray:
    """Highest rate at which nearly all requests stay within the latency budget.

    The service settles at the batch size that the load fills. A request then takes up to two
    batches' time, its own and the one before, and the highest rate is that of the largest
    batch for which this fits the budget; at that rate batches fill without waiting. Where not
    even a lone request fits, the rate of a batch of one is returned: `floor_latency_ms` says
    that the budget is broken.

    Args:
        times: Of one replica.
        slo: The latency budget.
        group: Shape (n,).
        batch: Largest batch that a replica forms, as a column of `times`, shape (n,).
        replicas: Shape (n,).
    """
    budget_s = slo.latency_budget_ms / 1e3
    rate = _SAFE_LOAD * times.batch_sizes[None, :] / times.seconds
    fits = _CYCLES_WAITED * times.seconds <= budget_s
    # Best rate among the batch sizes up to each, shape (g, b).
    best = np.maximum.accumulate(np.where(fits, rate, 0.0), axis=1)
    best = np.maximum(best, rate[:, :1])
    return replicas * best[group, batch]


def latency_at_rate_ms(
    times: BatchTimes,
    rate_rps: float,
    *,
    group: IndexArray,
    batch: IndexArray,
    replicas: FloatArray,
) -> FloatArray:
    """Latency that nearly all requests stay within when a rate is offered.

    Two batches' time, as in `capacity_rps`, of the smallest batch that keeps up with the rate.
    Where none does, the queue grows: of what arrives in a while, the last waits for the share
    that was not served meanwhile.

    Args:
        times: Of one replica.
        rate_rps: Offered to all replicas together.
        group: Shape (n,).
        batch: Largest batch that a replica forms, as a column of `times`, shape (n,).
        replicas: Shape (n,).
    """
    served = _SAFE_LOAD * times.batch_sizes[None, :] / times.seconds
    latency_s = np.empty(group.size)
    for count in np.unique(replicas):
        here = np.flatnonzero(replicas == count)
        share_rps = rate_rps / count
        # The smallest batch that keeps up, else the largest that is allowed.
        enough = np.argmax(served >= share_rps, axis=1)
        keeps_up = (served >= share_rps).any(axis=1)
        column = np.where(keeps_up[group[here]], enough[group[here]], times.batch_sizes.size)
        column = np.minimum(column, batch[here])
        left = 1.0 - served[group[here], column] / share_rps
        waited_s = _OVERLOADED_S * np.maximum(left, 0.0)
        latency_s[here] = _CYCLES_WAITED * times.seconds[group[here], column] + waited_s
    return 1e3 * latency_s
