"""How long and how exactly to measure: one plan serves every trial of a search.

A plan holds rules and bounds. It does not know how load is made, nor what is deployed.
"""

import math
from dataclasses import dataclass, field, replace

from falcon_ray.errors import InputError
from falcon_ray.space.objective import Slo
from falcon_ray.space.workload import Scenario, Workload
from falcon_ray.trial.arrivals import ArrivalProcess, Poisson
from falcon_ray.trial.client import ClientRule
from falcon_ray.trial.overload import OverloadRule
from falcon_ray.trial.slo_rule import SloRule
from falcon_ray.trial.statistics import requests_to_certify
from falcon_ray.trial.steady_state import PrecisionRule, WarmUpRule

LOAD_POINT_FACTOR = 4
"""Requests of a load that is judged as a whole, in multiples of the fewest that can certify."""
DRIVER_DOUBLINGS = 4
"""From one driver to the most that there can be."""
RETRY_SHARE = 0.5
"""Of the longest attempt: a trial that held its resources for so long is not tried again."""
SURE_DEVIATIONS = 3.0
"""Random arrivals are planned for so many standard deviations more than are needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementPlan:
    """How long and how exactly to measure; one plan serves a whole search.

    Attributes:
        workload: The load that configurations are compared under.
        warm_up: When the deployment counts as warm.
        precision: When its throughput is known well enough.
        arrivals: How arrivals are spread in open loop.
        slo_rule: When a rate is certified under the SLO.
        overload: When an offered rate is seen to be too high.
        client: When the drivers are too late to be believed.
        poll_s: How often the rules are asked.
        model_s: Seconds of load on the model's own queue; 0 leaves that out.
        slo: Latency limit to certify a rate under, or None for throughput only.
        stall_s: Without an answer for so long, a service that has requests counts as hung.
        max_load_points: Offered rates to try under the SLO.
        load_point_max_s: Longest time at one offered rate that needs no more to be certified.
        certify_max_s: Longest time at one that does, as it is low.
        max_error_rate: A configuration that is shown to fail more of its requests is infeasible.
        max_output_error: One whose outputs differ more from float32 is refused; None accepts all.
        max_attempts: How often a trial is tried at most when the infrastructure fails under it;
            who runs it may bound that by time as well (`retry_within_s`).
        seed: Of the arrival times.

    Raises:
        InputError: A value is out of range, or the server scenario has no latency limit.
    """

    workload: Workload = field(default_factory=Workload)
    warm_up: WarmUpRule = field(default_factory=WarmUpRule)
    precision: PrecisionRule = field(default_factory=PrecisionRule)
    arrivals: ArrivalProcess = field(default_factory=Poisson)
    slo_rule: SloRule = field(default_factory=SloRule)
    overload: OverloadRule = field(default_factory=OverloadRule)
    client: ClientRule = field(default_factory=ClientRule)
    poll_s: float = 0.5
    model_s: float = 2.0
    slo: Slo | None = None
    stall_s: float = 10.0
    max_load_points: int = 8
    load_point_max_s: float = 30.0
    certify_max_s: float = 120.0
    max_error_rate: float = 0.01
    max_output_error: float | None = None
    max_attempts: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("poll_s", "stall_s", "load_point_max_s", "certify_max_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} must be positive and finite, got {value!r}")
        if not (math.isfinite(self.model_s) and self.model_s >= 0):
            raise InputError(f"model_s must not be negative, got {self.model_s!r}")
        if self.workload.scenario is Scenario.SERVER and self.slo is None:
            raise InputError("the server scenario needs a latency limit; give latency_budget_ms")

    def load_point_s(self, rate_rps: float) -> float:
        """Longest time at one offered rate.

        It is as long as certifying takes at least, but where that is too long for any verdict but
        a bad one. Where any stretch of the arrivals is like any other, the load ends as soon as it
        can be judged. Else all of it has to be seen: four times the fewest requests that can
        certify.
        """
        if self.slo is None:
            return self.load_point_max_s
        max_s = self.load_point_max_s
        if max_s < self.seconds_to_certify(rate_rps) <= self.certify_max_s:
            max_s = self.seconds_to_certify(rate_rps)
        if self.arrivals.steady:
            return max_s
        needed = LOAD_POINT_FACTOR * requests_to_certify(self.slo.latency_percentile)
        return min(max_s, max(2.0, needed / rate_rps))

    def longest_attempt_s(self, *, deploy_s: float, remove_s: float) -> float:
        """The most that one attempt at a trial holds its resources for.

        The deployment may be started twice, and the load at saturation as often as drivers can be
        doubled. Counted are the bounds of these loads. A call between them that hangs, as to a
        replica or to Ray, is ended by its own time-out, which is not counted.

        Args:
            deploy_s: Longest time for a deployment to start.
            remove_s: Longest time for it to go.
        """
        saturation_s = self.warm_up.max_s + self.precision.max_s + self.stall_s
        points_s = 0.0
        if self.slo is not None:
            longest_s = max(self.load_point_max_s, self.certify_max_s) + self.stall_s
            points_s = (self.max_load_points + 1) * longest_s
        load_s = (DRIVER_DOUBLINGS + 1) * saturation_s + self.model_s + self.stall_s + points_s
        return 2 * (deploy_s + remove_s) + load_s

    def retry_within_s(self, *, deploy_s: float, remove_s: float) -> float:
        """Once its attempts held resources for so long together, a trial is not tried again.

        Args:
            deploy_s: As in `longest_attempt_s`.
            remove_s: Likewise.
        """
        return RETRY_SHARE * self.longest_attempt_s(deploy_s=deploy_s, remove_s=remove_s)

    def longest_trial_s(self, *, deploy_s: float, remove_s: float) -> float:
        """The most that all attempts at a trial hold its resources for.

        That is the longest attempt after others that together stayed below `retry_within_s`. It
        holds as far as `longest_attempt_s` does, and where the recipe is given that bound.

        Args:
            deploy_s: As in `longest_attempt_s`.
            remove_s: Likewise.
        """
        attempt_s = self.longest_attempt_s(deploy_s=deploy_s, remove_s=remove_s)
        return attempt_s if self.max_attempts == 1 else (1 + RETRY_SHARE) * attempt_s

    @property
    def requests_to_certify(self) -> int:
        """Fewest requests of one load, none of them over the limit, that certify it.

        Arrivals without a pattern are judged a few times, which takes more of them.

        Raises:
            ValueError: There is no latency limit.
        """
        if self.slo is None:
            raise ValueError("without a latency limit nothing is certified")
        rule = self.slo_rule if self.arrivals.steady else replace(self.slo_rule, n_looks=1)
        return rule.requests_to_certify(self.slo)

    @property
    def lowest_certifiable_rps(self) -> float:
        """The lowest rate at which a load is long enough to be certified.

        Raises:
            ValueError: There is no latency limit.
        """
        return self._requests_to_plan / max(self.load_point_max_s, self.certify_max_s)

    def seconds_to_certify(self, rate_rps: float) -> float:
        """Shortest load at a rate that is sure to have the requests that certify the limit.

        Raises:
            ValueError: There is no latency limit.
        """
        return self._requests_to_plan / rate_rps

    @property
    def _requests_to_plan(self) -> float:
        needed = self.requests_to_certify
        return needed + SURE_DEVIATIONS * math.sqrt(needed) if self.arrivals.steady else needed
