"""Whole trials of healthy models as real Serve deployments."""

from collections.abc import Callable

import pytest
import ray

from falcon_ray.runtime.model_reference import ModelReference
from falcon_ray.runtime.ray_session import live_nodes
from falcon_ray.runtime.serve_trial import TrialSetup, run_serve_trial
from falcon_ray.runtime.target import ModelTarget
from falcon_ray.runtime.torch_model import example_inputs
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.dimension import Value
from falcon_ray.space.observation import Measurement, Observation, TrialStatus
from falcon_ray.trial.plan import MeasurementPlan
from falcon_ray.trial.steady_state import PrecisionRule, WarmUpRule
from tests.ray.conftest import target_reference

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("no_app_left")]

APP = "falcon-test-trial"
START_TIMEOUT_S = 60.0


def _trial(*, on_phase: Callable[[str], None] = lambda _: None, **values: Value) -> Observation:
    model = ModelReference(target_reference("tiny.py", "tiny"))
    setup = TrialSetup(
        target=ModelTarget(model),
        request=ray.put(example_inputs(model, 1).samples()[0]),
        nodes=live_nodes(),
        plan=MeasurementPlan(
            warm_up=WarmUpRule(min_s=0.4, max_s=0.8),
            precision=PrecisionRule(min_s=0.8, max_s=1.5),
            poll_s=0.2,
            model_s=1.0,
            max_attempts=1,
        ),
        deploy_timeout_s=START_TIMEOUT_S,
    )
    configuration = Configuration(
        {"cpu_cores": 1, "batch_size": 2, "batch_wait_ms": 0, "dtype": "float32", "replicas": 1}
        | values
    )
    return run_serve_trial(setup, configuration, app_name=APP, on_phase=on_phase)


def _measurement(observation: Observation) -> Measurement:
    assert observation.measurement is not None, observation.reason
    return observation.measurement


def test_a_healthy_model_is_measured_and_its_app_removed() -> None:
    phases: list[str] = []
    observation = _trial(on_phase=phases.append)
    measured = _measurement(observation)
    assert observation.status is TrialStatus.MEASURED, observation.reason
    assert observation.attempts == 1
    assert phases == [
        *("deploying", "warming up", "measuring", "measuring the model alone"),
        "removing",
    ]
    assert measured.saturation_rps > 20
    assert measured.service_time_ms is not None
    assert 0.01 < measured.service_time_ms < 100
    assert measured.model_rps is not None
    # The model behind its own queue does not pay for Serve's path.
    assert measured.model_rps > 0.8 * measured.saturation_rps
    assert measured.memory_gib is not None
    assert 0.05 < measured.memory_gib < 4  # torch alone takes a few hundred MiB
    assert measured.error_rate == 0
    assert measured.output_error == 0
    # Which of them depends on who else reserves cores of this machine.
    assert measured.enforcement["cpu"] in {"affinity", "threads"}
    assert measured.environment["threads"] == "1"
    assert measured.environment["ray"] == ray.__version__
    assert min(observation.times.deploy_s, observation.times.teardown_s) > 0


def test_two_replicas_in_bfloat16_say_how_far_they_are_from_float32() -> None:
    measured = _measurement(_trial(replicas=2, dtype="bfloat16"))
    assert measured.model_rps is not None, "both replicas were found and loaded"
    assert measured.output_error is not None
    # A bfloat16 has 8 significant bits: one rounding is off by up to 2**-9 = 0.2 %.
    assert 1e-5 < measured.output_error < 0.05
    assert measured.environment["dtype"] == "bfloat16"
