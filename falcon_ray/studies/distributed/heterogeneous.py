"""Trials in parallel on six nodes with five types of GPU: each on the right one, and how fast.

The measured phase takes a fixed time, so that the ideal is known: every node is always measuring,
but for the deployment of each trial as one takes that has the machine to itself.
"""

from collections.abc import Sequence
from statistics import median

from falcon_ray.space.configuration import Configuration
from falcon_ray.studies.distributed.fleet import (
    SIX,
    Fleet,
    FleetRun,
    configuration_on,
    fleet,
    plan_of,
)
from falcon_ray.studies.figure import Figure

MEASURED_S = 20.0
N_TRIALS = 24
PARALLEL = 6
AT_ONCE = 16
_SHORT_S = 5.0
_QUARTER_WARM_UP_S = 8.0
"""A quarter of a GPU takes four times as long: up to 2.4 s for the first batch of a T4."""


def figures() -> list[Figure]:
    """24 trials with 6 in parallel, and 16 at once on shared GPUs."""
    with fleet() as site:
        alone = site.run([configuration_on("L4", batch_size=8)], parallel=1, plan=plan_of(_SHORT_S))
        return [*_in_parallel(site, alone), *_at_once(site)]


def balanced(n: int) -> list[Configuration]:
    """So many different configurations, the same number for each of the six nodes."""
    sizes = dict.fromkeys(SIX, 0)
    found: list[Configuration] = []
    for gpu_type in (SIX[i % len(SIX)] for i in range(n)):
        sizes[gpu_type] += 1
        found.append(configuration_on(gpu_type, batch_size=sizes[gpu_type]))
    return found


def overhead_s(run: FleetRun, *, measured_s: float) -> float:
    """What a trial that had the machine to itself took beside its measured phase."""
    (trial,) = run.trials
    return trial.end_s - trial.start_s - measured_s


def _in_parallel(site: Fleet, alone: FleetRun) -> Sequence[Figure]:
    before = site.inventory()
    run = site.run(balanced(N_TRIALS), parallel=PARALLEL, plan=plan_of(MEASURED_S))
    left = site.left_behind(before)
    deployment_s = overhead_s(alone, measured_s=_SHORT_S)
    ideal_s = N_TRIALS / PARALLEL * (MEASURED_S + deployment_s)
    bare_s = N_TRIALS / PARALLEL * MEASURED_S + deployment_s
    took_s = [each.end_s - each.start_s - MEASURED_S for each in run.measured]
    return [
        Figure(
            name=f"{N_TRIALS} trials, {PARALLEL} in parallel: measured",
            value=len(run.measured),
            at_least=N_TRIALS,
            at_most=N_TRIALS,
            note="emulated GPUs: T4, T4, L4, A10G, V100, A100; a raylet each",
        ),
        Figure(
            name="of them on another type of GPU than was asked for",
            value=len(site.on_other_gpu(run.measured)),
            at_most=0,
        ),
        Figure(name="apps, actors, groups and processes left", value=len(left), at_most=0),
        Figure(
            name="parallel efficiency",
            value=100 * ideal_s / run.wall_s,
            unit="%",
            at_least=85,
            note=(
                f"{run.wall_s:.0f} s for {N_TRIALS / PARALLEL:g} rounds of {MEASURED_S:g} s and a "
                f"deployment, which takes {deployment_s:.1f} s alone and {median(took_s):.1f} s "
                f"in the median here; with one deployment in all instead of one in each round "
                f"{100 * bare_s / run.wall_s:.0f} %"
            ),
        ),
    ]


def _at_once(site: Fleet) -> Sequence[Figure]:
    """Four quarters of a GPU on each node; more than the trials, which run all at once."""
    configurations = [
        configuration_on(gpu_type, batch_size=size, gpu_share=0.25)
        for size in (1, 2, 4, 8)
        for gpu_type in dict.fromkeys(SIX)
    ][:AT_ONCE]
    before = site.inventory()
    plan = plan_of(MEASURED_S, warm_up_s=_QUARTER_WARM_UP_S)
    run = site.run(configurations, parallel=AT_ONCE, plan=plan, colocate=True)
    left = site.left_behind(before)
    return [
        Figure(
            name=f"{AT_ONCE} trials at once: measured",
            value=len(run.measured),
            at_least=AT_ONCE,
            note=f"as many Serve apps; {run.wall_s:.0f} s in all{run.why_not_measured}",
        ),
        Figure(
            name="had their resources at the same moment", value=run.most_at_once, at_least=AT_ONCE
        ),
        Figure(
            name="of them on another type of GPU than was asked for",
            value=len(site.on_other_gpu(run.measured)),
            at_most=0,
        ),
        Figure(name="apps, actors, groups and processes left", value=len(left), at_most=0),
    ]
