"""What trials cost, and whether one more may start under a limit of dollars.

A trial pays for its share of the instances as long as it holds them, however it ends, and for
whole instances while they come up for it. A trial that runs counts as what it may cost at worst
until it ended, and so does the confirmation at the end, for as long as it did not begin. A limit
that does not allow for the worst case of a single trial is refused. The module knows prices and
seconds. It knows no clock, and does not end trials that take longer than they may: the limit is
kept as far as they keep to their worst case.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from falcon_ray.errors import InputError, OverBudgetError
from falcon_ray.space.configuration import Configuration, FloatArray
from falcon_ray.space.cost import Cost, Pricing
from falcon_ray.space.objective import SECONDS_PER_HOUR

N_CONFIRMED = 2
"""Configurations of the search itself that are confirmed: the best and the runner-up."""
_ROUNDING = 1e-9
"""Relative; sums of dollars in another order differ by less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialLimits:
    """How long the trials of a search may take at most.

    Attributes:
        longest_trial_s: For which it holds its resources, all its attempts together; see
            `MeasurementPlan.longest_trial_s` for what that bounds.
        longest_start_s: Until nodes came up for it; 0 on a cluster that starts none.

    Raises:
        InputError: A time is out of range.
    """

    longest_trial_s: float
    longest_start_s: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.longest_trial_s) and self.longest_trial_s > 0):
            raise InputError(f"longest_trial_s must be positive, got {self.longest_trial_s!r}")
        if not (math.isfinite(self.longest_start_s) and self.longest_start_s >= 0):
            raise InputError(f"longest_start_s must not be negative, got {self.longest_start_s!r}")


def trial_usd(configuration: Configuration, pricing: Pricing, *, held_s: float) -> float | None:
    """What a trial cost, however it ended.

    Args:
        configuration: What was deployed.
        pricing: Of the search.
        held_s: Seconds for which it held its share of the instances.

    Returns:
        None where no instance of these prices holds the configuration.

    Raises:
        InputError: The time is negative or no number.
    """
    if not (math.isfinite(held_s) and held_s >= 0):
        raise InputError(f"held_s must not be negative, got {held_s!r}")
    cost = pricing.cost(configuration)
    if cost is None:
        return None
    return cost.usd_per_hour * held_s / SECONDS_PER_HOUR


def start_usd(configuration: Configuration, pricing: Pricing, *, start_s: float) -> float | None:
    """What bringing up all nodes for a configuration costs, where each takes `start_s` seconds.

    Each is paid as a whole instance of the type that holds the configuration most cheaply.

    Returns:
        None where no instance of these prices holds the configuration.
    """
    cost = pricing.cost(configuration)
    if cost is None:
        return None
    n_nodes = math.ceil(configuration.count("replicas", 1) / cost.replicas_per_instance)
    return n_nodes * _instance_usd_per_hour(cost, pricing) * start_s / SECONDS_PER_HOUR


def worst_usd(
    candidates: Sequence[Configuration], pricing: Pricing, limits: TrialLimits
) -> FloatArray:
    """The most that a trial of each can cost: all its nodes come up for it as late as they may.

    Returns:
        Shape (n,), positive.

    Raises:
        InputError: No instance of these prices holds some candidate.
    """
    worst = pricing.usd_per_hour(candidates) * limits.longest_trial_s / SECONDS_PER_HOUR
    if limits.longest_start_s == 0:
        return worst
    starts = [start_usd(each, pricing, start_s=limits.longest_start_s) for each in candidates]
    return worst + np.array(starts, dtype=np.float64)


