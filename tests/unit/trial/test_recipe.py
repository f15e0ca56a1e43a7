import math
from dataclasses import replace

import pytest

from falcon_ray.errors import (
    InfeasibleCause,
    InfeasibleError,
    NodesUnavailableError,
    TrialFailedError,
)
from falcon_ray.space.observation import TrialStatus
from falcon_ray.space.workload import LoadPath, Workload
from falcon_ray.trial.plan import MeasurementPlan
from falcon_ray.trial.protocols import EndpointFacts
from falcon_ray.trial.steady_state import WarmUpRule
from tests.fakes import FakeEndpoint, FakeUsage, VirtualClock
from tests.unit.trial.trials import (
    CONFIGURATION,
    ONE_ATTEMPT,
    SATURATION_RPS,
    Trial,
    assert_gone,
    endpoint,
    served_by,
    with_slo,
)


def test_phases_come_in_the_order_of_a_trial() -> None:
    trial = Trial()
    trial.run()
    assert trial.phases == ["deploying", "warming up", "measuring", "removing"]
    assert_gone(trial)


def test_with_an_slo_the_offered_rates_come_after_the_measurement() -> None:
    trial = Trial(plan=with_slo(10_000.0))
    trial.run()
    assert trial.phases[:3] == ["deploying", "warming up", "measuring"]
    assert trial.phases[3:5] == ["sending single requests", "offering 70/s"]
    assert all(phase.startswith("offering") for phase in trial.phases[4:-1])
    assert trial.phases[-1] == "removing"


def test_throughput_is_that_of_the_service() -> None:
    measured = Trial().measure()
    assert measured.saturation_rps == pytest.approx(4 / 0.04)
    assert measured.saturation_rps_ci_low == pytest.approx(SATURATION_RPS)
    assert measured.saturation_rps_ci_high == pytest.approx(SATURATION_RPS)


def test_at_saturation_a_request_waits_for_the_batch_before_its_own() -> None:
    measured = Trial().measure()
    # Twice the batch is in flight: 40 ms of waiting and 40 ms of service.
    assert measured.latency_p50_ms == pytest.approx(80.0)
    assert measured.latency_p999_ms == pytest.approx(80.0)


def test_the_load_keeps_as_many_in_flight_as_the_endpoint_asks_for() -> None:
    trial = Trial()
    trial.run()
    assert trial.load.concurrencies == [8, 1]  # the last one only sees whether it still answers


def test_requests_of_the_warm_up_are_not_counted() -> None:
    # Three seconds of measuring are enough where every batch takes equally long.
    assert Trial().measure().n_requests == pytest.approx(3.0 * SATURATION_RPS, abs=4)


def test_what_endpoint_monitor_and_load_say_stands_in_the_measurement() -> None:
    said = EndpointFacts(
        service_time_ms=40.0,
        output_error=0.001,
        enforcement={"cpu": "threads"},
        environment={"device": "cpu"},
    )
    trial = served_by(endpoint(said=said))
    trial.monitor.usage = FakeUsage(
        memory_gib=1.5, gpu_memory_gib=2.5, gpu_utilization_pct=70.0, gpu_power_w=90.0
    )
    trial.load.lags_ms, trial.load.cpu_shares = (0.5,), (0.3,)
    measured = trial.measure()
    assert measured.service_time_ms == 40.0
    assert measured.output_error == 0.001
    assert measured.enforcement == {"cpu": "threads"}
    assert measured.environment == {"device": "cpu"}
    assert measured.memory_gib == 1.5
    assert measured.gpu_memory_gib == 2.5
    assert measured.gpu_utilization_pct == 70.0
    assert measured.gpu_power_w == 90.0
    assert measured.n_drivers == 1
    assert measured.driver_lag_ms == pytest.approx(0.5)
    assert measured.driver_cpu_share == pytest.approx(0.3)
    assert measured.load_path == "handle"
    assert measured.extra == {"tokens_per_s": 7.0}


