"""What fresh deployments say of a configuration: whether it can be relied on, and its gain.

A contender is one configuration seen through its confirmations. The module does not know which
of them to deploy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from falcon_ray.report.comparison import (
    Deployed,
    Gain,
    RateInterval,
    gains_over_baseline,
    mean_rate,
    price_gain,
)
from falcon_ray.report.confirmation import fresh_observations, latest_confirmations
from falcon_ray.report.record import Role, SearchRecord
from falcon_ray.report.valuation import Valuation, Verdict, value
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.objective import SECONDS_PER_HOUR, Objective
from falcon_ray.space.workload import Scenario


class Standing(Enum):
    """What fresh deployments said about a configuration."""

    CONFIRMED = "confirmed"
    """All that the infrastructure allowed were served; the fresh numbers are quoted."""
    NOT_CONFIRMED = "not confirmed"
    """There is no fresh measurement; its trial's numbers are quoted."""
    NOT_REPRODUCED = "not reproduced"
    """A fresh deployment could not be served, or not under the SLO."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A configuration that was to be measured afresh.

    Attributes:
        role: Why.
        fresh: Its configuration at the mean rate of its fresh deployments where it is confirmed;
            else the deployment that says why it is not.
        deployments: All of its fresh ones, one for each round.
        standing: What they say.
        rate: The mean rate with its 95 % interval; None where nothing is known of that.
        gain: Over the baseline in requests per dollar; None where there is nothing to compare.
    """

    role: Role
    fresh: Valuation
    deployments: tuple[Valuation, ...]
    standing: Standing
    rate: RateInterval | None
    gain: Gain | None

    @property
    def configuration(self) -> Configuration:
        """What was measured."""
        return self.fresh.configuration

    @property
    def n_served(self) -> int:
        """Deployments that count."""
        return sum(each.score is not None for each in self.deployments)


def measured_contenders(record: SearchRecord) -> tuple[Contender, ...]:
    """All configurations of the latest confirmation, in order; trials may have followed it.

    The gains hold all at once, see `gains_over_baseline`. The baseline has none.
    """
    header = record.header
    roles: dict[Configuration, Role] = {}
    for each in latest_confirmations(record):
        roles.setdefault(each.observation.configuration, each.role)
    deployments = {
        configuration: tuple(value(each, header.objective, header.pricing) for each in fresh)
        for configuration, fresh in fresh_observations(record).items()
    }
    standings = {each: _standing(deployments[each]) for each in roles}
    confirmed = {
        each: _deployed(deployments[each], header.objective)
        for each in roles
        if standings[each] is Standing.CONFIRMED
    }
    gains = _gains(confirmed, record)
    return tuple(
        Contender(
            role=role,
            fresh=_fresh(deployments[each], confirmed.get(each)),
            deployments=deployments[each],
            standing=standings[each],
            rate=_rate(each, confirmed, header.objective),
            gain=gains.get(each),
        )
        for each, role in roles.items()
    )


def _standing(deployments: Sequence[Valuation]) -> Standing:
    verdicts = {each.verdict for each in deployments}
    if verdicts & {Verdict.INFEASIBLE, Verdict.OVER_SLO}:
        return Standing.NOT_REPRODUCED
    return Standing.CONFIRMED if Verdict.FEASIBLE in verdicts else Standing.NOT_CONFIRMED


def _deployed(deployments: Sequence[Valuation], objective: Objective) -> Deployed:
    served = [each for each in deployments if each.rate_rps is not None]
    intervals = [_interval(each, objective) for each in served]
    known = [each for each in intervals if each is not None]
    return Deployed(
        rates_rps=tuple(each.rate_rps for each in served if each.rate_rps is not None),
        intervals=tuple(known) if len(known) == len(served) else None,
        usd_per_hour=served[0].usd_per_hour,
    )


def _interval(valued: Valuation, objective: Objective) -> RateInterval | None:
    """The interval within one deployment, which a certified rate does not have."""
    measured, name = valued.measurement, objective.rate_metric
    if measured is None or objective.scenario is Scenario.SERVER:
        return None
    rate, low, high = (measured.metric(f"{name}{end}") for end in ("", "_ci_low", "_ci_high"))
    return None if rate is None or low is None or high is None else RateInterval(rate, low, high)


def _gains(
    confirmed: Mapping[Configuration, Deployed], record: SearchRecord
) -> Mapping[Configuration, Gain]:
    header = record.header
    baseline = None if header.baseline is None else confirmed.get(header.baseline)
    others = [each for each in confirmed if each != header.baseline]
    if baseline is None or not others:
        return {}
    if header.objective.offered_rps is not None:
        return {
            each: price_gain(
                usd_per_hour=confirmed[each].usd_per_hour,
                baseline_usd_per_hour=baseline.usd_per_hour,
            )
            for each in others
        }
    gains = gains_over_baseline(
        [confirmed[each] for each in others],
        baseline,
        is_certified=header.objective.scenario is Scenario.SERVER,
        capacity_step=header.capacity_step,
    )
    return dict(zip(others, gains, strict=True))


def _rate(
    configuration: Configuration, confirmed: Mapping[Configuration, Deployed], objective: Objective
) -> RateInterval | None:
    if configuration not in confirmed or objective.scenario is Scenario.SERVER:
        return None
    others = [each for name, each in confirmed.items() if name != configuration]
    return mean_rate(confirmed[configuration], others)


def _fresh(deployments: Sequence[Valuation], deployed: Deployed | None) -> Valuation:
    if deployed is not None:
        served = [each for each in deployments if each.score is not None]
        rate = deployed.mean_rps
        return replace(
            served[-1], rate_rps=rate, score=rate * SECONDS_PER_HOUR / deployed.usd_per_hour
        )
    broken = [
        each for each in deployments if each.verdict in {Verdict.INFEASIBLE, Verdict.OVER_SLO}
    ]
    if not broken:
        return deployments[-1]
    n_served = sum(each.score is not None for each in deployments)
    if n_served:
        reason = f"in {len(broken)} of {len(broken) + n_served} deployments: {broken[0].reason}"
        return replace(broken[0], reason=reason)
    return broken[0]
