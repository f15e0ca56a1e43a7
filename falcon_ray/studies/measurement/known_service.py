"""Real deployments of a service whose answer is known, beside the three-window rule."""

from falcon_ray.runtime.testbed.known_service import known_trials
from falcon_ray.studies.figure import Figure
from falcon_ray.studies.measurement.agreement import (
    agreement,
    our_figures,
    three_window_figures,
)
from falcon_ray.studies.measurement.options import MeasurementOptions
from falcon_ray.studies.measurement.services import CLOSE_PLAN, REAL_WARMING
from falcon_ray.studies.measurement.virtual_trials import Heard, TrialOutcome, outcome

WINDOW_S = 1.0
"""Of the three-window rule; with its default of 5 s few of our trials would be long enough."""


def figures(options: MeasurementOptions) -> list[Figure]:
    """Errors of every deployment; through the deployment handle, Serve's overhead included."""
    outcomes: list[TrialOutcome] = []
    with known_trials() as trials:
        for seed in range(options.deployments):
            heard = Heard()
            said = trials.run(REAL_WARMING, seed=seed, plan=CLOSE_PLAN, on_requests=heard)
            outcomes.append(outcome(said, heard))
    return [
        *our_figures(
            agreement(REAL_WARMING, outcomes),
            "real deployments",
            note=(
                f"{1000 * REAL_WARMING.service_s:g} ms a batch of {REAL_WARMING.batch_size}, "
                "by handle"
            ),
            covers_at_least=options.deployments,
            worst_within=True,
        ),
        *three_window_figures(REAL_WARMING, outcomes, "real deployments", window_s=WINDOW_S),
    ]
