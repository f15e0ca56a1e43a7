import inspect
import json
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from ray.tune.search import Searcher

from falcon_ray.errors import InputError
from falcon_ray.optimizers.optimizer import Suggestion
from falcon_ray.optimizers.readiness import Readiness
from falcon_ray.runtime.searcher import MAX_FAILED_IN_A_ROW, OBSERVATION_KEY, FalconSearch
from falcon_ray.space.configuration import Configuration, ConfigurationSpace
from falcon_ray.space.dimension import Value
from falcon_ray.space.objective import Objective, Slo
from falcon_ray.space.observation import Measurement, Observation, TrialStatus, TrialTimes
from tests.fakes import VirtualClock

VALUES = {"batch_size": [1, 2, 4, 8], "cpu_cores": [1, 2]}
SPACE = ConfigurationSpace.of(VALUES)


class FakeOptimizer:
    """Goes through the candidates in order, and notes in `events` what it observes."""

    def __init__(self, space: ConfigurationSpace, events: list[str]) -> None:
        self._left = list(space.candidates)
        self._events = events
        self.n_asked = 0

    def suggest(self, readiness: Readiness | None = None) -> Suggestion | None:
        del readiness
        self.n_asked += 1
        if not self._left:
            return None
        return Suggestion(configuration=self._left.pop(0), why="next", expected={})

    def observe(self, observation: Observation) -> None:
        self._events.append(f"learnt {observation.status.value}")

    def withdraw(self, configuration: Configuration) -> None:
        self._left.insert(0, configuration)

    def recommend(self) -> Observation | None:
        return None

    @property
    def exhausted(self) -> bool:
        return not self._left


def suggested(searcher: FalconSearch, trial_id: str) -> dict[str, Value]:
    values = searcher.suggest(trial_id)
    assert isinstance(values, dict)
    return values


def of(values: dict[str, Value], rate_rps: float) -> Observation:
    return Observation(
        configuration=Configuration(values),
        status=TrialStatus.MEASURED,
        measurement=Measurement(saturation_rps=rate_rps),
    )


def carried(observation: Observation) -> dict[str, Any]:
    """A Tune result that carries this observation."""
    return {OBSERVATION_KEY: json.dumps(observation.to_json()), "training_iteration": 1}


def run_trials(searcher: FalconSearch, n: int, *, first: int = 0) -> list[dict[str, Value]]:
    """Run n trials one after the other; more cores and larger batches serve more."""
    tried = list[dict[str, Value]]()
    for i in range(first, first + n):
        values = suggested(searcher, f"t{i}")
        rate_rps = 10.0 * float(values["batch_size"]) ** 0.5 * float(values["cpu_cores"])
        searcher.on_trial_complete(trial_id=f"t{i}", result=carried(of(values, rate_rps)))
        tried.append(values)
    return tried


def fail_trials(searcher: FalconSearch, n: int, *, first: int = 0) -> None:
    for i in range(first, first + n):
        suggested(searcher, f"t{i}")
        searcher.on_trial_complete(trial_id=f"t{i}", error=True)


def wait_in_vain(searcher: FalconSearch, n: int) -> None:
    """Trials whose nodes do not come."""
    for i in range(n):
        values = suggested(searcher, f"waiting{i}")
        observation = Observation(
            configuration=Configuration(values),
            status=TrialStatus.FAILED,
            reason="no node came",
            times=TrialTimes(wait_s=600.0),
            never_began=True,
        )
        searcher.on_trial_complete(trial_id=f"waiting{i}", result=carried(observation))


@pytest.mark.parametrize("optimizer", ["mcts", "bayesian", "random"])
def test_every_candidate_is_suggested_once_and_then_the_search_has_finished(
    optimizer: str,
) -> None:
    searcher = FalconSearch(VALUES, optimizer=optimizer)
    tried = run_trials(searcher, len(SPACE))
    assert {Configuration(values) for values in tried} == set(SPACE.candidates)
    assert searcher.suggest("after") == Searcher.FINISHED
    assert searcher.end_reason == "every configuration was tried"


