"""The true answers of a known service: rate, tail and capacity, warm, from a million requests.

It knows the law of the service. It does not know measurements of it.
"""

from functools import lru_cache

import numpy as np

from falcon_ray.space.objective import Slo
from falcon_ray.studies.measurement.queueing import closed_loop, serve_arrivals
from falcon_ray.trial.arrivals import Poisson
from falcon_ray.trial.known_service import BatchTimes, KnownService
from falcon_ray.trial.statistics import percentiles_ms

N_REQUESTS = 1_000_000
BATCHES_IN_FLIGHT = 3
CAPACITY_RESOLUTION = 0.002


def warm(service: KnownService) -> KnownService:
    """The same service without its warm-up."""
    return KnownService(
        batch_size=service.batch_size,
        service_s=service.service_s,
        noise_cv=service.noise_cv,
        noise_correlation=service.noise_correlation,
    )


@lru_cache(maxsize=64)
def saturated_percentile_ms(
    service: KnownService, percentile: float = 99.0, *, n: int = N_REQUESTS, seed: int = 0
) -> float:
    """Percentile of the latencies at saturation: three batches of requests in flight."""
    times = BatchTimes(warm(service), np.random.default_rng(seed))
    rounds = closed_loop(
        times.take(max(BATCHES_IN_FLIGHT, n // service.batch_size)),
        concurrency=BATCHES_IN_FLIGHT * service.batch_size,
        batch_size=service.batch_size,
    )
    return percentiles_ms(1000 * (rounds.done_s - rounds.sent_s), (percentile,))[0]


def offered_percentile_ms(
    service: KnownService,
    rate_rps: float,
    percentile: float = 99.0,
    *,
    n: int = N_REQUESTS,
    seed: int = 0,
) -> float:
    """Percentile of the latencies of Poisson arrivals at a rate."""
    rng = np.random.default_rng(seed)
    arrivals_s = Poisson().draw(rate_rps, n / rate_rps, rng)
    times = BatchTimes(warm(service), rng).take(arrivals_s.size)
    served = serve_arrivals(arrivals_s, times.tolist(), batch_size=service.batch_size)
    return percentiles_ms(1000 * (served.done_s - arrivals_s), (percentile,))[0]


@lru_cache(maxsize=64)
def capacity_rps(service: KnownService, slo: Slo, *, n: int = N_REQUESTS, seed: int = 0) -> float:
    """The highest rate of Poisson arrivals under which the limit holds, by bisection.

    Returns:
        Requests per second to within 0.2 %, 0 where the limit is broken at 1 % of saturation.
    """
    met_rps, too_high_rps = 0.01 * service.saturation_rps, service.saturation_rps
    limit_ms = slo.latency_budget_ms

    def holds(rate_rps: float) -> bool:
        found = offered_percentile_ms(service, rate_rps, slo.latency_percentile, n=n, seed=seed)
        return found <= limit_ms

    if not holds(met_rps):
        return 0.0
    while too_high_rps > met_rps * (1 + CAPACITY_RESOLUTION):
        middle_rps = (met_rps + too_high_rps) / 2
        if holds(middle_rps):
            met_rps = middle_rps
        else:
            too_high_rps = middle_rps
    return met_rps
