"""The books of one search's dollars: what its trials cost, and which of them may still start.

It puts together prices, the longest that a trial can take, and what a journal says was spent. It
does not know why a trial ended, nor who suggests the next.
"""

import numpy as np

from falcon_ray.optimizers.readiness import Readiness
from falcon_ray.report.record import SearchRecord
from falcon_ray.report.spend import spend
from falcon_ray.space.configuration import Configuration, FloatArray
from falcon_ray.space.observation import Observation, TrialStatus, TrialTimes
from falcon_ray.space.spend import Budget, TrialLimits, start_usd, trial_usd, worst_usd


class SearchSpend:
    """What one run of a search spends.

    Args:
        record: What the search is about, and what was spent before.
        limits: How long its trials may take. The start of nodes is charged where it may take
            any time: where an autoscaler adds them.
        max_cost_usd: What it may spend in all; None for no limit.
        confirm_rounds: Of the confirmation; 0 without one.
    """

    def __init__(
        self,
        record: SearchRecord,
        limits: TrialLimits,
        *,
        max_cost_usd: float | None,
        confirm_rounds: int,
    ) -> None:
        header = record.header
        self._header, self._limits = header, limits
        self._has_limit = max_cost_usd is not None
        self._has_trials = bool(record.trials)
        self._worst_usd: FloatArray = worst_usd(header.space.candidates, header.pricing, limits)
        self._budget = Budget(
            max_cost_usd,
            spent_usd=self._spent_before(record),
            confirm_rounds=confirm_rounds,
            baseline_usd=0.0 if header.baseline is None else self.worst_of(header.baseline),
            tried_usd=[
                self.worst_of(each.observation.configuration)
                for each in record.trials
                if each.observation.status is TrialStatus.MEASURED
            ],
        )

    def check(self) -> None:
        """Refuse a limit that does not allow for a single trial.

        A search that has one goes on as far as the limit allows: `why_not` and `may_confirm`
        say how far.

        Raises:
            OverBudgetError: No trial has ended, and none may start.
        """
        if not self._has_trials:
            self._budget.check(self._worst_usd)

    @property
    def spent_usd(self) -> float:
        """What all trials cost that ended, those of earlier runs included."""
        return self._budget.spent_usd

    def worst_of(self, configuration: Configuration) -> float:
        """The most that a trial of it can cost."""
        return float(worst_usd([configuration], self._header.pricing, self._limits)[0])

    def narrowed(self, readiness: Readiness | None) -> Readiness | None:
        """What is ready, without what could exceed the limit."""
        if not self._has_limit:
            return readiness
        n = len(self._header.space)
        known = readiness or Readiness(np.ones(n, dtype=np.bool_), np.zeros(n))
        return known.without(~self._budget.affordable(self._worst_usd))

    def why_not(self, configuration: Configuration) -> str:
        """Why a trial of it may not start; empty where it may."""
        if self._budget.may_start(self.worst_of(configuration)):
            return ""
        return (
            f"one more trial could exceed max_cost_usd: {self.spent_usd:.4g} USD are spent, and "
            "its confirmation is set aside"
        )

    def start(self, name: str, configuration: Configuration) -> None:
        """A trial starts."""
        self._budget.start(name, self.worst_of(configuration))

    def end(self, name: str, observation: Observation, *, held_at_most_s: float) -> float | None:
        """A trial ended; what it cost.

        Args:
            name: As it was started.
            observation: How it ended. What it says of its seconds counts.
            held_at_most_s: Seconds for which it can have held its resources, which count where it
                says nothing: its process died.
        """
        usd = self._cost(observation, held_at_most_s=held_at_most_s)
        measured = observation.status is TrialStatus.MEASURED
        self._budget.end(name, usd, may_be_confirmed=measured)
        return usd

    def may_confirm(self, configuration: Configuration) -> bool:
        """Whether it may be measured afresh, out of what was set aside for that."""
        return self._budget.may_confirm(self.worst_of(configuration))

    def _cost(self, observation: Observation, *, held_at_most_s: float) -> float | None:
        if observation.never_began:
            return 0.0
        times, configuration = observation.times, observation.configuration
        pricing = self._header.pricing
        held_s = held_at_most_s if times == TrialTimes() else times.held_s
        held = trial_usd(configuration, pricing, held_s=held_s)
        # Where no autoscaler adds nodes, those that are waited for cost what they cost anyway.
        adds_nodes = self._limits.longest_start_s > 0
        start_s = times.provision_s if adds_nodes else 0.0
        start = start_usd(configuration, pricing, start_s=start_s)
        return None if held is None or start is None else held + start

    def _spent_before(self, record: SearchRecord) -> float:
        """What the journal says, and at worst what it does not say."""
        unknown = [
            *(each.configuration for each in record.interrupted),
            *(each.configuration for each in record.interrupted_confirmations),
            *(
                each.observation.configuration
                for each in (*record.trials, *record.confirmations)
                if each.usd is None
            ),
        ]
        known = spend(record).total_usd or 0.0
        return known + sum(self.worst_of(each) for each in unknown)