class Budget:
    """The books of what a search spent and may still spend; one for each run of a search.

    Every trial is entered by `start` with its worst case and by `end` with what it cost. With
    `may_start` before each `start`, and trials that keep to their worst case, what is spent never
    exceeds the limit. Not even by the confirmation, for which what it may cost at worst is set
    aside: every round deploys the baseline and, of what was tried, the two dearest.

    Args:
        max_cost_usd: The limit, positive; None for no limit.
        spent_usd: What a resumed search spent before: its trials that ended, and at worst those
            that were interrupted.
        confirm_rounds: Of the confirmation; 0 where there is none, or it is done.
        baseline_usd: The worst case of one deployment of the baseline; 0 without one.
        tried_usd: Worst cases of the trials before that may be confirmed.

    Raises:
        InputError: A number is out of range.
    """

    def __init__(
        self,
        max_cost_usd: float | None,
        *,
        spent_usd: float = 0.0,
        confirm_rounds: int = 0,
        baseline_usd: float = 0.0,
        tried_usd: Collection[float] = (),
    ) -> None:
        if max_cost_usd is not None and not (math.isfinite(max_cost_usd) and max_cost_usd > 0):
            raise InputError(f"max_cost_usd must be a positive number, got {max_cost_usd!r}")
        if confirm_rounds < 0:
            raise InputError(f"confirm_rounds must not be negative, got {confirm_rounds}")
        self._limit_usd = math.inf if max_cost_usd is None else max_cost_usd
        self._spent_usd = _checked("spent_usd", spent_usd)
        self._rounds = confirm_rounds
        self._baseline_usd = _checked("baseline_usd", baseline_usd)
        self._running: dict[str, float] = {}
        self._confirmable = [_checked("tried_usd", each) for each in tried_usd]

    @property
    def spent_usd(self) -> float:
        """What all trials cost that ended."""
        return self._spent_usd

    @property
    def committed_usd(self) -> float:
        """What was spent, and what the trials that run may cost at worst."""
        return self._spent_usd + sum(self._running.values())

    def may_start(self, worst_usd: float) -> bool:
        """Whether a trial may start that can cost so much."""
        return bool(self.affordable(np.array([worst_usd]))[0])

    def affordable(self, worst_usd: FloatArray) -> NDArray[np.bool_]:
        """Which trials may start, each as the only one more.

        Args:
            worst_usd: Worst case of each, shape (n,).

        Returns:
            Shape (n,).
        """
        return self.committed_usd + worst_usd + self._reserved(worst_usd) <= self._most_usd

    def may_confirm(self, worst_usd: float) -> bool:
        """Whether a deployment of the confirmation may start: out of what is set aside."""
        return self.committed_usd + worst_usd <= self._most_usd

    def start(self, name: str, worst_usd: float) -> None:
        """Enter a trial or a deployment of the confirmation that starts now.

        Raises:
            InputError: One of that name runs already, or the cost is out of range.
        """
        if name in self._running:
            raise InputError(f"{name} runs already; enter its end first")
        self._running[name] = _checked("worst_usd", worst_usd)

    def end(self, name: str, usd: float | None, *, may_be_confirmed: bool = True) -> None:
        """Enter what it cost.

        Args:
            name: As it was started.
            usd: None where nobody knows, which counts as the worst case; 0 where it never got
                its resources.
            may_be_confirmed: Whether it was measured: what did not run is not confirmed.

        Raises:
            InputError: None of that name runs, or the cost is out of range.
        """
        if name not in self._running:
            raise InputError(f"{name} does not run; enter its start first")
        worst = self._running.pop(name)
        self._spent_usd += worst if usd is None else _checked("usd", usd)
        if may_be_confirmed:
            self._confirmable.append(worst)

    def check(self, worst_usd: FloatArray) -> None:
        """Refuse a limit that does not allow for a single trial, before anything is deployed.

        Args:
            worst_usd: Worst case of a trial of each candidate, shape (n,).

        Raises:
            OverBudgetError: Not one of them may start.
        """
        if self.affordable(worst_usd).any():
            return
        reserved = self._reserved(worst_usd)
        needed = self.committed_usd + worst_usd + reserved
        cheapest = int(np.argmin(needed))
        parts = [f"{dollars(float(worst_usd[cheapest]))} for one trial of the cheapest kind"]
        if reserved[cheapest] > 0:
            parts.append(f"{dollars(float(reserved[cheapest]))} for its confirmation")
        if self.committed_usd > 0:
            parts.append(f"{dollars(self.committed_usd)} that were spent before")
        raise OverBudgetError(
            f"max_cost_usd is {self._limit_usd:g}, and the least that a search may cost at worst "
            f"is {' and '.join(parts)}; give at least {dollars(float(needed[cheapest]))}"
            + ", or leave out the confirmation"
            * bool(reserved[cheapest] > 0)
        )

    @property
    def _most_usd(self) -> float:
        return self._limit_usd * (1 + _ROUNDING)

    def _reserved(self, worst_usd: FloatArray) -> FloatArray:
        known = [*self._confirmable, *self._running.values()]
        dearest = sorted(known, reverse=True)[:N_CONFIRMED]
        others = np.broadcast_to(np.array(dearest), (worst_usd.size, len(dearest)))
        together = np.sort(np.column_stack([others, worst_usd]), axis=1)[:, -N_CONFIRMED:]
        return self._rounds * (self._baseline_usd + together.sum(axis=1))


def dollars(usd: float) -> str:
    """Dollars to the cent, or to two figures below a cent, never rounded down: `0.84`."""
    if usd <= 0:
        return "0.00 USD"
    digits = 2 if usd >= 0.01 else 1 - math.floor(math.log10(usd))
    scale = 10**digits
    return f"{math.ceil(usd * scale * (1 - _ROUNDING)) / scale:.{digits}f} USD"


def _instance_usd_per_hour(cost: Cost, pricing: Pricing) -> float:
    """Of the whole instance."""
    return next(
        each.usd_per_hour for each in pricing.instances if each.instance_type == cost.instance_type
    )


def _checked(name: str, usd: float) -> float:
    if not (math.isfinite(usd) and usd >= 0):
        raise InputError(f"{name} must not be negative, got {usd!r}")
    return usd
