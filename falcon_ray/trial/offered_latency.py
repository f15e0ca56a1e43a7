"""The latencies of an offered load as a limit sees them, those without an answer included.

The module knows one stretch of load and one limit. It does not know what is made of them.
"""

import math

import numpy as np

from falcon_ray.space.configuration import FloatArray
from falcon_ray.space.objective import Slo
from falcon_ray.trial.load_guard import Stretch
from falcon_ray.trial.statistics import percentiles_ms

FAILED_BUDGETS = 10.0
"""Latency, in multiples of the limit, that stands for a request that failed: over any limit by far,
and yet a number."""


def latencies_ms(stretch: Stretch, slo: Slo, *, from_sent: bool = False) -> FloatArray:
    """Latencies by due time; infinite for requests that failed or are overdue, shape (n,)."""
    log = stretch.log
    order = np.argsort(log.intended_s, kind="stable")
    taken_ms = (log.done_s - log.sent_s) * 1e3 if from_sent else log.latency_ms
    known_ms = np.where(log.ok, taken_ms, math.inf)[order]
    overdue = stretch.oldest_in_flight_s * 1e3 > slo.latency_budget_ms
    return np.append(known_ms, np.full(stretch.in_flight if overdue else 0, math.inf))


def percentile_ms(stretch: Stretch, slo: Slo) -> float:
    """The limit's percentile, never below the limit where it falls on a request without an answer.

    One that is overdue counts as long as it has waited, which is over the limit already. One that
    failed counts as the slowest of all or as `FAILED_BUDGETS` limits, whichever is longer: it may
    have failed at once.
    """
    waited_ms = stretch.oldest_in_flight_s * 1e3
    latency_ms = latencies_ms(stretch, slo)
    latency_ms[stretch.log.n :] = waited_ms
    if latency_ms.size == 0:
        return waited_ms
    found_ms = percentiles_ms(latency_ms, (slo.latency_percentile,))[0]
    if math.isfinite(found_ms):
        return found_ms
    slowest_ms = max(float(np.max(stretch.log.latency_ms)), waited_ms)
    return max(slowest_ms, FAILED_BUDGETS * slo.latency_budget_ms)
