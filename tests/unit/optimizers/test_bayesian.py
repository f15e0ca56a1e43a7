import numpy as np
import pytest

from falcon_ray.errors import InputError
from falcon_ray.optimizers.bayesian import BayesianOptimizer, PriorMeans
from falcon_ray.optimizers.optimizer import Suggestion
from falcon_ray.optimizers.random_search import RandomSearch
from falcon_ray.space.configuration import Configuration, ConfigurationSpace, FloatArray
from falcon_ray.space.objective import Objective
from falcon_ray.space.observation import Measurement, Observation, TrialStatus
from tests.unit.optimizers.synthetic_serving import (
    SPACE,
    WITH_SLO,
    WITHOUT_SLO,
    failed,
    infeasible,
    measured,
    scores,
    suggest,
    trials_to_within_5_percent,
    usd_per_hour,
)

PRICES = usd_per_hour(SPACE)
SMALL = ConfigurationSpace.of({"batch_size": [1, 2, 4], "cpu_cores": [1, 2, 4]})


def make(
    objective: Objective = WITHOUT_SLO,
    *,
    space: ConfigurationSpace = SPACE,
    seed: int = 0,
    prior: PriorMeans | None = None,
) -> BayesianOptimizer:
    return BayesianOptimizer(space, objective, usd_per_hour(space), seed=seed, prior=prior)


def next_suggestion(optimizer: BayesianOptimizer) -> Suggestion:
    suggestion = optimizer.suggest()
    assert suggestion is not None
    return suggestion


def true_logs(objective: Objective) -> dict[str, FloatArray]:
    """Logs of what the service would show; a rate that breaks the SLO stands as its half."""
    logs: dict[str, FloatArray] = {}
    for name in objective.modelled_metrics:
        values: list[float] = []
        for candidate in SPACE.candidates:
            measurement = measured(candidate, objective).measurement
            assert measurement is not None
            values.append(measurement.metric(name) or measurement.saturation_rps / 2)
        logs[name] = np.log(values)
    return logs


def rate(configuration: Configuration, saturation_rps: float) -> Observation:
    return Observation(
        configuration=configuration,
        status=TrialStatus.MEASURED,
        measurement=Measurement(saturation_rps=saturation_rps),
    )


def test_the_first_suggestion_is_in_the_middle_of_every_ordinal_dimension() -> None:
    for seed in range(5):
        first = suggest(make(space=SMALL, seed=seed))
        assert dict(first) == {"batch_size": 2, "cpu_cores": 2}


def test_the_seed_decides_between_equally_central_candidates() -> None:
    firsts = {suggest(make(seed=seed)) for seed in range(20)}
    assert {each["cpu_cores"] for each in firsts} == {4}
    assert {each["batch_size"] for each in firsts} == {8, 16}  # the middle of eight values
    assert {each["dtype"] for each in firsts} == {"float32", "bfloat16", "int8"}


def test_pending_starts_are_spread_to_the_corners() -> None:
    optimizer = make(space=SMALL)
    batch = [suggest(optimizer) for _ in range(5)]
    corners = {(1, 1), (1, 4), (4, 1), (4, 4)}
    assert {(each["batch_size"], each["cpu_cores"]) for each in batch[1:]} == corners


def test_a_failed_trial_leaves_its_neighbourhood_as_unknown_as_before() -> None:
    optimizer = make(space=SMALL)
    optimizer.observe(failed(suggest(optimizer)))
    again = suggest(optimizer)
    # Still the nearest to the middle that is left, not a corner: one step away from (2, 2).
    assert (again["batch_size"] == 2) != (again["cpu_cores"] == 2)


@pytest.mark.parametrize("seed", range(5))
def test_with_a_perfect_prior_the_first_suggestion_is_the_optimum(seed: int) -> None:
    optimizer = make(prior=true_logs(WITHOUT_SLO), seed=seed)
    assert SPACE.index[suggest(optimizer)] == scores(SPACE, WITHOUT_SLO).argmax()


def test_with_a_perfect_prior_under_an_slo_the_first_suggestion_meets_it() -> None:
    optimizer = make(WITH_SLO, prior=true_logs(WITH_SLO))
    truth = scores(SPACE, WITH_SLO)
    assert truth[SPACE.index[suggest(optimizer)]] > 0.5 * truth.max()


def test_observations_correct_a_wrong_prior() -> None:
    prior = {"saturation_rps": -true_logs(WITHOUT_SLO)["saturation_rps"]}
    n_trials = [
        trials_to_within_5_percent(make(prior=prior, seed=seed), WITHOUT_SLO) for seed in range(3)
    ]
    assert max(n_trials) < 40  # what random search needs on average


def test_predictions_that_the_objective_does_not_model_are_ignored() -> None:
    prior = true_logs(WITHOUT_SLO) | {"memory_gib": np.zeros(3)}
    assert suggest(make(prior=prior)) == suggest(make(prior=true_logs(WITHOUT_SLO)))