def test_tune_is_asked_to_come_back_only_while_a_trial_runs() -> None:
    searcher = FalconSearch({"batch_size": [1, 2]})
    first, second = suggested(searcher, "a"), suggested(searcher, "b")
    assert searcher.suggest("c") is None
    searcher.on_trial_complete("a", carried(of(first, 10.0)))
    assert searcher.suggest("c") is None
    searcher.on_trial_complete("b", carried(of(second, 10.0)))
    assert searcher.suggest("c") == Searcher.FINISHED


def test_constraints_cut_the_space_of_given_values() -> None:
    searcher = FalconSearch(VALUES, constraints=["batch_size * cpu_cores <= 2"])
    assert [dict(each) for each in searcher.space.candidates] == [
        {"batch_size": 1, "cpu_cores": 1},
        {"batch_size": 1, "cpu_cores": 2},
        {"batch_size": 2, "cpu_cores": 1},
    ]


def test_all_trials_are_run_and_none_more() -> None:
    searcher = FalconSearch(SPACE, max_trials=3)
    run_trials(searcher, 3)
    assert searcher.suggest("after") == Searcher.FINISHED
    assert searcher.end_reason == "all 3 trials are done"


def test_running_trials_count_against_the_limit_until_they_end() -> None:
    searcher = FalconSearch(SPACE, max_trials=2)
    suggested(searcher, "a")
    second = suggested(searcher, "b")
    assert searcher.suggest("c") is None
    searcher.on_trial_complete("a", error=True)
    # The failed one teaches nothing, so another takes its place.
    third = suggested(searcher, "c")
    searcher.on_trial_complete("b", carried(of(second, 10.0)))
    searcher.on_trial_complete("c", carried(of(third, 10.0)))
    assert searcher.suggest("d") == Searcher.FINISHED


def test_past_trials_count_against_the_limit() -> None:
    before = FalconSearch(SPACE)
    run_trials(before, 2)
    searcher = FalconSearch(SPACE, max_trials=3)
    searcher.replay(before.observations)
    run_trials(searcher, 1)
    assert searcher.suggest("after") == Searcher.FINISHED


def test_infeasible_trials_count_against_the_limit() -> None:
    searcher = FalconSearch(SPACE, max_trials=1)
    observation = Observation(
        configuration=Configuration(suggested(searcher, "a")),
        status=TrialStatus.INFEASIBLE,
        reason="out of memory",
    )
    searcher.on_trial_complete("a", carried(observation))
    assert searcher.suggest("b") == Searcher.FINISHED
    assert searcher.observations == (observation,)


def test_no_trial_starts_once_the_time_budget_is_used_up() -> None:
    clock = VirtualClock()
    searcher = FalconSearch(SPACE, time_budget_s=60.0, clock=clock)
    clock.advance(1000.0)  # what happens before the first suggestion is no search
    run_trials(searcher, 1)
    clock.advance(59.9)
    run_trials(searcher, 1, first=1)
    clock.advance(0.1)
    assert searcher.suggest("after") == Searcher.FINISHED
    assert searcher.end_reason == "the time budget of 60 s is used up"


def test_a_trial_that_runs_when_the_time_is_up_is_waited_for() -> None:
    clock = VirtualClock()
    searcher = FalconSearch(SPACE, time_budget_s=60.0, clock=clock)
    values = suggested(searcher, "a")
    clock.advance(61.0)
    assert searcher.suggest("b") is None
    searcher.on_trial_complete("a", carried(of(values, 10.0)))
    assert searcher.suggest("b") == Searcher.FINISHED
    assert len(searcher.observations) == 1


def test_three_failures_in_a_row_end_the_search() -> None:
    searcher = FalconSearch(SPACE)
    fail_trials(searcher, MAX_FAILED_IN_A_ROW - 1)
    assert searcher.failed_in_a_row == 2
    fail_trials(searcher, 1, first=2)
    assert searcher.suggest("after") == Searcher.FINISHED
    assert searcher.end_reason == "3 trials in a row failed for reasons of infrastructure"


def test_a_success_between_failures_starts_the_count_anew() -> None:
    searcher = FalconSearch(SPACE)
    fail_trials(searcher, 2)
    run_trials(searcher, 1, first=2)
    assert searcher.failed_in_a_row == 0
    fail_trials(searcher, 2, first=3)
    assert isinstance(searcher.suggest("next"), dict)


