"""The capacity that trials find under a latency limit, beside the true one."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from falcon_ray.runtime.testbed.known_service import known_trials
from falcon_ray.space.objective import Slo
from falcon_ray.space.workload import Scenario, Workload
from falcon_ray.studies.figure import Figure
from falcon_ray.studies.measurement.options import MeasurementOptions
from falcon_ray.studies.measurement.services import CORRELATED, UNEVEN
from falcon_ray.studies.measurement.truth import capacity_rps
from falcon_ray.studies.measurement.virtual_trials import (
    Heard,
    TrialOutcome,
    outcome,
    virtual_trial,
)
from falcon_ray.trial.known_service import KnownService
from falcon_ray.trial.plan import MeasurementPlan

SERVICE = KnownService(batch_size=16, service_s=0.1, noise_cv=0.05)
LIMIT = Slo(latency_budget_ms=260.0)
"""Broken at 86 % of saturation, where 1.3 batches are waited for."""
REAL_SERVICE = KnownService(batch_size=16, service_s=0.2, noise_cv=0.05)
REAL_LIMIT = Slo(latency_budget_ms=520.0)
"""The same in slow motion: Serve's path is in the latency and not in the truth, and counts half."""
CORRELATED_LIMIT = Slo(latency_budget_ms=60.0)
"""Broken at 80 % of saturation by a service whose noise lasts."""
UNEVEN_LIMIT = Slo(latency_budget_ms=90.0)
"""Broken at 75 % of saturation by one of small batches that differ a lot."""
PLAN = MeasurementPlan(
    workload=Workload(scenario=Scenario.SERVER), slo=LIMIT, load_point_max_s=60.0
)
NEAR_PCT = 5.0
GOAL_SHARE = 0.9
MAX_POINTS = 8


def figures(options: MeasurementOptions) -> list[Figure]:
    """Errors over many seeds in virtual time, and of one real deployment."""
    found = virtual_figures(options.runs)
    with known_trials() as trials:
        heard = Heard()
        plan = replace(PLAN, slo=REAL_LIMIT)
        real = outcome(trials.run(REAL_SERVICE, seed=0, plan=plan, on_requests=heard), heard)
    return [*found, *_figures([real], "real deployment", REAL_SERVICE, REAL_LIMIT)]


def virtual_figures(n_runs: int) -> list[Figure]:
    """Errors over so many seeds for each of several services, in virtual time."""
    found: list[Figure] = []
    for case, service, limit in (
        ("virtual", SERVICE, LIMIT),
        ("virtual, correlated noise", CORRELATED, CORRELATED_LIMIT),
        ("virtual, uneven batches", UNEVEN, UNEVEN_LIMIT),
    ):
        outcomes = [
            virtual_trial(service, replace(PLAN, slo=limit, seed=seed), seed=seed)
            for seed in range(n_runs)
        ]
        found += _figures(outcomes, case, service, limit)
    return found


def _figures(
    outcomes: Sequence[TrialOutcome], case: str, service: KnownService, limit: Slo
) -> list[Figure]:
    true_rps = capacity_rps(service, limit)
    found_rps = np.array([each.measurement.capacity_rps or 0.0 for each in outcomes])
    errors_pct = 100 * (found_rps / true_rps - 1)
    points = [each.n_offered for each in outcomes]
    offered_s = [each.offered_s for each in outcomes]
    n = len(outcomes)
    share = true_rps / service.saturation_rps
    return [
        Figure(
            name=(
                f"{case}: capacity under {limit.latency_budget_ms:g} ms within {NEAR_PCT:g} % of "
                "the true one"
            ),
            value=int(np.count_nonzero(np.abs(errors_pct) <= NEAR_PCT)),
            unit=f"of {n}",
            at_least=math.ceil(GOAL_SHARE * n),
            note=(
                f"true {true_rps:.1f}/s ({share:.0%} of saturation); error: median "
                f"{np.median(np.abs(errors_pct)):.1f} %, mean {errors_pct.mean():+.1f} %, worst "
                f"{np.abs(errors_pct).max():.1f} %; {np.mean(errors_pct > 0):.0%} lie above"
            ),
        ),
        Figure(
            name=f"{case}: load points, most",
            value=float(max(points)),
            at_most=MAX_POINTS,
            note=(
                f"mean {np.mean(points):.1f}, repeated ones included, {np.mean(offered_s):.0f} s "
                "in all; what is certified has a bound, so it lies below"
            ),
        ),
        Figure(
            name=f"{case}: deployments for one capacity, most",
            value=max(each.n_deployments for each in outcomes),
            at_most=1,
        ),
    ]
