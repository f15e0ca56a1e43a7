"""A real deployment of a service whose answer is known."""

import pytest

from falcon_ray.runtime.testbed.known_service import known_trials
from falcon_ray.space.observation import TrialStatus
from falcon_ray.trial.known_service import KnownService
from falcon_ray.trial.plan import MeasurementPlan
from falcon_ray.trial.steady_state import PrecisionRule, WarmUpRule

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("no_app_left")]


def test_a_trial_finds_about_the_throughput_that_was_slept() -> None:
    service = KnownService(batch_size=4, service_s=0.1, noise_cv=0.02)
    plan = MeasurementPlan(
        warm_up=WarmUpRule(min_s=1.0, max_s=2.0), precision=PrecisionRule(min_s=2.0, max_s=3.0)
    )
    with known_trials() as trials:
        observation = trials.run(service, seed=0, plan=plan)
    assert observation.status is TrialStatus.MEASURED, observation.reason
    assert observation.measurement is not None
    # 4 requests in 100 ms; nothing can be faster than what is slept, but for noise.
    assert observation.measurement.saturation_rps == pytest.approx(40.0, rel=0.1)