@pytest.mark.parametrize(
    ("path_every_s", "path_limited"),
    # The model answers 4 every 40 ms, 100/s. Below 80/s the path is the limit: 4 / 0.049 s =
    # 81.6/s is not, 4 / 0.051 s = 78.4/s is.
    [(0.04, False), (0.049, False), (0.051, True)],
)
def test_serve_is_the_limit_where_it_delivers_less_than_80_percent_of_the_model(
    *, path_every_s: float, path_limited: bool
) -> None:
    trial = served_by(endpoint(), model_every_s=0.04)
    trial.load.batches_every_s = (path_every_s,)
    measured = trial.measure()
    assert measured.saturation_rps == pytest.approx(4 / path_every_s)
    assert measured.model_rps == pytest.approx(SATURATION_RPS)
    assert measured.model_rps_ci_low == pytest.approx(SATURATION_RPS)
    assert measured.path_limited is path_limited


def test_without_a_way_past_serve_the_model_alone_is_not_known() -> None:
    measured = Trial().measure()
    assert (measured.model_rps, measured.path_limited) == (None, False)


def test_load_inside_the_replica_is_the_model_alone() -> None:
    plan = MeasurementPlan(workload=Workload(path=LoadPath.REPLICA))
    measured = served_by(endpoint(), plan).measure()
    assert measured.model_rps == measured.saturation_rps
    assert measured.load_path == "replica"


def test_all_requests_are_told_by_phase() -> None:
    trial = served_by(endpoint(), model_every_s=0.04)
    trial.run()
    # 37 batches of 40 ms in the first 1.5 s; the 38th to the 112th until 4.5 s.
    assert trial.told == [("warm_up", None, 37 * 4), ("saturation", None, 75 * 4)]


def test_requests_of_a_trial_that_ends_early_are_told_too() -> None:
    trial = served_by(endpoint(fail_every=2))
    trial.run()
    assert trial.told == [("warm_up", None, 12 * 4)]


def test_a_few_failed_requests_are_left_out_of_throughput_and_told() -> None:
    measured = served_by(endpoint(fail_every=200)).measure()
    # 1 in 200 is under the limit of 1 %; throughput counts the other 199.
    assert measured.saturation_rps == pytest.approx(SATURATION_RPS * 199 / 200, rel=0.01)
    assert measured.error_rate == pytest.approx(1 / 200, abs=0.002)


def test_times_of_a_measured_trial_are_those_of_its_phases() -> None:
    trial = Trial(model_every_s=0.04)
    times = trial.run().times
    assert times.deploy_s == 2.0
    assert times.warm_up_s == 1.5  # the shortest warm-up: the service is level at once
    assert times.measure_s == pytest.approx(
        3.0 + 0.5 + 2.0 + 0.1
    )  # at saturation; the model's own queue; a last request
    assert times.teardown_s == 0.5
    assert trial.clock() == pytest.approx(2.0 + 1.5 + 5.6 + 0.5)


def test_the_wait_for_resources_is_told_apart_from_the_deployment() -> None:
    trial = Trial(endpoint())
    trial.backend.wait_s, trial.backend.provision_s = 40.0, 30.0
    times = trial.run().times
    assert (times.wait_s, times.provision_s, times.deploy_s) == (40.0, 30.0, 2.0)


def test_the_seconds_of_all_attempts_count() -> None:
    clock = VirtualClock()
    lost = TrialFailedError("the node is gone")
    trial = Trial(lost, lost, FakeEndpoint(clock=clock), clock=clock)
    trial.backend.wait_s, trial.backend.provision_s = 40.0, 30.0
    times = trial.run().times
    assert (times.wait_s, times.provision_s) == (3 * 40.0, 3 * 30.0)
    # A deployment that fails takes 2 s and its removal 0.5 s, twice; the third serves.
    assert times.deploy_s == 2 * 2.5 + 2.0
    assert times.wait_s + times.held_s == clock()


