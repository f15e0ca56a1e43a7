"""Whole trials as real Serve deployments: the healthy ones, and every way to fail."""

import os
import signal

import pytest
import ray
from ray.util.placement_group import placement_group, remove_placement_group

from falcon_ray.errors import InfeasibleCause
from falcon_ray.runtime import serve_apps
from falcon_ray.runtime.ray_session import live_nodes
from falcon_ray.runtime.serve_trial import TrialSetup, run_serve_trial
from falcon_ray.runtime.target import ModelTarget
from falcon_ray.runtime.torch_model import ModelReference, example_inputs
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.dimension import Value
from falcon_ray.space.observation import Measurement, Observation, TrialStatus
from falcon_ray.trial.recipe import MeasurementPlan
from falcon_ray.trial.steady_state import PrecisionRule, WarmUpRule
from tests.ray.conftest import target_reference

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("no_app_left")]

APP = "falcon-test-trial"
START_TIMEOUT_S = 60.0


class Phases:
    """Notes the phases of a trial, and does something when one of them first begins."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.kill_at: str | None = None

    def __call__(self, phase: str) -> None:
        if phase == self.kill_at and phase not in self.seen:
            _kill_a_replica()
        self.seen.append(phase)


def _kill_a_replica() -> None:
    state = serve_apps.app_state(APP)
    assert state is not None
    pid = state.replicas[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def _trial(
    factory: str = "tiny",
    *,
    phases: Phases | None = None,
    timeout_s: float = START_TIMEOUT_S,
    max_attempts: int = 1,
    **values: Value,
) -> Observation:
    model = ModelReference(target_reference("tiny.py", factory))
    setup = TrialSetup(
        target=ModelTarget(model),
        request=ray.put(example_inputs(model, 1).samples()[0]),
        nodes=live_nodes(),
        plan=MeasurementPlan(
            warm_up=WarmUpRule(min_s=0.4, max_s=0.8),
            precision=PrecisionRule(min_s=0.8, max_s=1.5),
            poll_s=0.2,
            model_s=1.0,
            max_attempts=max_attempts,
        ),
        deploy_timeout_s=timeout_s,
    )
    configuration = Configuration(
        {"cpu_cores": 1, "batch_size": 2, "batch_wait_ms": 0, "dtype": "float32", "replicas": 1}
        | values
    )
    return run_serve_trial(setup, configuration, app_name=APP, on_phase=phases or (lambda _: None))


def _measurement(observation: Observation) -> Measurement:
    assert observation.measurement is not None, observation.reason
    return observation.measurement


def test_a_healthy_model_is_measured_and_its_app_removed() -> None:
    phases = Phases()
    observation = _trial(phases=phases)
    measured = _measurement(observation)
    assert observation.status is TrialStatus.MEASURED, observation.reason
    assert observation.attempts == 1
    assert phases.seen == ["deploying", "warming up", "measuring", "removing"]
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
    assert measured.enforcement["cpu"] == "threads"
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


def test_a_factory_that_raises_makes_its_configuration_infeasible_in_its_own_words() -> None:
    observation = _trial("raising")
    assert observation.status is TrialStatus.INFEASIBLE, observation.reason
    assert "the weights of tiny are nowhere to be found" in observation.reason
    assert "\n" not in observation.reason


def test_a_replica_that_exits_while_it_starts_is_infeasible() -> None:
    observation = _trial("exiting")
    assert observation.status is TrialStatus.INFEASIBLE, observation.reason
    assert observation.reason.startswith("the replica did not start: ")


def test_a_replica_that_hangs_while_it_starts_is_given_up_after_the_time_out() -> None:
    observation = _trial("hanging", timeout_s=8)
    assert observation.status is TrialStatus.INFEASIBLE, observation.reason
    assert observation.cause is InfeasibleCause.TIMEOUT
    assert "still starting after 8 s" in observation.reason
    assert 8 <= observation.times.deploy_s < 30


def test_a_model_that_fails_its_requests_is_infeasible_in_its_own_words() -> None:
    observation = _trial("breaking")
    assert observation.status is TrialStatus.INFEASIBLE, observation.reason
    assert "requests failed" in observation.reason
    assert "tiny broke in service" in observation.reason


def test_what_no_node_can_hold_is_refused_before_anything_is_deployed() -> None:
    observation = _trial(cpu_cores=64)
    assert observation.status is TrialStatus.INFEASIBLE, observation.reason
    assert "no node can hold a replica with 64 CPU cores" in observation.reason
    # Deploying anything takes seconds.
    assert observation.times.deploy_s < 0.5


def test_resources_that_others_hold_are_no_lesson_about_the_configuration() -> None:
    group = placement_group([{"CPU": 2}])
    assert group.wait(timeout_seconds=30)
    try:
        observation = _trial(timeout_s=1)
    finally:
        remove_placement_group(group)
    assert observation.status is TrialStatus.FAILED, observation.reason
    assert "taken by others" in observation.reason


def test_a_replica_killed_in_mid_trial_fails_the_trial() -> None:
    phases = Phases()
    phases.kill_at = "warming up"
    observation = _trial(phases=phases)
    assert observation.status is TrialStatus.FAILED, observation.reason
    assert "replica died" in observation.reason


def test_a_trial_whose_replica_was_killed_is_measured_at_the_second_attempt() -> None:
    phases = Phases()
    phases.kill_at = "measuring"
    observation = _trial(phases=phases, max_attempts=2)
    assert observation.status is TrialStatus.MEASURED, observation.reason
    assert observation.attempts == 2
    assert phases.seen.count("deploying") == 2
