import numpy as np
import pytest

from falcon_ray.errors import InputError
from falcon_ray.optimizers.history import History
from falcon_ray.space.configuration import Configuration, ConfigurationSpace
from falcon_ray.space.objective import Objective, Slo
from falcon_ray.space.observation import Measurement, Observation, TrialStatus
from tests.unit.optimizers.synthetic_serving import failed, infeasible

SPACE = ConfigurationSpace.of({"batch_size": [1, 2, 4, 8]})
A, B, C, D = SPACE.candidates


def history(
    objective: Objective | None = None, prices: tuple[float, ...] = (1, 1, 1, 1)
) -> History:
    return History(SPACE, objective or Objective(), np.array(prices))


def ran(configuration: Configuration, rps: float, capacity_rps: float | None = None) -> Observation:
    return Observation(
        configuration=configuration,
        status=TrialStatus.MEASURED,
        measurement=Measurement(saturation_rps=rps, capacity_rps=capacity_rps),
    )


def test_suggested_candidates_are_pending_until_they_are_observed() -> None:
    books = history()
    books.expect(2)
    books.expect(0)
    assert books.pending.tolist() == [2, 0]
    books.observe(ran(C, 1.0))
    assert books.pending.tolist() == [0]
    assert books.available.tolist() == [1, 3]
    assert not books.exhausted


def test_trials_are_listed_by_how_they_ended() -> None:
    books = history()
    for observation in (ran(A, 1.0), infeasible(C), failed(B), ran(A, 2.0)):
        books.observe(observation)
    assert books.ended(TrialStatus.MEASURED).tolist() == [0, 0]
    assert books.ended(TrialStatus.INFEASIBLE).tolist() == [2]
    assert books.ended(TrialStatus.FAILED).tolist() == [1]


def test_log_metrics_leave_out_what_was_not_measured() -> None:
    books = history()
    for observation in (
        ran(B, 10.0),
        infeasible(C),
        ran(A, 5.0, capacity_rps=4.0),
        ran(D, 5.0, capacity_rps=0.0),
    ):
        books.observe(observation)
    candidates, logs = books.log_metric("saturation_rps")
    assert candidates.tolist() == [1, 0, 3]
    assert logs == pytest.approx(np.log([10.0, 5.0, 5.0]))
    candidates, logs = books.log_metric("capacity_rps")
    assert candidates.tolist() == [0]
    assert logs == pytest.approx([np.log(4.0)])


def test_the_best_observation_buys_the_most_requests_per_dollar() -> None:
    books = history(prices=(1.0, 4.0, 1.0, 1.0))
    for observation in (ran(A, 2.0), ran(B, 6.0), ran(C, 2.0)):
        books.observe(observation)
    # 2 * 3600 / 1 = 7200; 6 * 3600 / 4 = 5400; 7200 again, later
    assert books.best() == (ran(A, 2.0), 7200.0)


def test_a_trial_without_a_certified_rate_is_never_the_best() -> None:
    books = history(Objective(Slo(latency_budget_ms=10.0)))
    books.observe(ran(A, 9.0))
    assert books.best() is None
    books.observe(ran(B, 3.0, capacity_rps=1.0))
    assert books.best() == (ran(B, 3.0, capacity_rps=1.0), 3600.0)


def test_random_numbers_depend_on_the_seed_and_the_number_of_trials() -> None:
    suggested, replayed = history(), history()
    suggested.expect(1)
    suggested.expect(3)
    for configuration in (D, B):  # the same two trials, in another order
        replayed.observe(ran(configuration, 1.0))
    fresh, other = history().rng(0).random(), suggested.rng(1).random()
    assert suggested.n_steps == replayed.n_steps == 2
    assert suggested.rng(0).random() == replayed.rng(0).random()
    assert suggested.rng(0).random() not in {fresh, other}


def test_a_repeated_trial_is_another_step_unless_it_taught_nothing() -> None:
    books = history()
    for n_steps in (1, 2, 3):
        books.observe(ran(B, 1.0))
        books.observe(failed(B))
        assert books.n_steps == n_steps


