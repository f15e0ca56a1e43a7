"""A trial's side of the ledger, with a ledger that says what the test wants."""

import threading
from dataclasses import dataclass, field
from typing import Any

import pytest
from ray.exceptions import RayActorError, RayTaskError

from falcon_ray.errors import InfeasibleError, NodesUnavailableError, TrialFailedError
from falcon_ray.runtime.ledger.client import LOST_LEDGER_S, LeaseTerms, LedgerClient, leased
from falcon_ray.runtime.ledger.contract import Answer, Ask, AskState
from falcon_ray.space.demand import Demand
from tests.fakes import VirtualClock

TERMS = LeaseTerms(search_id="s")
ASK = TERMS.ask("falcon-0a1b2c-trial-1", Demand())
GRANTED = Answer(state=AskState.GRANTED, node_ids=("n1",))


@dataclass
class FakeLedger:
    """Answers in turn, each after `answer_s`, and again as the last time after that."""

    answers: list[Answer]
    clock: VirtualClock = field(default_factory=VirtualClock)
    answer_s: float = 2.0
    beats: list[Answer] = field(default_factory=lambda: [GRANTED])
    breaks: Exception | None = None
    beaten: threading.Event = field(default_factory=threading.Event)
    given_back: list[str] = field(default_factory=list[str])

    def alive(self, ask: Ask, node_ids: tuple[str, ...], wait_s: float = 0.0) -> Answer:
        del ask
        if node_ids:
            self.beaten.set()
            if self.breaks is not None:
                raise self.breaks
            return self.beats[-1]
        self.clock.advance(min(wait_s, self.answer_s))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def give_back(self, lease_id: str) -> None:
        self.given_back.append(lease_id)


def test_a_lease_is_given_back_when_the_trial_ends() -> None:
    ledger = FakeLedger([GRANTED])
    with leased(ASK, ledger, clock=ledger.clock) as lease:
        assert lease.node_ids == ("n1",)
        assert ledger.given_back == []
    assert ledger.given_back == [ASK.lease_id]


def test_the_wait_for_nodes_is_timed_apart_from_the_wait_for_others() -> None:
    provisioning, waiting = (
        Answer(state=each) for each in (AskState.PROVISIONING, AskState.WAITING)
    )
    ledger = FakeLedger([waiting, provisioning, provisioning, waiting, GRANTED])
    told: list[AskState] = []
    with leased(ASK, ledger, on_state=told.append, clock=ledger.clock) as lease:
        # Two of the four waits, of 2 s each, began while nodes were on their way.
        assert lease.provision_s == 4.0
    assert told == [AskState.WAITING, AskState.PROVISIONING, AskState.WAITING]


def test_a_wait_for_others_counts_as_one_for_nodes_while_some_are_added() -> None:
    adding = Answer(state=AskState.WAITING, is_adding=True)
    ledger = FakeLedger([adding, adding, GRANTED])
    told: list[AskState] = []
    with leased(ASK, ledger, on_state=told.append, clock=ledger.clock) as lease:
        assert lease.provision_s == 4.0  # two calls of 2 s each, after the first
    assert told == [AskState.PROVISIONING]


@pytest.mark.parametrize(
    ("state", "error"),
    [
        (AskState.INFEASIBLE, InfeasibleError),
        (AskState.UNAVAILABLE, NodesUnavailableError),
    ],
)
def test_a_refusal_says_why_and_leaves_nothing_behind(
    state: AskState, error: type[Exception]
) -> None:
    ledger = FakeLedger([Answer(state=state, reason="no node has so many cores")])
    with (
        pytest.raises(error, match="no node has so many cores"),
        leased(ASK, ledger, clock=ledger.clock),
    ):
        pass
    assert ledger.given_back == [ASK.lease_id]


def test_a_trial_whose_lease_went_to_others_has_failed() -> None:
    ledger = FakeLedger([GRANTED], beats=[Answer(state=AskState.UNKNOWN)])
    with leased(ASK, ledger, heartbeat_s=0.0, clock=ledger.clock) as lease:
        assert ledger.beaten.wait(10)
    with pytest.raises(TrialFailedError, match="given the trial's resources to others"):
        lease.check()


def test_a_trial_whose_signs_of_life_ended_by_any_error_has_failed() -> None:
    ledger = FakeLedger([GRANTED], breaks=RuntimeError("can't start new thread"))
    with leased(ASK, ledger, heartbeat_s=0.0, clock=ledger.clock) as lease:
        assert ledger.beaten.wait(10)
    with pytest.raises(TrialFailedError, match="RuntimeError: can't start new thread"):
        lease.check()


def test_a_trial_that_the_ledger_forgot_while_it_waited_asks_anew() -> None:
    waiting = Answer(state=AskState.WAITING)
    ledger = FakeLedger([waiting, Answer(state=AskState.UNKNOWN), waiting, GRANTED])
    told: list[AskState] = []
    with leased(ASK, ledger, on_state=told.append, clock=ledger.clock) as lease:
        assert lease.node_ids == ("n1",)
    assert told == [AskState.WAITING]


def test_a_lease_that_is_held_is_no_failure() -> None:
    ledger = FakeLedger([GRANTED])
    with leased(ASK, ledger, heartbeat_s=0.0, clock=ledger.clock) as lease:
        assert ledger.beaten.wait(10)
        lease.check()


def test_each_attempt_at_a_trial_asks_under_a_name_of_its_own() -> None:
    again = TERMS.ask("falcon-0a1b2c-trial-1", Demand())
    assert again.lease_id != ASK.lease_id
    assert again.lease_id.partition("/")[0] == "falcon-0a1b2c-trial-1"


class FakeActor:
    """A ledger's handle: what a call to it brings is what the test says, in turn."""

    def __init__(self, *results: Answer | Exception) -> None:
        self._results = list(results)
        self.alive = self

    def remote(self, *arguments: object) -> Answer | Exception:
        del arguments
        return self._results.pop(0) if len(self._results) > 1 else self._results[0]


def client_of(actor: FakeActor, clock: VirtualClock) -> LedgerClient:
    def result(call: Any, timeout_s: float) -> Any:  # noqa: ANN401 - an answer or an error
        del timeout_s
        if isinstance(call, Exception):
            raise call
        return call

    return LedgerClient(lambda: actor, clock=clock, pause=clock.advance, result=result)


BROKE = RayTaskError("alive", "its traceback", KeyError("a node"))


def test_a_ledger_that_fails_at_a_call_is_asked_again() -> None:
    actor = FakeActor(RayActorError(), BROKE, TimeoutError(), GRANTED)
    assert client_of(actor, VirtualClock()).alive(ASK, ()) == GRANTED


def test_a_ledger_that_fails_at_every_call_fails_the_trial_in_the_end() -> None:
    clock = VirtualClock()
    with pytest.raises(TrialFailedError, match="did not answer"):
        client_of(FakeActor(BROKE), clock).alive(ASK, ())
    assert clock() > LOST_LEDGER_S
