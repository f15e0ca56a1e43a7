"""What counts as better: requests per dollar, under a latency limit where there is one.

The objective says which physical metrics an optimizer has to model and how they turn into a
score. The price is an input, never learnt. It does not know how metrics are measured.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from falcon_ray.errors import InputError
from falcon_ray.space.configuration import FloatArray
from falcon_ray.space.observation import Measurement

SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """A latency limit: `latency_percentile` of requests must finish in `latency_budget_ms`."""

    latency_budget_ms: float
    latency_percentile: float = 99.0

    def __post_init__(self) -> None:
        if not self.latency_budget_ms > 0:
            raise InputError(f"latency_budget_ms must be positive, got {self.latency_budget_ms!r}")
        if not 0 < self.latency_percentile < 100:
            raise InputError(
                "latency_percentile must lie between 0 and 100 (exclusive), "
                f"got {self.latency_percentile!r}"
            )


def optional_slo(latency_budget_ms: float | None, latency_percentile: float) -> Slo | None:
    """The limit that a user gave, or None without a budget.

    Raises:
        InputError: A number is out of range.
    """
    if latency_budget_ms is None:
        return None
    return Slo(latency_budget_ms=latency_budget_ms, latency_percentile=latency_percentile)


@dataclass(frozen=True, slots=True)
class Objective:
    """Requests that one dollar buys, at the highest rate that is allowed.

    Without an SLO the rate is the saturation throughput. With one it is the highest offered
    rate at which the SLO was certified, and a configuration where no rate was is infeasible.
    """

    slo: Slo | None = None

    @property
    def rate_metric(self) -> str:
        """Name of the metric that the score pays for."""
        return "saturation_rps" if self.slo is None else "capacity_rps"

    @property
    def modelled_metrics(self) -> tuple[str, ...]:
        """The positive metrics that an optimizer has to predict, as `Measurement` names them."""
        if self.slo is None:
            return (self.rate_metric,)
        return (self.rate_metric, "floor_latency_ms")

    def score(self, metrics: Mapping[str, FloatArray], usd_per_hour: FloatArray) -> FloatArray:
        """Requests per dollar, zero where the SLO is not met.

        Args:
            metrics: One array per modelled metric, shapes broadcastable with `usd_per_hour`.
            usd_per_hour: Price of each configuration, all replicas together, shape (n,).

        Returns:
            Scores of the broadcast shape, never negative.
        """
        rate = metrics[self.rate_metric]
        bought = rate * SECONDS_PER_HOUR / usd_per_hour
        if self.slo is None:
            return bought
        met = metrics["floor_latency_ms"] <= self.slo.latency_budget_ms
        return np.where(met & np.isfinite(rate), bought, 0.0)

    def score_measurement(self, measurement: Measurement, *, usd_per_hour: float) -> float | None:
        """Requests per dollar of one measurement, or None where the SLO was not certified."""
        rate = measurement.metric(self.rate_metric)
        if rate is None or rate <= 0:
            return None
        return rate * SECONDS_PER_HOUR / usd_per_hour
