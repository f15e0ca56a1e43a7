from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from falcon_ray.errors import InputError
from falcon_ray.space.configuration import Configuration, ConfigurationSpace
from falcon_ray.space.observation import Measurement, Observation, TrialStatus
from falcon_ray.studies.search.cpu_trials import (
    PlannedTrial,
    RecordedTrial,
    begin_or_continue,
    cpu_space,
    recorded_trials,
    run_trials,
    schedule,
    unsteady,
)

SPACE = ConfigurationSpace.of({"batch_size": [1, 2, 4]})
PRICES = dict.fromkeys(SPACE.candidates, 0.1)
MACHINE = {"device": "a CPU", "versions": {"torch": "2"}}


def observation(configuration: Configuration, rps: float | None) -> Observation:
    if rps is None:
        return Observation(
            configuration=configuration, status=TrialStatus.INFEASIBLE, reason="out of memory"
        )
    return Observation(
        configuration=configuration,
        status=TrialStatus.MEASURED,
        measurement=Measurement(saturation_rps=rps),
    )


def failed(configuration: Configuration) -> Observation:
    return Observation(configuration=configuration, status=TrialStatus.FAILED, reason="node lost")


def recorded(batch_size: int, repeat: int, rps: float | None) -> RecordedTrial:
    configuration = Configuration({"batch_size": batch_size})
    return RecordedTrial(
        trial=PlannedTrial("m", configuration, repeat),
        observation=observation(configuration, rps),
        usd_per_hour=0.1,
        wall_s=8.0,
    )


class FakeMachine:
    def __init__(self) -> None:
        self.ran: list[tuple[str, Configuration]] = []
        self.fails = False

    def run(self, model: str, configuration: Configuration) -> Observation:
        self.ran.append((model, configuration))
        return failed(configuration) if self.fails else observation(configuration, 10.0)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    begin_or_continue(tmp_path, MACHINE)
    return tmp_path


def test_the_space_has_at_least_sixty_candidates_that_two_cores_hold() -> None:
    candidates = cpu_space().candidates
    # three placements x two dtypes x (batch 1, and five larger ones with two waits each)
    assert len(candidates) == 3 * 2 * (1 + 5 * 2)
    assert max(c.count("cpu_cores", 1) * c.count("replicas", 1) for c in candidates) == 2


def test_every_configuration_is_measured_once_before_any_is_measured_twice() -> None:
    planned = schedule(["a", "b"], SPACE, n_repeats=2, seed=3)
    assert [each.repeat for each in planned] == [1] * 6 + [2] * 6
    assert len(set(planned)) == 12


def test_the_order_follows_the_seed_and_differs_between_repeats() -> None:
    planned = schedule(["a", "b"], SPACE, n_repeats=2, seed=3)
    assert planned == schedule(["a", "b"], SPACE, n_repeats=2, seed=3)
    assert planned != schedule(["a", "b"], SPACE, n_repeats=2, seed=4)
    first, second = (
        [(each.model, each.configuration) for each in planned if each.repeat == repeat]
        for repeat in (1, 2)
    )
    assert first != second


def test_what_the_journal_holds_is_not_measured_again(journal: Path) -> None:
    planned = schedule(["a"], SPACE, n_repeats=1, seed=0)
    machine = FakeMachine()
    trials = run_trials(planned, journal, machine.run, prices=PRICES)
    done = next(trials)
    trials.close()  # interrupted after one trial
    rest = list(run_trials(planned, journal, machine.run, prices=PRICES))
    assert [each.trial for each in rest] == planned[1:]
    assert [each.trial for each in recorded_trials(journal)] == planned
    assert recorded_trials(journal)[0] == done


def test_a_trial_that_the_infrastructure_failed_is_run_again(journal: Path) -> None:
    planned = schedule(["a"], SPACE, n_repeats=1, seed=0)[:1]
    machine = FakeMachine()
    machine.fails = True
    assert [
        each.is_settled for each in run_trials(planned, journal, machine.run, prices=PRICES)
    ] == [False]
    machine.fails = False
    assert len(list(run_trials(planned, journal, machine.run, prices=PRICES))) == 1
    assert [each.is_settled for each in recorded_trials(journal)] == [False, True]


def test_each_trial_runs_inside_what_is_put_around_it_and_is_timed_there(journal: Path) -> None:
    said: list[str] = []
    now_s = [0.0]

    @contextmanager
    def around() -> Iterator[None]:
        now_s[0] += 100.0  # waiting for others is no part of the trial
        said.append("enter")
        yield
        said.append("leave")

    def run(_: str, configuration: Configuration) -> Observation:
        said.append("run")
        now_s[0] += 8.0
        return observation(configuration, 10.0)

    planned = schedule(["a"], SPACE, n_repeats=1, seed=0)[:2]
    trials = list(
        run_trials(
            planned, journal, run, prices=PRICES, around_trial=around, clock=lambda: now_s[0]
        )
    )
    assert said == ["enter", "run", "leave"] * 2
    assert [each.wall_s for each in trials] == [8.0, 8.0]


def test_what_differs_by_more_than_a_tenth_gets_one_more_repeat() -> None:
    trials = [
        *(recorded(1, 1, 100.0), recorded(1, 2, 109.0)),  # 9 %
        *(recorded(2, 1, 100.0), recorded(2, 2, 111.0)),  # 11 %
        *(recorded(4, 1, 100.0), recorded(4, 2, None)),
        *(recorded(8, 1, None), recorded(8, 2, None)),
        recorded(16, 1, 100.0),  # its second repeat is still to come
    ]
    again = unsteady(trials, n_repeats=2, difference=0.1)
    assert [(each.configuration["batch_size"], each.repeat) for each in again] == [(2, 3), (4, 3)]


def test_a_journal_is_not_continued_on_another_machine(journal: Path) -> None:
    begin_or_continue(journal, MACHINE)
    with pytest.raises(InputError, match=r"another versions .*choose a new directory"):
        begin_or_continue(journal, MACHINE | {"versions": {"torch": "3"}})
