"""The capacity that trials find under a latency limit, beside the true one."""

from collections.abc import Sequence

import numpy as np

from falcon_ray.runtime.testbed.known_service import known_trials
from falcon_ray.space.objective import Slo
from falcon_ray.space.observation import Measurement
from falcon_ray.space.workload import Scenario, Workload
from falcon_ray.studies.figure import Figure
from falcon_ray.studies.measurement.options import MeasurementOptions
from falcon_ray.studies.measurement.truth import capacity_rps
from falcon_ray.studies.measurement.virtual_trials import Heard, outcome, virtual_trial
from falcon_ray.trial.known_service import KnownService
from falcon_ray.trial.plan import MeasurementPlan

SERVICE = KnownService(batch_size=16, service_s=0.1, noise_cv=0.05)
LIMIT = Slo(latency_budget_ms=260.0)
"""Broken at 86 % of saturation, where 1.3 batches are waited for."""
PLAN = MeasurementPlan(
    workload=Workload(scenario=Scenario.SERVER), slo=LIMIT, load_point_max_s=60.0
)
GOAL_PCT = 5.0
MAX_POINTS = 8


def figures(options: MeasurementOptions) -> list[Figure]:
    """Errors over many seeds in virtual time, and of one real deployment."""
    virtual = [virtual_trial(SERVICE, PLAN, seed=seed).measurement for seed in range(options.runs)]
    with known_trials() as trials:
        heard = Heard()
        real = outcome(trials.run(SERVICE, seed=0, plan=PLAN, on_requests=heard), heard)
    return [*_figures(virtual, "virtual"), *_figures([real.measurement], "real deployment")]


def _figures(said: Sequence[Measurement], case: str) -> list[Figure]:
    true_rps = capacity_rps(SERVICE, LIMIT)
    errors_pct = np.array([100 * ((each.capacity_rps or 0.0) / true_rps - 1) for each in said])
    points = [each.n_load_points for each in said]
    near = np.mean(np.abs(errors_pct) <= GOAL_PCT)
    share = true_rps / SERVICE.saturation_rps
    return [
        Figure(
            name=f"{case}: error of the capacity under {LIMIT.latency_budget_ms:g} ms, median",
            value=float(np.median(np.abs(errors_pct))),
            unit="%",
            at_most=GOAL_PCT,
            note=(
                f"{len(said)} deployments, true {true_rps:.1f}/s ({share:.0%} of saturation); "
                f"{near:.0%} within {GOAL_PCT:g} %, mean {errors_pct.mean():+.1f} %, worst "
                f"{np.abs(errors_pct).max():.1f} %"
            ),
        ),
        Figure(
            name=f"{case}: load points, most",
            value=float(max(points)),
            at_most=MAX_POINTS,
            note=f"mean {np.mean(points):.1f}; what is certified has a bound, so it lies below",
        ),
    ]