NO_NODES = NodesUnavailableError("no L4 came in 600 s")
NO_ANSWER = TrialFailedError("the ledger did not answer for 60 s")


@pytest.mark.parametrize(
    ("waits", "never_began"),
    [
        ([NO_NODES], True),
        ([NO_ANSWER, NO_NODES], True),
        ([NO_ANSWER, NO_ANSWER, NO_ANSWER], False),
        # The first attempt had its resources, and held them for some time.
        ([None, NO_NODES], False),
    ],
)
def test_a_trial_never_began_where_no_attempt_had_resources_and_its_nodes_did_not_come(
    *, waits: list[Exception | None], never_began: bool
) -> None:
    trial = Trial(TrialFailedError("the node is gone"))
    trial.backend.wait_s, trial.backend.no_room = 40.0, list(waits)
    observation = trial.run()
    assert observation.status is TrialStatus.FAILED
    assert observation.attempts == len(waits)
    assert observation.never_began is never_began
    assert observation.times.wait_s == 40.0 * len(waits)


def test_a_deployment_that_fails_took_only_time_to_deploy() -> None:
    times = Trial(InfeasibleError("out of memory")).run().times
    assert (times.deploy_s, times.warm_up_s, times.measure_s, times.teardown_s) == (2.5, 0, 0, 0)


def test_a_trial_that_ends_while_warming_up_took_no_time_to_be_removed_but_the_removal() -> None:
    times = served_by(endpoint(fail_every=2)).run().times
    assert (times.deploy_s, times.warm_up_s, times.measure_s, times.teardown_s) == (
        2.0,
        0.5,
        0,
        0.5,
    )


def test_a_trial_that_ends_while_measuring_spent_its_time_there() -> None:
    trial = served_by(endpoint(service_s=3.0))
    times = trial.run().times
    # Warm-up gives up after 12 s, measuring when the batch that runs at 10 s is answered; the
    # model's own queue is not loaded any more.
    assert (times.warm_up_s, times.measure_s, times.teardown_s) == (12.0, 12.0, 0.5)
    assert trial.clock() == 2.0 + 12.0 + 12.0 + 0.5


def test_a_constructor_that_raises_is_a_lesson_about_the_configuration() -> None:
    trial = Trial(InfeasibleError("the replica did not start: RuntimeError: no kernel"))
    observation = trial.run()
    assert observation.status is TrialStatus.INFEASIBLE
    assert observation.reason == "the replica did not start: RuntimeError: no kernel"
    assert observation.configuration == CONFIGURATION
    assert observation.measurement is None
    assert observation.attempts == 1
    assert_gone(trial)


def test_a_broken_infrastructure_is_tried_again_up_to_the_limit() -> None:
    trial = Trial(TrialFailedError("the node is gone"), plan=MeasurementPlan(max_attempts=3))
    observation = trial.run()
    assert observation.status is TrialStatus.FAILED
    assert observation.reason == "the node is gone"
    assert observation.attempts == 3
    assert_gone(trial, deployments=3)


@pytest.mark.parametrize(
    ("retry_within_s", "attempts"),
    # A deployment that fails holds its resources for 2 s and its removal for 0.5 s.
    [(2.5, 1), (2.6, 2), (5.0, 2), (5.1, 3)],
)
def test_a_trial_that_held_its_resources_for_long_is_not_tried_again(
    retry_within_s: float, attempts: int
) -> None:
    trial = Trial(TrialFailedError("the node is gone"), retry_within_s=retry_within_s)
    trial.backend.wait_s = 100.0  # for what others have, which costs nothing
    assert trial.run().attempts == attempts


def test_success_at_the_second_attempt_is_a_measurement() -> None:
    clock = VirtualClock()
    trial = Trial(TrialFailedError("the node is gone"), FakeEndpoint(clock=clock), clock=clock)
    observation = trial.run()
    assert observation.status is TrialStatus.MEASURED
    assert observation.attempts == 2
    assert observation.reason == ""
    assert_gone(trial, deployments=2)


