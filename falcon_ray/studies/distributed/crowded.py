"""More trials than the cluster can hold: all of them finish, and what cannot be held is refused."""

from falcon_ray.space.observation import TrialStatus
from falcon_ray.studies.distributed.fleet import SIX, configuration_on, fleet, plan_of
from falcon_ray.studies.figure import Figure

MEASURED_S = 4.0
AT_LEAST_TIMES = 2.9
"""The cluster's GPUs that are asked for at once."""
REFUSED_WITHIN_S = 1.0


def figures() -> list[Figure]:
    """Three times the cluster's GPUs are asked for at once, some by trials of two replicas."""
    pairs = [configuration_on("T4", batch_size=size, replicas=2) for size in (1, 2, 4)]
    singles = [
        configuration_on(gpu_type, batch_size=size)
        for size in (1, 2, 4)
        for gpu_type in dict.fromkeys(SIX)
        if gpu_type != "T4"
    ]
    configurations = [*pairs, *singles]
    asked = sum(each.count("replicas", 1) for each in configurations)
    with fleet() as site:
        before = site.inventory()
        run = site.run(configurations, parallel=len(configurations), plan=plan_of(MEASURED_S))
        left, astray = site.left_behind(before), site.on_other_gpu(run.measured)
        too_large = configuration_on("A100", cpu_cores=4096)
        refused = site.run([too_large], parallel=1, plan=plan_of(MEASURED_S))
    (told,) = refused.trials
    times = asked / len(SIX)
    is_refused = told.observation.status is TrialStatus.INFEASIBLE
    return [
        Figure(
            name="GPUs asked for at once, in multiples of those that are there",
            value=times,
            at_least=AT_LEAST_TIMES,
        ),
        Figure(
            name="trials that finished, of those asked for at once",
            value=len(run.measured),
            at_least=len(configurations),
            note=(
                f"{len(configurations)} trials want {asked} GPUs of {len(SIX)}; "
                f"{run.wall_s:.0f} s in all{run.why_not_measured}"
            ),
        ),
        Figure(
            name="of them on another type of GPU than was asked for",
            value=len(astray),
            at_most=0,
        ),
        Figure(name="apps, actors, groups and processes left", value=len(left), at_most=0),
        Figure(
            name="a configuration that no node can hold: refused after",
            value=told.observation.times.wait_s if is_refused else float("inf"),
            unit="s",
            at_most=REFUSED_WITHIN_S,
            note=told.observation.reason,
        ),
    ]
