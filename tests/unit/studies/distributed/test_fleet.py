import warnings

from falcon_ray.space.observation import Measurement, Observation, TrialStatus

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what Ray imports is deprecated here and there
    from falcon_ray.studies.distributed.fleet import FleetRun, FleetTrial, configuration_on

MEASURED = FleetTrial(
    observation=Observation(
        configuration=configuration_on("T4"),
        status=TrialStatus.MEASURED,
        measurement=Measurement(saturation_rps=10.0),
    ),
    start_s=0.0,
    end_s=20.0,
)
FAILED = FleetTrial(
    observation=Observation(
        configuration=configuration_on("L4"), status=TrialStatus.FAILED, reason="client-limited"
    ),
    start_s=10.0,
    end_s=30.0,
)


def test_a_run_says_why_trials_of_it_were_not_measured() -> None:
    run = FleetRun((MEASURED, FAILED), wall_s=30.0)
    assert run.measured == (MEASURED,)
    assert run.why_not_measured == "; not measured: client-limited"
    assert FleetRun((MEASURED,), wall_s=20.0).why_not_measured == ""


def test_trials_that_overlap_count_as_at_once() -> None:
    assert FleetRun((MEASURED, FAILED), wall_s=30.0).most_at_once == 2
