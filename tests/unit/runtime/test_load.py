from falcon_ray.runtime.load.core import Effort
from falcon_ray.runtime.load.driver import Failures
from falcon_ray.runtime.load.generators import even_shares, health_of, words_of
from falcon_ray.trial.protocols import LoadHealth


def test_shares_differ_by_one_at_most() -> None:
    assert even_shares(7, 3) == [3, 2, 2]
    assert even_shares(1, 2) == [1, 0]


def test_the_worst_driver_speaks_for_all_and_what_is_in_flight_adds_up() -> None:
    late = Effort(lag_s=0.4, n_due=20, cpu_s=0.1, wall_s=2.0, in_flight=3, oldest_s=0.5)
    busy = Effort(lag_s=0.1, n_due=20, cpu_s=1.8, wall_s=2.0, in_flight=4, oldest_s=7.0)
    assert health_of([late, busy]) == LoadHealth(
        n_drivers=2,
        lag_ms=1000 * 0.4 / 20,
        cpu_share=1.8 / 2.0,
        in_flight=7,
        oldest_in_flight_s=7.0,
    )


def test_nothing_due_is_no_lag() -> None:
    health = health_of([Effort(), Effort()])
    assert (health.n_drivers, health.lag_ms, health.cpu_share) == (2, 0.0, 0.0)


def test_a_loss_tells_more_than_the_failures_that_came_after_it() -> None:
    failures = [
        Failures(last_error="TimeoutError: no answer"),
        Failures(last_error="RefusedError: overloaded", loss="OutOfMemoryError: a replica"),
    ]
    assert words_of(failures) == "OutOfMemoryError: a replica"
    assert words_of(failures[:1]) == "TimeoutError: no answer"
    assert words_of([Failures()]) == ""
