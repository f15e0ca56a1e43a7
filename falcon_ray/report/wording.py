"""How numbers, limits and configurations read in a sentence.

Wording knows no search; it turns values into text, the same text in every report.
"""

import math

from falcon_ray.report.comparison import Gain, Uncertainty
from falcon_ray.space.configuration import Configuration, ConfigurationSpace
from falcon_ray.space.objective import Slo
from falcon_ray.space.observation import Measurement


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


def describe_throughput_interval(measurement: Measurement, factor: float) -> str:
    """The 95 % interval of the saturation throughput, times `factor`; empty where unknown."""
    low, high = measurement.saturation_rps_ci_low, measurement.saturation_rps_ci_high
    if low is None or high is None:
        return ""
    return f"95 % interval {describe_count(low * factor)} to {describe_count(high * factor)}"


def describe_gain(gain: Gain, capacity_step: float | None) -> str:
    """The comparison, e.g. `38 % more than the baseline (95 % interval 31 % to 45 %)`."""
    amount = f"{describe_percent(abs(gain.value))} {'less' if gain.value < 0 else 'more'}"
    match gain.uncertainty:
        case Uncertainty.CONFIDENCE:
            range_ = f"95 % interval {_describe_range(gain)}"
        case Uncertainty.RESOLUTION:
            step = "unknown" if capacity_step is None else f"{100 * capacity_step:g} %"
            range_ = f"{_describe_range(gain)} at the {step} resolution of certified rates"
        case Uncertainty.UNKNOWN:
            range_ = f"{amount}, but how sure that is was not recorded"
    if gain.shows_difference:
        return f"{amount} than the baseline ({range_})"
    return f"no difference from the baseline shown ({range_})"


def _describe_range(gain: Gain) -> str:
    if math.isfinite(gain.high):
        return f"{describe_percent(gain.low)} to {describe_percent(gain.high)}"
    if gain.low > -1:
        return f"{describe_percent(gain.low)} or more"
    return "without bounds, measured too briefly"