def test_infeasible_at_the_second_attempt_is_not_tried_a_third_time() -> None:
    observation = Trial(TrialFailedError("node gone"), InfeasibleError("out of memory")).run()
    assert (observation.status, observation.attempts) == (TrialStatus.INFEASIBLE, 2)


@pytest.mark.parametrize(
    "replaced_after_s",
    # Warm-up lasts until 1.5 s, saturation until 4.5 s, the model's own queue until 7 s.
    [1.0, 3.0, 6.0],
)
def test_a_replica_that_was_replaced_fails_the_trial_though_every_request_succeeded(
    replaced_after_s: float,
) -> None:
    trial = served_by(endpoint(replaced_after_s=replaced_after_s), ONE_ATTEMPT, model_every_s=0.04)
    observation = trial.run()
    assert observation.status is TrialStatus.FAILED
    assert "first became second" in observation.reason
    assert_gone(trial)


def test_a_replica_that_dies_in_every_deployment_is_a_crash_of_the_configuration() -> None:
    trial = served_by(endpoint(replaced_after_s=3.0))
    observation = trial.run()
    assert observation.status is TrialStatus.INFEASIBLE
    assert observation.reason == (
        "its process died in each of 3 attempts; a replica died and was replaced during the trial "
        "(first became second)"
    )
    assert observation.cause is InfeasibleCause.OTHER
    assert_gone(trial, deployments=3)


def test_a_replica_that_dies_twice_beside_another_accident_is_no_lesson() -> None:
    clock = VirtualClock()
    dying = FakeEndpoint(clock=clock, replaced_after_s=3.0)
    trial = Trial(dying, TrialFailedError("the node is gone"), dying, clock=clock)
    assert trial.run().status is TrialStatus.FAILED
    assert_gone(trial, deployments=3)


def test_a_replica_that_is_replaced_under_the_slo_load_ends_the_trial_there() -> None:
    plan = replace(with_slo(10_000.0), max_attempts=1)
    trial = served_by(endpoint(replaced_after_s=7.0), plan)
    assert trial.run().status is TrialStatus.FAILED
    assert len(trial.load.offered) == 1


def test_measured_after_a_replica_was_replaced_counts_both_attempts() -> None:
    clock = VirtualClock()
    dying = FakeEndpoint(clock=clock, replaced_after_s=3.0)
    observation = Trial(dying, FakeEndpoint(clock=clock), clock=clock).run()
    assert observation.status is TrialStatus.MEASURED
    assert observation.attempts == 2


def test_failing_requests_are_a_lesson_about_the_configuration() -> None:
    trial = served_by(endpoint(fail_every=10))
    observation = trial.run()
    assert observation.status is TrialStatus.INFEASIBLE
    # 48 requests are done in the first half second: 12 batches of 40 ms; 4 of them failed, as 1 in
    # 650 times at an error rate of 1 %. In the next half second there is no doubt left.
    assert observation.reason == "9% of 96 requests failed: the service is down"
    assert_gone(trial)


def test_requests_that_fail_for_want_of_memory_say_so() -> None:
    trial = served_by(endpoint(fail_every=10))
    trial.load.error_text = "torch.OutOfMemoryError: CUDA out of memory"
    assert trial.run().cause is InfeasibleCause.MEMORY
    trial.load.error_text = "ValueError: no kernel"
    assert trial.run().cause is InfeasibleCause.OTHER


def test_the_cause_that_a_deployment_gives_is_observed() -> None:
    error = InfeasibleError("the replica did not start", cause=InfeasibleCause.MEMORY)
    assert Trial(error).run().cause is InfeasibleCause.MEMORY


def test_failing_requests_of_a_replaced_replica_are_no_lesson() -> None:
    observation = served_by(endpoint(fail_every=10, replaced_after_s=0.25), ONE_ATTEMPT).run()
    assert observation.status is TrialStatus.FAILED
    assert "first became second" in observation.reason


