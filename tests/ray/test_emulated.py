"""A real deployment of an emulated model, on nodes that say that they have GPUs."""

import json
from pathlib import Path

import pytest

from falcon_ray.errors import InfeasibleCause
from falcon_ray.space.observation import Observation, TrialStatus
from tests.ray.processes import Command, own_ray

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

PROGRAM = Path(__file__).parent / "emulated_trial.py"
ROOT = PROGRAM.parents[2]


def test_an_emulated_gpu_serves_about_what_is_predicted_and_says_that_it_is_none(
    tmp_path: Path,
) -> None:
    with own_ray() as ray:
        environment = {**ray.environment, "PYTHONPATH": str(ROOT)}
        # Here nodes say themselves what they have.
        del environment["RAY_OVERRIDE_RESOURCES"]
        with Command(
            *("python", "-W", "ignore", str(PROGRAM)), environment=environment, directory=tmp_path
        ) as command:
            assert command.wait(timeout_s=200) == 0, command.output
        said = json.loads(command.output.splitlines()[-1])
        ray.wait_until_gone(timeout_s=30)
    # The head takes no trials; a T4's and an L4's cheapest instances have four CPUs.
    assert sorted(said["nodes"], key=str) == [[4, "L4", 1], [4, "T4", 1]]
    assert said["placed_on"] == [["T4"]]
    observation = Observation.from_json(said["observation"])
    assert observation.status is TrialStatus.MEASURED, observation.reason
    measured = observation.measurement
    assert measured is not None
    assert measured.saturation_rps == pytest.approx(said["predicted_rps"], rel=0.15)
    assert measured.environment["accelerator"] == "emulated T4"
    assert set(measured.enforcement.values()) == {"emulated"}
    # Most of its time it sleeps.
    assert said["cpu_share"] < 0.5
    refused = Observation.from_json(said["refused"])
    assert refused.status is TrialStatus.INFEASIBLE
    assert refused.cause is InfeasibleCause.MEMORY
    assert "emulated T4 out of memory" in refused.reason