def test_a_search_that_ended_by_failures_can_be_gone_on_with() -> None:
    before = FalconSearch(SPACE)
    fail_trials(before, MAX_FAILED_IN_A_ROW)
    searcher = FalconSearch(SPACE)
    searcher.replay(before.observations)
    assert isinstance(searcher.suggest("next"), dict)


@pytest.mark.parametrize(
    "ended",
    [{"error": True}, {"result": None, "error": True}, {"result": {}, "error": False}, {}],
)
def test_a_trial_that_crashed_arrives_without_a_result_and_failed(ended: dict[str, Any]) -> None:
    searcher = FalconSearch(SPACE)
    crashed = suggested(searcher, "a")
    searcher.on_trial_complete(trial_id="a", **ended)
    (observation,) = searcher.observations
    assert observation.status is TrialStatus.FAILED
    assert observation.reason == "the trial's process died"
    assert observation.configuration == Configuration(crashed)


def test_a_trial_that_crashed_teaches_nothing() -> None:
    seen = list[Suggestion]()
    searcher = FalconSearch(SPACE, on_suggestion=lambda _, suggestion: seen.append(suggestion))
    fail_trials(searcher, 2)
    suggested(searcher, "next")
    assert "nothing is known yet" in seen[2].why
    # The infrastructure may have broken by chance once, hardly twice.
    assert seen[1].configuration == seen[0].configuration
    assert seen[2].configuration != seen[0].configuration


def test_an_error_outweighs_a_result_that_came_before_it() -> None:
    searcher = FalconSearch(SPACE)
    values = suggested(searcher, "a")
    searcher.on_trial_complete("a", carried(of(values, 10.0)), error=True)
    assert searcher.observations[0].status is TrialStatus.FAILED


def test_tunes_calls_by_keyword_fit() -> None:
    for name in ("suggest", "on_trial_complete"):
        theirs = inspect.signature(getattr(Searcher, name)).parameters
        ours = inspect.signature(getattr(FalconSearch, name)).parameters
        assert list(ours) == list(theirs)
        assert [each.kind for each in ours.values()] == [each.kind for each in theirs.values()]


def test_a_trial_that_nobody_suggested_is_passed_over() -> None:
    searcher = FalconSearch(SPACE)
    searcher.on_trial_complete(trial_id="stranger", error=True)
    values = suggested(searcher, "a")
    searcher.on_trial_complete(trial_id="a", result=carried(of(values, 10.0)))
    searcher.on_trial_complete(trial_id="a", result=carried(of(values, 10.0)))
    assert len(searcher.observations) == 1


def test_a_whole_observation_arrives_as_it_was() -> None:
    searcher = FalconSearch(SPACE)
    observation = Observation(
        configuration=Configuration(suggested(searcher, "a")),
        status=TrialStatus.MEASURED,
        measurement=Measurement(saturation_rps=12.5, latency_p99_ms=80.0, extra={"tokens": 3.0}),
        attempts=2,
    )
    searcher.on_trial_complete("a", carried(observation))
    assert searcher.observations == (observation,)


def test_metrics_that_somebodys_own_trainable_reports_are_a_measurement() -> None:
    searcher = FalconSearch(SPACE, objective=Objective(Slo(latency_budget_ms=50.0)))
    values = suggested(searcher, "a")
    reported = {"saturation_rps": 12.5, "capacity_rps": 9.0, "floor_latency_ms": 20.0, "loss": 1.0}
    searcher.on_trial_complete("a", reported)
    (observation,) = searcher.observations
    assert observation.configuration == Configuration(values)
    assert observation.measurement == Measurement(
        saturation_rps=12.5, capacity_rps=9.0, floor_latency_ms=20.0
    )


def test_a_trainable_that_reports_no_rate_is_told_what_to_report() -> None:
    searcher = FalconSearch(SPACE)
    suggested(searcher, "a")
    with pytest.raises(InputError, match=r"reported no saturation_rps; report .* tune\.report"):
        searcher.on_trial_complete("a", {"loss": 1.0})


def test_listeners_hear_of_each_event_before_the_optimizer_learns_it() -> None:
    events = list[str]()
    searcher = FalconSearch(
        SPACE,
        optimizer=FakeOptimizer(SPACE, events),
        on_suggestion=lambda trial, suggestion: events.append(f"{trial} {suggestion.why}"),
        on_observation=lambda trial, each: events.append(f"{trial} {each.status.value}"),
    )
    values = suggested(searcher, "a")
    searcher.on_trial_complete("a", carried(of(values, 10.0)))
    suggested(searcher, "b")
    searcher.on_trial_complete("b", error=True)
    assert events == [
        "a next",
        "a measured",
        "learnt measured",
        "b next",
        "b failed",
        "learnt failed",
    ]