def test_a_trial_that_failed_once_is_available_again_and_one_that_failed_twice_is_not() -> None:
    books = history()
    books.expect(1)
    books.observe(failed(B))
    assert books.available.tolist() == [0, 1, 2, 3]
    assert books.is_available(np.array([1, 0])).tolist() == [True, True]
    assert books.pending.size == 0
    books.expect(1)
    assert books.available.tolist() == [0, 2, 3]
    books.observe(failed(B))
    assert books.available.tolist() == [0, 2, 3]
    assert books.is_available(np.array([1, 0])).tolist() == [False, True]


@pytest.mark.parametrize("first", [ran(B, 1.0), infeasible(B)], ids=["measured", "infeasible"])
def test_a_failure_after_a_verdict_makes_nothing_available(first: Observation) -> None:
    books = history()
    books.observe(first)
    books.observe(failed(B))
    assert books.available.tolist() == [0, 2, 3]


@pytest.mark.parametrize("second", [ran(B, 1.0), infeasible(B)], ids=["measured", "infeasible"])
def test_a_verdict_after_a_failure_makes_it_unavailable(second: Observation) -> None:
    books = history()
    books.observe(failed(B))
    books.observe(second)
    assert books.available.tolist() == [0, 2, 3]


def test_known_is_what_is_pending_or_taught_something() -> None:
    books = history()
    books.expect(3)
    books.observe(failed(B))
    books.observe(ran(A, 1.0))
    books.observe(ran(A, 2.0))
    assert books.known.tolist() == [0, 3]


def test_memory_is_told_from_what_else_keeps_a_trial_from_running() -> None:
    books = history()
    crashed = Observation(configuration=C, status=TrialStatus.INFEASIBLE, reason="it crashed")
    for observation in (infeasible(D), crashed, infeasible(B), ran(A, 1.0)):
        books.observe(observation)
    memory, other = books.infeasible()
    assert memory.tolist() == [3, 1]
    assert other.tolist() == [2]


def test_feasible_trials_are_those_with_a_score() -> None:
    books = history(Objective(Slo(latency_budget_ms=10.0)))
    good, again = ran(C, 3.0, capacity_rps=1.0), ran(C, 3.0, capacity_rps=2.0)
    for observation in (ran(A, 9.0), good, infeasible(B), again):
        books.observe(observation)
    rows, observations = books.feasible()
    assert rows.tolist() == [2, 2]
    assert observations == (good, again)


def test_no_candidate_of_a_large_space_is_built() -> None:
    space = ConfigurationSpace.of({"batch_wait_ms": range(1000)})
    books = History(space, Objective(), np.ones(1000))
    configuration = space.candidate(700)
    books.expect(700)
    books.observe(ran(configuration, 1.0))
    assert books.ended(TrialStatus.MEASURED).tolist() == [700]
    assert {"candidates", "index"}.isdisjoint(space.__dict__)


def test_prices_are_copied() -> None:
    prices = np.ones(4)
    books = History(SPACE, Objective(), prices)
    prices[0] = 99.0
    assert books.usd_per_hour[0] == 1.0


def test_the_best_score_of_each_candidate_is_told_in_the_order_of_the_first_trials() -> None:
    books = history()
    for each in (ran(D, 10.0), ran(B, 30.0), infeasible(A), ran(D, 20.0)):
        books.observe(each)
    rows, scores = books.scored()
    assert rows.tolist() == [3, 1]
    # 3600 s/h of the better trial at 1 USD/h.
    assert scores.tolist() == [20.0 * 3600, 30.0 * 3600]


def test_what_is_withdrawn_is_available_again_and_leaves_no_trace() -> None:
    books = history()
    books.expect(3)
    books.withdraw(D)
    assert books.pending.size == 0
    assert books.n_steps == 0
    assert books.available.tolist() == [0, 1, 2, 3]


def test_only_what_is_pending_can_be_withdrawn() -> None:
    with pytest.raises(InputError, match="is not pending; withdraw only what was suggested"):
        history().withdraw(D)
