"""A load that fails because the deployment was lost ends the trial as what the loss was."""

from falcon_ray.errors import InfeasibleCause, TrialFailedError
from falcon_ray.space.observation import TrialStatus
from tests.unit.trial.trials import ONE_ATTEMPT, Trial, assert_gone, endpoint

BROKEN = TrialFailedError("collecting the load failed")


def test_a_load_that_broke_with_its_replica_in_every_deployment_is_a_crash() -> None:
    trial = Trial(load_error=BROKEN)
    trial.load.loses_replica = True
    observation = trial.run()
    assert observation.status is TrialStatus.INFEASIBLE
    assert observation.reason.startswith("its process died in each of 3 attempts")
    assert_gone(trial, deployments=3)


def test_a_load_that_broke_with_a_replica_that_ran_out_of_memory_is_a_lesson() -> None:
    trial = Trial(load_error=BROKEN)
    trial.load.loses_replica = True
    trial.load.error_text = "a replica died under load (OutOfMemoryError: )"
    observation = trial.run()
    assert (observation.status, observation.cause, observation.attempts) == (
        TrialStatus.INFEASIBLE,
        InfeasibleCause.MEMORY,
        1,
    )


def test_the_model_alone_that_breaks_with_its_replica_is_classified_by_its_own_load() -> None:
    trial = Trial(model_every_s=0.04)
    assert trial.model_load is not None
    trial.model_load.error = BROKEN
    trial.model_load.loses_replica = True
    trial.model_load.error_text = "OutOfMemoryError: "
    observation = trial.run()
    assert (observation.status, observation.cause) == (
        TrialStatus.INFEASIBLE,
        InfeasibleCause.MEMORY,
    )


def test_a_replica_that_was_replaced_when_the_load_broke_is_named() -> None:
    lost = endpoint(replaced_after_s=1.0)
    trial = Trial(
        lost, plan=ONE_ATTEMPT, clock=lost.clock, load_error=BROKEN, load_error_after_s=3.5
    )
    assert "first became second" in trial.run().reason


def test_a_load_that_broke_by_itself_stays_an_accident() -> None:
    observation = Trial(load_error=BROKEN).run()
    assert observation.status is TrialStatus.FAILED
    assert observation.reason == "collecting the load failed"