def test_replayed_observations_are_learnt_and_not_announced() -> None:
    events = list[str]()
    searcher = FalconSearch(
        SPACE,
        optimizer=FakeOptimizer(SPACE, events),
        on_observation=lambda trial, each: events.append(f"{trial} {each.status.value}"),
    )
    searcher.replay([of(dict(SPACE.candidates[0]), 10.0)])
    assert events == ["learnt measured"]


def test_equal_seeds_and_observations_suggest_the_same() -> None:
    assert run_trials(FalconSearch(SPACE, seed=3), 5) == run_trials(FalconSearch(SPACE, seed=3), 5)


def test_the_price_of_each_candidate_decides_with_its_rate() -> None:
    def measured_but_one(usd_per_hour: list[float]) -> list[dict[str, Value]]:
        space = ConfigurationSpace.of({"batch_size": [1, 2, 4, 8, 16, 32]})
        searcher = FalconSearch(space, usd_per_hour=np.array(usd_per_hour), seed=1)
        tried = list[dict[str, Value]]()
        for i in range(3):
            tried.append(suggested(searcher, f"t{i}"))
            searcher.on_trial_complete(f"t{i}", carried(of(tried[-1], 100.0)))
        return tried

    assert measured_but_one([1.0] * 6) != measured_but_one([9.0, 9.0, 9.0, 9.0, 9.0, 0.1])


@pytest.mark.parametrize("optimizer", ["mcts", "bayesian", "random"])
def test_a_saved_search_goes_on_as_it_would_have(optimizer: str, tmp_path: Path) -> None:
    searcher = FalconSearch(SPACE, optimizer=optimizer, seed=3)
    run_trials(searcher, 3)
    searcher.save(str(tmp_path / "state"))
    again = FalconSearch(SPACE, optimizer=optimizer, seed=3)
    again.restore(str(tmp_path / "state"))
    assert again.observations == searcher.observations
    assert run_trials(again, 3, first=3) == run_trials(searcher, 3, first=3)


def test_a_saved_search_is_json(tmp_path: Path) -> None:
    searcher = FalconSearch(SPACE)
    run_trials(searcher, 2)
    searcher.save(str(tmp_path / "state"))
    records = json.loads((tmp_path / "state").read_text("utf-8"))
    assert [Observation.from_json(each) for each in records] == list(searcher.observations)


def test_tune_can_pickle_a_searcher_whose_listeners_cannot_be() -> None:
    def unpicklable() -> Callable[..., NoReturn]:
        return lambda *_: pytest.fail("a listener belongs to the process that gave it")

    searcher = FalconSearch(
        SPACE, seed=3, on_suggestion=None, on_observation=None, clock=time.monotonic
    )
    run_trials(searcher, 2)
    listening = FalconSearch(
        SPACE,
        seed=3,
        annotate=unpicklable(),
        on_suggestion=unpicklable(),
        on_observation=unpicklable(),
    )
    listening.replay(searcher.observations)
    again = pickle.loads(pickle.dumps(listening))  # noqa: S301 - our own bytes
    assert again.observations == searcher.observations
    assert run_trials(again, 2, first=2) == run_trials(searcher, 2, first=2)


def test_a_trial_is_told_what_the_search_adds_to_its_configuration() -> None:
    searcher = FalconSearch(
        SPACE, annotate=lambda each: {"to_beat": 2 * each.count("cpu_cores", 0)}
    )
    values = suggested(searcher, "a")
    assert values.pop("to_beat") == 2 * int(values["cpu_cores"])
    assert Configuration(values) in SPACE
    searcher.on_trial_complete("a", {"saturation_rps": 12.5})
    # What was learnt is the configuration without it.
    assert searcher.observations[0].configuration == Configuration(values)


