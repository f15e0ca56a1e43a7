"""One real model measured again and again, beside the same model in a bare loop without Serve.

Deployments and fresh processes take turns, so that what the machine does in between befalls both.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from falcon_ray.errors import InputError, TrialFailedError
from falcon_ray.profiling.zoo.registry import REFERENCE_MODELS
from falcon_ray.runtime.model_trials import model_trials
from falcon_ray.runtime.testbed.bare_loop import BareLoop, run_in_new_process
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.observation import Measurement
from falcon_ray.studies.figure import Figure
from falcon_ray.studies.measurement.options import MeasurementOptions
from falcon_ray.trial.plan import MeasurementPlan
from falcon_ray.trial.steady_state import PrecisionRule, WarmUpRule

MODEL = "mobilenet_v3"
CONFIGURATION = Configuration(
    {"cpu_cores": 1, "batch_size": 4, "batch_wait_ms": 0, "dtype": "float32", "replicas": 1}
)
WARM_UP_S, MEASURE_S = 3.0, 6.0
PLAN = MeasurementPlan(
    warm_up=WarmUpRule(min_s=WARM_UP_S, max_s=WARM_UP_S),
    precision=PrecisionRule(min_s=MEASURE_S, max_s=MEASURE_S),
    model_s=1.0,
)
"""As many seconds as the bare loop has, whatever the rules would say."""
DEPLOY_TIMEOUT_S = 60.0
GOAL_RATIO = 1.5


def figures(options: MeasurementOptions) -> list[Figure]:
    """Spread between deployments over the spread between processes.

    Raises:
        InputError: A trial or a process failed.
    """
    n = 2 * options.deployments
    factory = REFERENCE_MODELS[MODEL].factory
    loop = BareLoop(
        factory=factory, configuration=CONFIGURATION, warm_up_s=WARM_UP_S, measure_s=MEASURE_S
    )
    served: list[Measurement] = []
    bare_rps: list[float] = []
    with model_trials({MODEL: factory}, plan=PLAN, deploy_timeout_s=DEPLOY_TIMEOUT_S) as trials:
        for _ in range(n):
            observation = trials.run(MODEL, CONFIGURATION)
            if observation.measurement is None:
                raise InputError(f"a trial of {MODEL} ended without: {observation.reason}")
            served.append(observation.measurement)
            try:
                bare_rps.append(run_in_new_process(loop))
            except TrialFailedError as error:
                raise InputError(str(error)) from error
    served_rps = [each.saturation_rps for each in served]
    served_pct, bare_pct = variation_pct(served_rps), variation_pct(bare_rps)
    note = f"{n} of each in turn, one core, batches of 4, {WARM_UP_S:g} + {MEASURE_S:g} s"
    return [
        Figure(
            name=f"{MODEL}: variation between deployments",
            value=served_pct,
            unit="%",
            note=(
                f"{note}; mean {np.mean(served_rps):.1f}/s; what differs between deployments is "
                f"in no deployment's own interval: those of {overlapping(served):.0%} of all pairs "
                "overlap"
            ),
        ),
        Figure(
            name=f"{MODEL}: variation between bare loops",
            value=bare_pct,
            unit="%",
            note=f"fresh processes without Serve; mean {np.mean(bare_rps):.1f}/s",
        ),
        Figure(
            name=f"{MODEL}: variation, deployments over bare loops",
            value=served_pct / bare_pct,
            at_most=GOAL_RATIO,
        ),
    ]


def variation_pct(rates_rps: Sequence[float]) -> float:
    """Standard deviation over the mean, in percent; at least two rates."""
    return 100 * float(np.std(rates_rps, ddof=1) / np.mean(rates_rps))


def overlapping(said: Sequence[Measurement]) -> float:
    """Share of pairs whose intervals have something in common; at least two measurements."""
    pairs = list(itertools.combinations(said, 2))
    return sum(_overlap(first, second) for first, second in pairs) / len(pairs)


def _overlap(first: Measurement, second: Measurement) -> bool:
    ends = [(each.saturation_rps_ci_low, each.saturation_rps_ci_high) for each in (first, second)]
    (low, high), (other_low, other_high) = ends
    if low is None or high is None or other_low is None or other_high is None:
        return False
    return low <= other_high and other_low <= high
