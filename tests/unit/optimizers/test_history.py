import numpy as np
import pytest

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


def test_random_numbers_depend_on_the_seed_and_the_number_of_known_candidates() -> None:
    suggested, replayed = history(), history()
    suggested.expect(1)
    suggested.expect(3)
    for configuration in (D, B, B):  # another order, and one of them repeated
        replayed.observe(ran(configuration, 1.0))
    fresh, other = history().rng(0).random(), suggested.rng(1).random()
    assert suggested.rng(0).random() == replayed.rng(0).random()
    assert suggested.rng(0).random() not in {fresh, other}


def test_prices_are_copied() -> None:
    prices = np.ones(4)
    books = History(SPACE, Objective(), prices)
    prices[0] = 99.0
    assert books.usd_per_hour[0] == 1.0
