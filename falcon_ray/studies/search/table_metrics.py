"""The two kinds of metrics that a user's table may have, and the objective of each.

It knows columns and numbers; what else a table holds is for `table_file`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from falcon_ray.errors import InputError
from falcon_ray.space.configuration import FloatArray
from falcon_ray.space.objective import GenerationObjective, Objective, SearchObjective, Slo
from falcon_ray.space.observation import Measurement

_RATE_KEYS = ("rate", "latency", "latency_limit")
_GENERATION_KEYS = ("ttft", "tpot", "output_tokens", "concurrency", "ttft_limit", "tpot_limit")
_LIMITS = ("ttft_limit", "tpot_limit")

Given = str | float
"""A number, or a column where it is a text."""


class Metrics(Protocol):
    """What trials measured, and what counts as better."""

    @property
    def columns(self) -> list[str]:
        """Those that a table must have."""
        ...

    def measurements(self, rows: pd.DataFrame) -> list[Measurement]:
        """One per row; every row ran."""
        ...

    def objective(self, rows: pd.DataFrame) -> SearchObjective:
        """Of a task, by all of its rows."""
        ...

    def requests_in_flight(self, rows: pd.DataFrame) -> FloatArray:
        """Among how many requests the price is shared, shape (n,)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RateMetrics:
    """Requests per second, under a limit of a latency where there is one."""

    rate: str
    latency: str | None = None
    latency_limit: Given | None = None

    @property
    def columns(self) -> list[str]:
        """See `Metrics`."""
        return _columns(self.rate, self.latency, self.latency_limit)

    def measurements(self, rows: pd.DataFrame) -> list[Measurement]:
        """See `Metrics`; the rate is certified where the latency keeps its limit."""
        rates = numbers(rows, self.rate, "rate")
        if self.latency is None or self.latency_limit is None:
            return [Measurement(saturation_rps=float(rate)) for rate in rates]
        latencies = numbers(rows, self.latency, "latency")
        limits = numbers(rows, self.latency_limit, "latency_limit")
        return [
            Measurement(
                saturation_rps=float(rate),
                capacity_rps=float(rate) if latency <= limit else None,
                floor_latency_ms=float(latency),
            )
            for rate, latency, limit in zip(rates, latencies, limits, strict=True)
        ]

    def objective(self, rows: pd.DataFrame) -> SearchObjective:
        """See `Metrics`."""
        if self.latency_limit is None:
            return Objective()
        return Objective(Slo(latency_budget_ms=_one(rows, self.latency_limit, "latency_limit")))

    def requests_in_flight(self, rows: pd.DataFrame) -> FloatArray:
        """See `Metrics`; a rate is of the whole deployment."""
        return np.ones(len(rows))


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationMetrics:
    """The two latencies of a language model in closed loop."""

    ttft: str
    tpot: str
    output_tokens: Given
    concurrency: Given
    ttft_limit: Given | None = None
    tpot_limit: Given | None = None

    @property
    def columns(self) -> list[str]:
        """See `Metrics`."""
        limits = (self.ttft_limit, self.tpot_limit)
        return _columns(self.ttft, self.tpot, self.output_tokens, self.concurrency, *limits)

    def measurements(self, rows: pd.DataFrame) -> list[Measurement]:
        """See `Metrics`; the rate follows from Little's law (1961)."""
        ttft, tpot = numbers(rows, self.ttft, "ttft"), numbers(rows, self.tpot, "tpot")
        tokens = numbers(rows, self.output_tokens, "output_tokens")
        rates = 1e3 * self.requests_in_flight(rows) / (ttft + tpot * (tokens - 1))
        return [
            Measurement(
                saturation_rps=float(rate),
                extra={"ttft_ms": float(first), "tpot_ms": float(each)},
            )
            for rate, first, each in zip(rates, ttft, tpot, strict=True)
        ]

    def objective(self, rows: pd.DataFrame) -> SearchObjective:
        """See `Metrics`."""
        ttft, tpot = (
            np.inf if given is None else _one(rows, given, name)
            for name, given in zip(_LIMITS, (self.ttft_limit, self.tpot_limit), strict=True)
        )
        return GenerationObjective(
            output_tokens=int(_one(rows, self.output_tokens, "output_tokens")),
            ttft_budget_ms=ttft,
            tpot_budget_ms=tpot,
        )

    def requests_in_flight(self, rows: pd.DataFrame) -> FloatArray:
        """See `Metrics`."""
        return numbers(rows, self.concurrency, "concurrency")


def parse_metrics(content: object) -> Metrics:
    """What a YAML file says of metrics, checked.

    Raises:
        InputError: A key is missing or unknown, or its value does not fit.
    """
    if not isinstance(content, dict) or not ({"rate", "ttft"} & set(content)):
        raise InputError("metrics must have either a rate, or ttft and tpot")
    if "rate" in content:
        _check(content, _RATE_KEYS, columns=("rate", "latency"), needed=("rate",))
        if ("latency" in content) != ("latency_limit" in content):
            raise InputError("metrics: latency and latency_limit go together")
        return RateMetrics(**content)
    _check(content, _GENERATION_KEYS, columns=("ttft", "tpot"), needed=_GENERATION_KEYS[:4])
    return GenerationMetrics(**content)


def numbers(rows: pd.DataFrame, given: Given, what: str) -> FloatArray:
    """A column, or one number for all rows, shape (n,).

    Raises:
        InputError: A value is no positive finite number.
    """
    if not isinstance(given, str):
        values = np.full(len(rows), float(given))
    else:
        column = pd.to_numeric(rows[given], errors="coerce")
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
    if bad.size:
        said = rows[given].iloc[int(bad[0])] if isinstance(given, str) else given
        raise InputError(
            f"{what} must be positive and finite, got {said} in row "
            f"{int(rows.index[int(bad[0])]) + 1}"
        )
    return values


def _one(rows: pd.DataFrame, given: Given, what: str) -> float:
    values = np.unique(numbers(rows, given, what))
    if values.size > 1:
        raise InputError(
            f"{what} differs within a task: {values[0]:g} and {values[1]:g}; name a column that "
            "tells tasks apart"
        )
    return float(values[0])


def _check(
    content: Mapping[object, object],
    keys: Sequence[str],
    *,
    columns: Sequence[str],
    needed: Sequence[str],
) -> None:
    for key, value in content.items():
        if key not in keys:
            known = ", ".join(keys)
            raise InputError(f"metrics has the unknown key {key!r}; known are {known}")
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise InputError(f"metrics: {key} must be a column or a number, got {value!r}")
        if key in columns and not isinstance(value, str):
            raise InputError(f"metrics: {key} must be the name of a column, got {value!r}")
    for key in needed:
        if key not in content:
            raise InputError(f"metrics lacks the key {key!r}")


def _columns(*given: Given | None) -> list[str]:
    return [each for each in given if isinstance(each, str)]
