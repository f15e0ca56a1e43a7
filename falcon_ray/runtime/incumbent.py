"""What another configuration has to deliver to beat the best trial so far.

It knows observations and prices. It does not know how a trial makes use of the rate.
"""

from collections.abc import Iterable

from falcon_ray.space.configuration import Configuration
from falcon_ray.space.cost import Pricing
from falcon_ray.space.objective import SECONDS_PER_HOUR, Objective
from falcon_ray.space.observation import Measurement, Observation

_WITH_INTERVAL = frozenset({"saturation_rps", "single_stream_rps"})
"""Rates that are stated with an interval."""


def rate_to_beat_rps(
    observations: Iterable[Observation],
    configuration: Configuration,
    *,
    objective: Objective,
    pricing: Pricing,
) -> float | None:
    """The rate at which a configuration buys as much as the best trial surely does.

    Surely: at the lower end of the interval of its rate, where the rate has one. Certified rates
    have none and count as they are.

    Args:
        observations: Trials that ended.
        configuration: The one to come.
        objective: Ranks them.
        pricing: What each of them costs.

    Returns:
        None while no trial has a score, and where the rate is given: only prices differ then.

    Raises:
        InputError: No priced instance holds a configuration.
    """
    if objective.offered_rps is not None:
        return None
    tried = [each for each in observations if each.measurement is not None]
    prices = pricing.usd_per_hour([configuration, *(each.configuration for each in tried)])
    best, sure = 0.0, None
    for observation, usd_per_hour in zip(tried, prices[1:], strict=True):
        measured = observation.measurement
        assert measured is not None
        score = objective.score_measurement(measured, usd_per_hour=float(usd_per_hour))
        if score is not None and score > best:
            best, sure = score, score * _sure_share(measured, objective)
    return None if sure is None else sure * float(prices[0]) / SECONDS_PER_HOUR


def _sure_share(measured: Measurement, objective: Objective) -> float:
    """Lower end of the interval of the rate that counts, as a share of the rate."""
    name = objective.rate_metric
    if name not in _WITH_INTERVAL:
        return 1.0
    rate, low = measured.metric(name), measured.metric(f"{name}_ci_low")
    return 1.0 if rate is None or low is None else low / rate