def test_too_slow_a_service_is_a_lesson() -> None:
    trial = served_by(endpoint(service_s=3.0))
    observation = trial.run()
    assert observation.status is TrialStatus.INFEASIBLE
    # Batches end every 3 s; warm-up takes the first four and measuring four more.
    assert (
        observation.reason == "only 16 requests completed in 12 s: too slow to measure in that time"
    )
    assert observation.cause is InfeasibleCause.TIMEOUT
    # A fifth batch of 4 may have been about to end: 20 in 12 s; it is 4 in 3 s.
    assert observation.at_most_rps == pytest.approx(20 / 12)
    assert_gone(trial)


def test_too_slow_because_its_replica_was_replaced_is_no_lesson() -> None:
    observation = served_by(endpoint(service_s=3.0, replaced_after_s=10.0), ONE_ATTEMPT).run()
    assert observation.status is TrialStatus.FAILED


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyboardInterrupt()])
@pytest.mark.parametrize("after_s", [2.0, 4.0])  # while warming up, while measuring
def test_an_unexpected_error_leaves_nothing_deployed_and_is_not_swallowed(
    error: BaseException, after_s: float
) -> None:
    trial = Trial(load_error=error, load_error_after_s=after_s)
    with pytest.raises(type(error)):
        trial.run()
    assert trial.monitor.events == ["watch", "unwatch"]
    assert_gone(trial)


@pytest.mark.parametrize("output_error", [0.02, math.inf, math.nan])
def test_outputs_too_far_from_float32_are_refused_before_any_load(output_error: float) -> None:
    trial = served_by(
        endpoint(said=EndpointFacts(output_error=output_error)),
        MeasurementPlan(max_output_error=0.01),
    )
    observation = trial.run()
    assert observation.status is TrialStatus.INFEASIBLE
    assert observation.reason == (
        f"output differs from float32 by {output_error:.2g}, more than --max-output-error 0.01"
    )
    assert trial.load.concurrencies == []
    assert_gone(trial)


@pytest.mark.parametrize(("output_error", "limit"), [(0.01, 0.01), (None, 0.01), (0.5, None)])
def test_outputs_near_enough_or_unknown_are_accepted(
    output_error: float | None, limit: float | None
) -> None:
    said = EndpointFacts(output_error=output_error)
    served_by(endpoint(said=said), MeasurementPlan(max_output_error=limit)).measure()


@pytest.mark.parametrize(
    ("warm_up_s", "reason"),
    [
        (6.0, "no request was answered in 6 s of warm-up"),
        (12.0, "no request was answered for 10 s"),
    ],
)
def test_a_service_that_answers_nothing_while_warming_up_is_a_lesson(
    warm_up_s: float, reason: str
) -> None:
    plan = MeasurementPlan(warm_up=WarmUpRule(max_s=warm_up_s))
    observation = served_by(endpoint(service_s=100.0), plan).run()
    assert observation.status is TrialStatus.INFEASIBLE
    assert observation.reason == reason
    assert (observation.cause, observation.at_most_rps) == (InfeasibleCause.TIMEOUT, None)


def test_a_level_and_precise_measurement_says_so() -> None:
    measured = served_by(endpoint()).measure()
    assert (measured.warm, measured.precise) == (True, True)


def test_a_warm_up_that_ran_out_of_time_says_so() -> None:
    # Twelve seconds hold eight batches of 1.5 s, too few to see a trend.
    measured = served_by(endpoint(service_s=1.5)).measure()
    assert measured.warm is False
    assert measured.saturation_rps == pytest.approx(4 / 1.5)


def test_failing_requests_of_a_process_that_died_are_no_lesson() -> None:
    # Serve still names the same replica: the requests know of its death first.
    trial = served_by(endpoint(fail_every=2), ONE_ATTEMPT)
    trial.load.loses_replica = True
    observation = trial.run()
    assert observation.status is TrialStatus.FAILED
    assert observation.reason == "a replica died during the trial: the service is down"