def test_what_is_added_is_asked_for_after_the_suggestion_is_announced() -> None:
    events = list[str]()

    def annotate(configuration: Configuration) -> dict[str, Value]:
        events.append(f"annotated {configuration}")
        return {}

    searcher = FalconSearch(
        SPACE,
        annotate=annotate,
        on_suggestion=lambda _, each: events.append(f"suggested {each.configuration}"),
    )
    values = suggested(searcher, "a")
    assert values.keys() == VALUES.keys()
    configuration = Configuration(values)
    assert events == [f"suggested {configuration}", f"annotated {configuration}"]


def test_what_is_added_is_no_dimension() -> None:
    searcher = FalconSearch(SPACE, annotate=lambda _: {"cpu_cores": 4})
    with pytest.raises(InputError, match="must not give 'cpu_cores', which is a dimension"):
        searcher.suggest("a")


def test_an_unknown_optimizer_names_the_nearest() -> None:
    with pytest.raises(InputError, match="no optimizer 'bayes'; did you mean 'bayesian'"):
        FalconSearch(SPACE, optimizer="bayes")


def test_a_trial_whose_nodes_did_not_come_is_as_if_it_had_not_been_suggested() -> None:
    searcher = FalconSearch(VALUES, max_trials=len(SPACE))
    wait_in_vain(searcher, 2)  # one that the infrastructure broke may come again once only
    tried = run_trials(searcher, len(SPACE))
    assert {Configuration(values) for values in tried} == set(SPACE.candidates)


def test_a_search_ends_as_refused_where_its_suggestion_may_not_start() -> None:
    refusing = FalconSearch(SPACE, may_start=lambda _: "too dear")
    assert refusing.suggest("a") == Searcher.FINISHED
    assert (refusing.end_reason, refusing.was_refused) == ("too dear", True)
    exhausted = FalconSearch({"batch_size": [1]})
    only = suggested(exhausted, "a")
    exhausted.on_trial_complete("a", carried(of(only, 10.0)))
    assert exhausted.suggest("b") == Searcher.FINISHED
    assert not exhausted.was_refused


def test_nodes_that_do_not_come_end_a_search_with_what_it_has() -> None:
    searcher = FalconSearch(SPACE)
    run_trials(searcher, 1)
    wait_in_vain(searcher, MAX_FAILED_IN_A_ROW)
    assert searcher.suggest("after") == Searcher.FINISHED
    assert searcher.end_reason == (
        "the nodes for what is left cannot be had now: 3 trials in a row waited in vain"
    )
    assert not searcher.is_broken


def test_nodes_that_do_not_come_for_any_trial_are_a_broken_cluster() -> None:
    searcher = FalconSearch(SPACE)
    wait_in_vain(searcher, MAX_FAILED_IN_A_ROW)
    assert searcher.suggest("after") == Searcher.FINISHED
    assert searcher.is_broken


def test_a_wait_in_vain_is_neither_a_failure_nor_the_end_of_failures() -> None:
    searcher = FalconSearch(SPACE)
    run_trials(searcher, 1)
    wait_in_vain(searcher, MAX_FAILED_IN_A_ROW - 1)
    assert searcher.failed_in_a_row == 0
    fail_trials(searcher, 2, first=1)
    wait_in_vain(searcher, MAX_FAILED_IN_A_ROW - 1)
    assert searcher.failed_in_a_row == 2
    fail_trials(searcher, 1, first=3)
    assert searcher.suggest("after") == Searcher.FINISHED
    assert searcher.is_broken


def test_what_may_not_start_is_not_asked_for_again_before_a_trial_has_ended() -> None:
    optimizer, timed, too_dear = FakeOptimizer(SPACE, []), list[float](), list[str]()
    searcher = FalconSearch(
        SPACE,
        optimizer=optimizer,
        may_start=lambda _: "too dear" if too_dear else "",
        on_timing=timed.append,
    )
    first, second = suggested(searcher, "a"), suggested(searcher, "b")
    too_dear.append("while both run")
    for _ in range(5):  # Tune asks at every step
        assert searcher.suggest("c") is None
    assert optimizer.n_asked == 3
    assert len(timed) == 2
    searcher.on_trial_complete("a", carried(of(first, 10.0)))
    assert searcher.suggest("c") is None
    assert optimizer.n_asked == 4
    too_dear.clear()
    searcher.on_trial_complete("b", carried(of(second, 10.0)))
    suggested(searcher, "c")
    assert (optimizer.n_asked, len(timed)) == (5, 3)
