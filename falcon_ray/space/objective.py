"""What counts as better: requests per dollar, under a latency limit where there is one.

The objective says which physical metrics an optimizer has to model and how they turn into a
score. The price is an input, never learnt. It does not know how metrics are measured.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from falcon_ray.errors import InputError
from falcon_ray.space.configuration import FloatArray
from falcon_ray.space.observation import Measurement
from falcon_ray.space.workload import Scenario, Workload

SECONDS_PER_HOUR = 3600.0

_RATE_METRICS = {
    Scenario.OFFLINE: "saturation_rps",
    Scenario.SERVER: "capacity_rps",
    Scenario.SINGLE_STREAM: "single_stream_rps",
}


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


def default_scenario(slo: Slo | None) -> Scenario:
    """What is measured where nobody said: saturation, or with a limit the rate that keeps it."""
    return Scenario.OFFLINE if slo is None else Scenario.SERVER


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

    Offline the rate is the saturation throughput, and of a single stream that of one request
    after the other. For a server it is the highest offered rate at which the SLO was certified,
    and a configuration where no rate was is infeasible. Where the rate is given, all that serve
    it within the SLO are worth the same, and the cheapest of them buys most.

    Attributes:
        slo: The latency limit; always there for a server, never offline.
        scenario: How requests arrive; by default offline without an SLO and a server with one.
        offered_rps: The one rate that a server has to keep the SLO at; None for the highest.

    Raises:
        InputError: The parts contradict each other.
    """

    slo: Slo | None = None
    scenario: Scenario = None  # pyright: ignore[reportAssignmentType] - the SLO decides below
    offered_rps: float | None = None

    def __post_init__(self) -> None:
        scenario = self.scenario or default_scenario(self.slo)
        object.__setattr__(self, "scenario", scenario)
        if scenario is Scenario.SERVER and self.slo is None:
            raise InputError(
                "the server scenario needs a latency limit; give latency_budget_ms, or ask for "
                f"{Scenario.OFFLINE.value}"
            )
        if scenario is Scenario.OFFLINE and self.slo is not None:
            raise InputError(
                "latency_budget_ms limits nothing in the offline scenario; leave it out, or ask "
                f"for {Scenario.SERVER.value} or {Scenario.SINGLE_STREAM.value}"
            )
        Workload(scenario=scenario, offered_rps=self.offered_rps)

    @property
    def rate_metric(self) -> str:
        """Name of the metric that the score pays for."""
        return _RATE_METRICS[self.scenario]

    @property
    def modelled_metrics(self) -> tuple[str, ...]:
        """The positive metrics that an optimizer has to predict, as `Measurement` names them."""
        rates = (self.rate_metric,) if self.offered_rps is None else ()
        return rates if self.slo is None else (*rates, "floor_latency_ms")

    @property
    def limits(self) -> Mapping[str, float]:
        """See `SearchObjective.limits`.

        The floor is the latency at the lightest load, which of a given rate is that rate.
        """
        return {} if self.slo is None else {"floor_latency_ms": self.slo.latency_budget_ms}

    def value(self, metrics: Mapping[str, FloatArray], usd_per_hour: FloatArray) -> FloatArray:
        """Requests per dollar, whether the SLO is met or not."""
        if self.offered_rps is None:
            rate = metrics[self.rate_metric]
        else:
            rate = np.full_like(metrics["floor_latency_ms"], self.offered_rps)
        return rate * SECONDS_PER_HOUR / usd_per_hour

    def uninformed_means(self, usd_per_hour: FloatArray) -> Mapping[str, FloatArray]:
        """Every candidate is expected to buy equally many requests per dollar.

        Rates are then in proportion to prices. Expecting equal rates instead would draw a search
        to the cheapest candidates, which in large spaces are those that do not run.
        """
        rate = self.rate_metric
        return {
            name: np.log(usd_per_hour) if name == rate else np.zeros(len(usd_per_hour))
            for name in self.modelled_metrics
        }

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
        if rate is None or rate <= 0 or not self._kept_alone(measurement):
            return None
        return (self.offered_rps or rate) * SECONDS_PER_HOUR / usd_per_hour

    def _kept_alone(self, measurement: Measurement) -> bool:
        """Whether lone requests kept the limit, where it is on them; a server's rate says it."""
        if self.slo is None or self.scenario is not Scenario.SINGLE_STREAM:
            return True
        floor_ms = measurement.floor_latency_ms
        return (
            measurement.slo_verdict in {None, "met"}
            and floor_ms is not None
            and floor_ms <= self.slo.latency_budget_ms
        )

    def to_json(self) -> dict[str, Any]:
        """The objective as plain JSON values."""
        return {
            "slo": None if self.slo is None else asdict(self.slo),
            "scenario": self.scenario.value,
            "offered_rps": self.offered_rps,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Objective":
        """Read what `to_json` wrote, also before objectives had scenarios.

        Raises:
            InputError: A value does not fit.
            KeyError: The SLO is missing.
            ValueError: The scenario is unknown.
        """
        slo = None if record["slo"] is None else Slo(**record["slo"])
        scenario = record.get("scenario")
        return cls(
            slo,
            default_scenario(slo) if scenario is None else Scenario(scenario),
            record.get("offered_rps"),
        )


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
