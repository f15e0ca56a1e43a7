"""What each trial is worth at given prices, and whether it counts at all.

A valuation is one observation seen through the objective and the price list. It does not know
which configuration was chosen or confirmed.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from falcon_ray.errors import InputError
from falcon_ray.report.record import TrialRecord
from falcon_ray.report.wording import describe_slo
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.cost import Pricing
from falcon_ray.space.objective import Objective, Slo
from falcon_ray.space.observation import Measurement, Observation, TrialStatus


class Verdict(Enum):
    """What one trial says about its configuration."""

    FEASIBLE = "feasible"
    """Measured, and within the SLO where there is one: it has a score."""
    OVER_SLO = "over_slo"
    """Measured, and no rate was certified under the SLO."""
    INFEASIBLE = "infeasible"
    """It cannot be served: out of memory, crash, time-out."""
    FAILED = "failed"
    """The infrastructure failed; nothing is known about the configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Valuation:
    """One measurement or its absence, in dollars.

    Attributes:
        configuration: What was deployed.
        verdict: Whether it counts.
        measurement: Present where the verdict is FEASIBLE or OVER_SLO.
        reason: One line that says why it does not count; empty where it does.
        usd_per_hour: Price of all replicas together.
        instance_type: Where the price comes from.
        rate_rps: Requests per second that the score pays for; None where it does not count.
        score: Requests per dollar; None where it does not count.
    """

    configuration: Configuration
    verdict: Verdict
    measurement: Measurement | None
    reason: str
    usd_per_hour: float
    instance_type: str
    rate_rps: float | None
    score: float | None


def value(observation: Observation, objective: Objective, pricing: Pricing) -> Valuation:
    """See one observation through the objective and the prices.

    Raises:
        InputError: No priced instance holds the configuration.
    """
    cost = pricing.cost(observation.configuration)
    if cost is None:
        raise InputError(
            f"no priced instance holds {observation.configuration}; add one to the prices"
        )
    measured = observation.measurement
    score = None
    if measured is not None:
        score = objective.score_measurement(measured, usd_per_hour=cost.usd_per_hour)
    return Valuation(
        configuration=observation.configuration,
        verdict=_verdict(observation.status, score),
        measurement=measured,
        reason=_reason(observation, objective, score),
        usd_per_hour=cost.usd_per_hour,
        instance_type=cost.instance_type,
        rate_rps=None
        if measured is None or score is None
        else objective.offered_rps or measured.metric(objective.rate_metric),
        score=score,
    )


def value_trials(
    trials: Iterable[TrialRecord], objective: Objective, pricing: Pricing
) -> tuple[Valuation, ...]:
    """One valuation for each trial, in the same order."""
    return tuple(value(trial.observation, objective, pricing) for trial in trials)


def highest(valuations: Iterable[Valuation]) -> Valuation | None:
    """The one with the highest score, the first of equal ones; None where none has a score."""
    scored = [(each.score, each) for each in valuations if each.score is not None]
    return max(scored, key=lambda pair: pair[0])[1] if scored else None


def describe_verdict(valued: Valuation) -> str:
    """Why there is no score, in one or two words; with an SLO its own verdict where known."""
    measured = valued.measurement
    if measured is not None and measured.cut_short:
        return "cut short"
    if valued.verdict is Verdict.OVER_SLO:
        told = None if measured is None else measured.slo_verdict
        return told if told in {"violated", "undecided"} else "over SLO"
    return valued.verdict.value


def _verdict(status: TrialStatus, score: float | None) -> Verdict:
    if status is TrialStatus.MEASURED:
        return Verdict.OVER_SLO if score is None else Verdict.FEASIBLE
    return Verdict.INFEASIBLE if status is TrialStatus.INFEASIBLE else Verdict.FAILED


def _reason(observation: Observation, objective: Objective, score: float | None) -> str:
    """Why a trial does not count; empty where it does."""
    measured = observation.measurement
    if measured is None:
        return observation.reason
    if score is not None:
        return ""
    if measured.cut_short:
        return measured.cut_short
    if objective.slo is None:
        return f"{objective.rate_metric} could not be measured"
    return _why_over(measured, objective, objective.slo)


def _why_over(measured: Measurement, objective: Objective, slo: Slo) -> str:
    floor = measured.floor_latency_ms
    if floor is None:
        return f"no rate was certified for {describe_slo(slo)}"
    if not math.isfinite(floor):
        return "no request succeeded at the lightest load"
    where = "at the lightest load"
    if objective.offered_rps is not None:
        where = f"at {objective.offered_rps:g} requests/s"
    found = f"p{slo.latency_percentile:g} {floor:.3g} ms {where}"
    if floor > slo.latency_budget_ms:
        unsure = measured.slo_verdict == "undecided"
        doubt = ", but too few requests to be sure" if unsure else ""
        return f"{found}, over the budget of {slo.latency_budget_ms:g} ms{doubt}"
    if measured.slo_verdict == "violated":
        return f"{found}, but too many requests failed or were late for {describe_slo(slo)}"
    return f"{found}, but too few requests to certify {describe_slo(slo)}"
