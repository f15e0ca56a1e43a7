"""A hundred trials of known services in virtual time: how often the stated interval is right."""

from falcon_ray.studies.figure import Figure
from falcon_ray.studies.measurement.agreement import (
    agreement,
    our_figures,
    three_window_figures,
)
from falcon_ray.studies.measurement.options import MeasurementOptions
from falcon_ray.studies.measurement.services import (
    CLOSE_PLAN,
    CORRELATED,
    STEADY,
    UNEVEN,
    WARMING,
)
from falcon_ray.studies.measurement.three_windows import WINDOW_S
from falcon_ray.studies.measurement.virtual_trials import virtual_trial
from falcon_ray.trial.plan import MeasurementPlan

COVERAGE = 0.9
SHORT_WINDOW_S = 1.0


def figures(options: MeasurementOptions) -> list[Figure]:
    """Coverage and errors of each service, ours beside the three-window rule's."""
    found: list[Figure] = []
    for case, service, plan, how in (
        ("steady", STEADY, MeasurementPlan(), "default plan"),
        ("warm-up 20 % deep", WARMING, MeasurementPlan(), "default plan"),
        ("warm-up, close", WARMING, CLOSE_PLAN, "until +-1.5 %"),
        ("correlated noise, close", CORRELATED, CLOSE_PLAN, "until +-1.5 %"),
        ("uneven batches, warm-up 30 % deep", UNEVEN, MeasurementPlan(), "default plan"),
    ):
        outcomes = [virtual_trial(service, plan, seed=seed) for seed in range(options.runs)]
        found += our_figures(
            agreement(service, outcomes),
            case,
            note=f"virtual time, {how}",
            covers_at_least=round(COVERAGE * options.runs),
            worst_within=False,
        )
        for window_s in (SHORT_WINDOW_S, WINDOW_S):
            found += three_window_figures(service, outcomes, case, window_s=window_s)
    return found
