"""The known services that measurements are tried on, and how they are measured."""

from falcon_ray.trial.known_service import KnownService
from falcon_ray.trial.plan import MeasurementPlan
from falcon_ray.trial.steady_state import PrecisionRule, WarmUpRule

WARMING = KnownService(
    batch_size=8, service_s=0.1, noise_cv=0.05, warm_up_depth=0.2, warm_up_batches=20
)
"""Begins at 80 % of its throughput, and is within 1 % of it after 6 s."""
REAL_WARMING = KnownService(
    batch_size=16, service_s=0.5, noise_cv=0.05, warm_up_depth=0.2, warm_up_batches=6
)
"""The same with batches so long that handing one over, 1 to 2 ms in Serve, does not count."""
STEADY = KnownService(batch_size=8, service_s=0.1, noise_cv=0.05)
CORRELATED = KnownService(
    batch_size=8,
    service_s=0.02,
    noise_cv=0.05,
    noise_correlation=0.9,
    warm_up_depth=0.2,
    warm_up_batches=100,
)
"""Its noise lasts for ten batches, as that of a neighbour on the machine does."""
UNEVEN = KnownService(
    batch_size=4,
    service_s=0.02,
    noise_cv=0.2,
    noise_correlation=0.5,
    warm_up_depth=0.3,
    warm_up_batches=60,
)
"""Small batches that differ a lot, so that few requests make the tail of its latencies."""

CLOSE_PLAN = MeasurementPlan(
    warm_up=WarmUpRule(max_s=20.0),
    precision=PrecisionRule(max_s=40.0, relative_half_width=0.015),
)
"""Measures until the interval is narrow enough to show an error of 2 %."""
