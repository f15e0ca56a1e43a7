"""How numbers, limits and configurations read in a sentence.

Wording knows no search; it turns values into text, the same text in every report.
"""

import math

from falcon_ray.report.comparison import Gain, RateInterval, Uncertainty
from falcon_ray.space.configuration import Configuration, ConfigurationSpace
from falcon_ray.space.objective import Objective, Slo
from falcon_ray.space.workload import Scenario

EMULATED = "On emulated GPUs (predicted, not measured)"
"""What every sentence on an emulated search begins with."""


def describe_emulated(sentence: str, *, emulated: bool) -> str:
    """A finding that says so where GPUs were emulated; else as it is."""
    return f"{EMULATED}: {sentence}" if emulated else sentence


def describe_configuration(configuration: Configuration, space: ConfigurationSpace) -> str:
    """The values that were a choice, e.g. `batch_size=16 dtype=bfloat16`.

    Everything is told where the space left no choice or does not have these values.
    """
    names = [each.name for each in space.dimensions if len(each.values) > 1]
    of_space = set(configuration) == {each.name for each in space.dimensions} and all(
        configuration[each.name] in each.values for each in space.dimensions
    )
    if not names or not of_space:
        return str(configuration)
    return " ".join(f"{name}={configuration[name]}" for name in names)


def describe_fixed(space: ConfigurationSpace) -> str:
    """The values that were no choice, e.g. `dtype=float32`; empty where there are none."""
    fixed = [each for each in space.dimensions if len(each.values) == 1]
    return " ".join(f"{each.name}={each.values[0]}" for each in fixed)


def describe_slo(slo: Slo) -> str:
    """The limit in words, e.g. `99 % of requests within 50 ms`."""
    return f"{slo.latency_percentile:g} % of requests within {slo.latency_budget_ms:g} ms"


def describe_conditions(objective: Objective) -> str:
    """What a rate was held to, e.g. ` at 40 requests/s with 99 % of requests within 50 ms`.

    It goes on in a sentence; empty where only saturation counts.
    """
    rate = "" if objective.offered_rps is None else f" at {objective.offered_rps:g} requests/s"
    alone = " one at a time" if objective.scenario is Scenario.SINGLE_STREAM else ""
    limit = "" if objective.slo is None else f" with {describe_slo(objective.slo)}"
    return f"{rate}{alone}{limit}"


def describe_count(count: float) -> str:
    """A count to three significant digits, e.g. `41,200`."""
    if not math.isfinite(count):
        return "any number"
    digits = 2 - math.floor(math.log10(count)) if count > 0 else 0
    return f"{round(count, digits):,.{max(0, digits)}f}"


def describe_percent(share: float) -> str:
    """A share as a percentage, with one decimal below 10 %, e.g. `38 %` or `3.4 %`."""
    percent = 100 * share
    return f"{percent:z.1f} %" if abs(percent) < 10 else f"{percent:.0f} %"


def describe_interval(rate: RateInterval, factor: float, *, n_deployments: int) -> str:
    """A rate's interval times `factor`, e.g. `95 % interval 930 to 1,020, 2 deployments`."""
    range_ = f"{describe_count(rate.ci_low_rps * factor)} to {_upper(rate.ci_high_rps * factor)}"
    if n_deployments == 1:
        return f"95 % interval {range_} within one deployment"
    return f"95 % interval {range_}, {n_deployments} deployments"


def describe_amount(gain: Gain) -> str:
    """The estimate, e.g. `38 % more`."""
    return f"{describe_percent(abs(gain.value))} {'less' if gain.value < 0 else 'more'}"


def describe_gain(gain: Gain, capacity_step: float | None) -> str:
    """A difference that is shown, e.g. `38 % more than the baseline (95 % interval ...)`."""
    return f"{describe_amount(gain)} than the baseline ({describe_range(gain, capacity_step)})"


def describe_tie(gain: Gain, other: str, capacity_step: float | None) -> str:
    """A difference that is not shown, with what was measured of the other configuration."""
    told = describe_amount(gain)
    return (
        f"no difference from the baseline shown by {other} "
        f"({told}, {describe_range(gain, capacity_step)})"
    )


def describe_range(gain: Gain, capacity_step: float | None) -> str:
    """How sure a gain is, e.g. `95 % interval 31 % to 45 %, 2 deployments each`."""
    step = "unknown" if capacity_step is None else f"{100 * capacity_step:g} %"
    one, other = gain.n_deployments
    match gain.uncertainty:
        case Uncertainty.DEPLOYMENTS:
            deployments = (
                f"{one} deployments each" if one == other else f"{one} and {other} deployments"
            )
            resolution = "" if capacity_step is None else f", {step} steps of certified rates"
            return f"95 % interval {_describe_ends(gain)}, {deployments}{resolution}"
        case Uncertainty.CONFIDENCE:
            return f"95 % interval {_describe_ends(gain)} from one deployment each"
        case Uncertainty.RESOLUTION:
            return (
                f"{_describe_ends(gain)} at the {step} resolution of certified rates, one "
                "deployment each"
            )
        case Uncertainty.PRICE:
            return "by price alone"
        case Uncertainty.UNKNOWN:
            return "but how sure that is was not recorded"


def _describe_ends(gain: Gain) -> str:
    if math.isfinite(gain.high):
        return f"{describe_percent(gain.low)} to {describe_percent(gain.high)}"
    if gain.low > -1:
        return f"{describe_percent(gain.low)} or more"
    return "without bounds, measured too briefly"


def _upper(count: float) -> str:
    return describe_count(count) if math.isfinite(count) else "any number"
