"""How fast the load generator inside a replica is: requests per second that take no time."""

from dataclasses import replace

from falcon_ray.errors import InputError
from falcon_ray.runtime.testbed.known_service import known_trials
from falcon_ray.space.workload import LoadPath, Workload
from falcon_ray.studies.figure import Figure
from falcon_ray.studies.measurement.options import MeasurementOptions
from falcon_ray.trial.known_service import KnownService
from falcon_ray.trial.plan import MeasurementPlan

NOTHING = KnownService(batch_size=256, service_s=0.0)
GOAL_RPS = 10_000.0


def figures(options: MeasurementOptions) -> list[Figure]:  # noqa: ARG001 - one deployment
    """Requests per second through the batching queue to a function that does nothing."""
    plan = replace(MeasurementPlan(), workload=Workload(path=LoadPath.REPLICA))
    with known_trials() as trials:
        observation = trials.run(NOTHING, seed=0, plan=plan)
    said = observation.measurement
    if said is None:
        raise InputError(f"the load generator could not be measured: {observation.reason}")
    return [
        Figure(
            name="load generator inside the replica",
            value=said.saturation_rps,
            unit="/s",
            at_least=GOAL_RPS,
            note=(
                f"closed loop through the replica's batching queue, batches of "
                f"{NOTHING.batch_size} that do nothing; busiest process used "
                f"{said.driver_cpu_share or 0.0:.0%} of a core"
            ),
        )
    ]
