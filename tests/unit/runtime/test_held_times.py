from falcon_ray.runtime.held_times import FIRST_PHASE, HeldTimes
from falcon_ray.runtime.serve_backend import WAITING_PHASES
from tests.fakes import VirtualClock
from tests.unit.report.searches import batch, failed


def test_a_trial_holds_its_resources_from_its_deployment_on_and_no_longer_than_it_runs() -> None:
    clock = VirtualClock()
    held = HeldTimes(clock)
    for phase in WAITING_PHASES.values():
        held.phase("Trial 1", phase)
        clock.advance(600.0)
    assert held.held_s("Trial 1") == 0.0
    for phase in (FIRST_PHASE, "warming up", "measuring"):
        held.phase("Trial 1", phase)
        clock.advance(10.0)
    assert held.held_s("Trial 1") == 30.0
    assert held.held_s("Trial 2") == 0.0
    held.trial_ended("Trial 1", failed(batch(1)), wall_s=1230.0)
    assert held.held_s("Trial 1") == 0.0


def test_the_wait_of_a_second_attempt_is_left_out() -> None:
    for waiting in WAITING_PHASES.values():
        clock = VirtualClock()
        held = HeldTimes(clock)
        held.phase("Trial 1", FIRST_PHASE)
        clock.advance(20.0)
        held.phase("Trial 1", waiting)
        clock.advance(600.0)
        assert held.held_s("Trial 1") == 20.0
        held.phase("Trial 1", FIRST_PHASE)
        clock.advance(5.0)
        assert held.held_s("Trial 1") == 25.0


def test_a_second_attempt_that_need_not_wait_goes_on_holding() -> None:
    clock = VirtualClock()
    held = HeldTimes(clock)
    for _ in range(2):
        held.phase("Trial 1", FIRST_PHASE)
        clock.advance(20.0)
    assert held.held_s("Trial 1") == 40.0
