"""What counts as better: requests per dollar, under a latency limit where there is one.

The objective says which physical metrics an optimizer has to model and how they turn into a
score. The price is an input, never learnt. It does not know how metrics are measured.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

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


class SearchObjective(Protocol):
    """What an optimizer has to know of an objective: metrics, their limits, their worth.

    Metrics are positive. Scores are maximised; 0 means that a limit is not kept.
    """

    @property
    def modelled_metrics(self) -> tuple[str, ...]:
        """The positive metrics that an optimizer has to predict, as `Measurement` names them."""
        ...

    @property
    def limits(self) -> Mapping[str, float]:
        """Upper limits of modelled metrics; empty where none is limited."""
        ...

    def value(self, metrics: Mapping[str, FloatArray], usd_per_hour: FloatArray) -> FloatArray:
        """Scores as if every limit were kept, positive; shapes as in `score`."""
        ...

    def score(self, metrics: Mapping[str, FloatArray], usd_per_hour: FloatArray) -> FloatArray:
        """Scores, 0 where a limit is not kept.

        Args:
            metrics: One array per modelled metric, shapes broadcastable with `usd_per_hour`.
            usd_per_hour: Price of each candidate, shape (n,).

        Returns:
            Of the broadcast shape, never negative.
        """
        ...

    def score_measurement(self, measurement: Measurement, *, usd_per_hour: float) -> float | None:
        """Score of one measurement, or None where a limit is not kept."""
        ...

    def uninformed_means(self, usd_per_hour: FloatArray) -> Mapping[str, FloatArray]:
        """Log of every modelled metric, up to an offset, where nothing is known, shapes (n,)."""
        ...


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

    @property
    def limits(self) -> Mapping[str, float]:
        """See `SearchObjective.limits`."""
        return {} if self.slo is None else {"floor_latency_ms": self.slo.latency_budget_ms}

    def value(self, metrics: Mapping[str, FloatArray], usd_per_hour: FloatArray) -> FloatArray:
        """Requests per dollar, whether the SLO is met or not."""
        return metrics[self.rate_metric] * SECONDS_PER_HOUR / usd_per_hour

    def uninformed_means(self, usd_per_hour: FloatArray) -> Mapping[str, FloatArray]:
        """Every candidate is expected to buy equally many requests per dollar.

        Rates are then in proportion to prices. Expecting equal rates instead would draw a search
        to the cheapest candidates, which in large spaces are those that do not run.
        """
        means = {name: np.zeros(len(usd_per_hour)) for name in self.modelled_metrics}
        return means | {self.rate_metric: np.log(usd_per_hour)}

    def score(self, metrics: Mapping[str, FloatArray], usd_per_hour: FloatArray) -> FloatArray:
        """Requests per dollar, zero where the SLO is not met.

        Args:
            metrics: One array per modelled metric, shapes broadcastable with `usd_per_hour`.
            usd_per_hour: Price of each configuration, all replicas together, shape (n,).

        Returns:
            Scores of the broadcast shape, never negative.
        """
        bought = self.value(metrics, usd_per_hour)
        if self.slo is None:
            return bought
        met = metrics["floor_latency_ms"] <= self.slo.latency_budget_ms
        return np.where(met & np.isfinite(bought), bought, 0.0)

    def score_measurement(self, measurement: Measurement, *, usd_per_hour: float) -> float | None:
        """Requests per dollar of one measurement, or None where the SLO was not certified."""
        rate = measurement.metric(self.rate_metric)
        if rate is None or rate <= 0:
            return None
        return rate * SECONDS_PER_HOUR / usd_per_hour


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationObjective:
    """Answers that one dollar buys from a language model, under limits on its two latencies.

    A closed loop: every request in flight is followed by the next, so by Little's law (1961) a
    deployment with c of them answers c / (ttft + tpot (n - 1)) a second. The two latencies are
    what is modelled, and the price that counts is that of one request in flight.

    Attributes:
        output_tokens: n, tokens of an answer.
        ttft_budget_ms: Limit of the time to the first token; infinite without one.
        tpot_budget_ms: Limit of the time between two tokens of an answer, likewise.
    """

    output_tokens: int
    ttft_budget_ms: float = np.inf
    tpot_budget_ms: float = np.inf

    def __post_init__(self) -> None:
        if self.output_tokens < 1:
            raise InputError(f"output_tokens must be 1 or more, got {self.output_tokens!r}")
        if not min(self.ttft_budget_ms, self.tpot_budget_ms) > 0:
            raise InputError(
                "latency budgets must be positive, got "
                f"{self.ttft_budget_ms!r} and {self.tpot_budget_ms!r} ms"
            )

    @property
    def modelled_metrics(self) -> tuple[str, ...]:
        """See `SearchObjective.modelled_metrics`."""
        return ("ttft_ms", "tpot_ms")

    @property
    def limits(self) -> Mapping[str, float]:
        """See `SearchObjective.limits`."""
        given = {"ttft_ms": self.ttft_budget_ms, "tpot_ms": self.tpot_budget_ms}
        return {name: limit for name, limit in given.items() if np.isfinite(limit)}

    def value(self, metrics: Mapping[str, FloatArray], usd_per_hour: FloatArray) -> FloatArray:
        """Answers per dollar, whether the limits are kept or not.

        Args:
            metrics: `ttft_ms` and `tpot_ms`, shapes broadcastable with `usd_per_hour`.
            usd_per_hour: Price of one request in flight: that of the deployment over its
                concurrency, shape (n,).
        """
        answer_s = (metrics["ttft_ms"] + metrics["tpot_ms"] * (self.output_tokens - 1)) / 1e3
        return SECONDS_PER_HOUR / (answer_s * usd_per_hour)

    def score(self, metrics: Mapping[str, FloatArray], usd_per_hour: FloatArray) -> FloatArray:
        """Answers per dollar, zero where a limit is not kept; arguments as in `value`."""
        kept = (metrics["ttft_ms"] <= self.ttft_budget_ms) & (
            metrics["tpot_ms"] <= self.tpot_budget_ms
        )
        return np.where(kept, self.value(metrics, usd_per_hour), 0.0)

    def score_measurement(self, measurement: Measurement, *, usd_per_hour: float) -> float | None:
        """Answers per dollar of one measurement, or None where a limit is not kept."""
        found = {name: measurement.metric(name) for name in self.modelled_metrics}
        metrics = {name: np.array([each]) for name, each in found.items() if each is not None}
        score = float(self.score(metrics, np.array([usd_per_hour]))[0])
        return score if score > 0 else None

    def uninformed_means(self, usd_per_hour: FloatArray) -> Mapping[str, FloatArray]:
        """Latencies are expected to be equal: what is in flight more often is served cheaper."""
        return {name: np.zeros(len(usd_per_hour)) for name in self.modelled_metrics}