@pytest.mark.parametrize(
    ("prior", "problem"),
    [
        ({}, "the prior predicts nothing, .* saturation_rps is missing"),
        ({"capacity_rps": np.zeros(120)}, "predicts capacity_rps, .* saturation_rps is missing"),
        ({"saturation_rps": np.zeros(3)}, r"each of the 120 candidates, got the shape \(3,\)"),
        ({"saturation_rps": np.full(120, np.nan)}, "with 120 not finite"),
    ],
)
def test_a_prior_that_does_not_fit_is_refused(prior: PriorMeans, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        make(prior=prior)


def test_what_is_predicted_not_to_fit_is_tried_last() -> None:
    prior = true_logs(WITHOUT_SLO)
    best = next_suggestion(make(prior=prior)).configuration
    fits = np.ones(len(SPACE))
    fits[SPACE.index[best]] = 0.0
    optimizer = BayesianOptimizer(SPACE, WITHOUT_SLO, PRICES, seed=0, prior=prior, fits=fits)
    suggested = [next_suggestion(optimizer).configuration for _ in range(3)]
    assert best not in suggested


@pytest.mark.parametrize("fits", [np.ones(3), np.full(len(SPACE), 1.5)])
def test_probabilities_of_fitting_that_cannot_be_are_refused(fits: FloatArray) -> None:
    with pytest.raises(InputError, match="one probability for each"):
        BayesianOptimizer(SPACE, WITHOUT_SLO, PRICES, seed=0, fits=fits)


def test_without_a_prior_rates_are_expected_in_proportion_to_prices() -> None:
    space = ConfigurationSpace.of({"dtype": ["a", "b"]})
    optimizer = BayesianOptimizer(space, WITHOUT_SLO, np.array([1.0, 3.0]), seed=0)
    optimizer.observe(rate(space.candidates[0], 10.0))
    # One dollar an hour bought 10 requests/s, so three are expected to buy 30.
    assert next_suggestion(optimizer).expected == {"saturation_rps": pytest.approx(30.0)}


def test_a_suggestion_says_what_it_expects_and_why() -> None:
    optimizer = make(prior=true_logs(WITHOUT_SLO))
    first = next_suggestion(optimizer)
    assert first.why.startswith("highest expected score; nothing feasible is measured yet; ")
    assert "(sd 56 %)" in first.why  # offset and residual: sqrt(0.5^2 + 0.25^2)
    assert set(first.expected) == {"saturation_rps"}
    optimizer.observe(measured(first.configuration, WITHOUT_SLO))
    best = scores(SPACE, WITHOUT_SLO)[SPACE.index[first.configuration]]
    second = next_suggestion(optimizer)
    assert f" over {best:,.0f} requests/$; predicted saturation_rps " in second.why
    assert second.why.startswith("expected improvement ")


def test_what_a_pending_trial_is_believed_to_score_is_the_mark_to_beat() -> None:
    optimizer = make(prior=true_logs(WITHOUT_SLO))
    optimizer.suggest()
    believed = scores(SPACE, WITHOUT_SLO).max()
    assert f" over a believed {believed:,.0f} requests/$; " in next_suggestion(optimizer).why


def test_metrics_that_nothing_is_known_of_are_not_predicted() -> None:
    optimizer = make(WITH_SLO)
    slow = SPACE.configuration({"batch_size": 128, "cpu_cores": 1, "dtype": "float32"})
    optimizer.observe(measured(slow, WITH_SLO))  # no capacity, only a latency
    suggestion = next_suggestion(optimizer)
    assert set(suggestion.expected) == {"floor_latency_ms"}
    assert "capacity_rps" not in suggestion.why


def test_infeasible_trials_keep_the_search_away_from_their_neighbours() -> None:
    def tried(*, large_batches_run: bool) -> list[Configuration]:
        optimizer = make()
        found: list[Configuration] = []
        for _ in range(10):
            found.append(suggest(optimizer))
            runs = large_batches_run or found[-1].count("batch_size", 1) <= 16
            ending = measured(found[-1], WITHOUT_SLO) if runs else infeasible(found[-1])
            optimizer.observe(ending)
        return found

    def large(found: list[Configuration]) -> int:
        return sum(each.count("batch_size", 1) > 16 for each in found)

    assert large(tried(large_batches_run=False)) < large(tried(large_batches_run=True)) - 2


def test_a_suggestion_near_infeasible_trials_says_how_likely_it_runs() -> None:
    optimizer = make()
    optimizer.observe(infeasible(suggest(optimizer)))
    assert "; runs with probability 0." in next_suggestion(optimizer).why


def test_pending_trials_are_believed_so_that_a_batch_does_not_crowd() -> None:
    space = ConfigurationSpace.of({"batch_wait_ms": range(17)})
    optimizer = make(space=space)
    for end in (space.candidates[0], space.candidates[16]):
        optimizer.observe(rate(end, 100.0))
    first, second = suggest(optimizer), suggest(optimizer)
    assert first["batch_wait_ms"] == 8  # midway between the two ends
    assert abs(second.number("batch_wait_ms", 0) - 8) >= 3  # not beside it


def test_an_slo_that_nothing_comes_near_still_leads_towards_it() -> None:
    space = ConfigurationSpace.of({"cpu_cores": [1, 2, 4, 8, 16]})
    optimizer = make(WITH_SLO, space=space)
    for cores, floor_ms in ((1, 4e8), (2, 2e8)):
        measurement = Measurement(saturation_rps=1.0, floor_latency_ms=floor_ms)
        optimizer.observe(
            Observation(
                configuration=space.configuration({"cpu_cores": cores}),
                status=TrialStatus.MEASURED,
                measurement=measurement,
            )
        )
    # The limit is 17 natural logs away, where none of 96 samples comes before they are widened.
    assert dict(suggest(optimizer)) == {"cpu_cores": 16}


@pytest.mark.parametrize(
    ("objective", "at_most"), [(WITHOUT_SLO, 9.0), (WITH_SLO, 10.0)], ids=["no SLO", "SLO"]
)
def test_it_needs_far_fewer_trials_than_random_search(objective: Objective, at_most: float) -> None:
    seeds = range(6)
    bayesian = [trials_to_within_5_percent(make(objective, seed=seed), objective) for seed in seeds]
    random = [
        trials_to_within_5_percent(RandomSearch(SPACE, objective, PRICES, seed=seed), objective)
        for seed in range(50)
    ]
    assert np.mean(bayesian) <= at_most
    assert np.mean(bayesian) < 0.5 * np.mean(random)
