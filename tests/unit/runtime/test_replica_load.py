from dataclasses import dataclass, field

from falcon_ray.runtime.replica_load import MAX_BURST, saturate_each
from tests.fakes import VirtualClock


@dataclass
class Router:
    """Hands each call to the replica that its turn says; an answer takes virtual time.

    Attributes:
        turns: Replica of each call; the last one also of all later calls.
        decline_s: How long a replica takes to decline.
        load_s: How long a load takes.
    """

    clock: VirtualClock
    turns: list[int]
    decline_s: float = 0.1
    load_s: float = 1.0
    loaded: list[int] = field(default_factory=list[int])
    n_sent: int = 0

    def send(self) -> "FakeCall":
        replica = self.turns[min(self.n_sent, len(self.turns) - 1)]
        self.n_sent += 1
        if replica in self.loaded:
            return FakeCall(self.clock, self.clock() + self.decline_s, None)
        self.loaded.append(replica)
        return FakeCall(self.clock, self.clock() + self.load_s, 100.0 + replica)


@dataclass
class FakeCall:
    clock: VirtualClock
    done_s: float
    rate: float | None

    def result(self, *, timeout_s: float | None) -> float | None:
        assert timeout_s is not None
        if self.clock() + timeout_s < self.done_s:
            self.clock.advance(timeout_s)
            raise TimeoutError
        self.clock.now_s = max(self.clock(), self.done_s)
        return self.rate


def rates(router: Router, n: int) -> list[float]:
    return sorted(saturate_each(router.send, n, 1.0, clock=router.clock))


def test_every_replica_is_loaded_once() -> None:
    router = Router(VirtualClock(), [0, 1, 2])
    assert rates(router, 3) == [100.0, 101.0, 102.0]
    assert router.n_sent == 3


def test_a_call_that_was_declined_is_replaced() -> None:
    router = Router(VirtualClock(), [0, 0, 1])
    assert rates(router, 2) == [100.0, 101.0]
    assert router.n_sent == 3


def test_ever_more_calls_look_for_a_replica_that_the_router_passes_by() -> None:
    # After the first two come 1, 2, 4 and 8 more: the eleventh call is among the last eight.
    router = Router(VirtualClock(), [0] * 10 + [1])
    assert rates(router, 2) == [100.0, 101.0]
    assert router.n_sent == 2 + 1 + 2 + 4 + 8


def test_a_replica_that_no_call_finds_is_missing_and_the_search_ends() -> None:
    clock = VirtualClock()
    router = Router(clock, [0])
    assert rates(router, 2) == [100.0]
    # Calls are replaced for 0.8 s, once the last ones are declined after 0.1 s; the load ends
    # at 1 s.
    assert clock() == 1.0
    assert router.n_sent <= 2 + 1 + 2 + 4 + 8 + 8 * MAX_BURST


def test_a_load_that_ended_while_calls_were_replaced_still_counts() -> None:
    # Declining takes so long that the first load is over before its call is looked at again.
    router = Router(VirtualClock(), [0, 0, 1], decline_s=0.04, load_s=0.06)
    assert rates(router, 2) == [100.0, 101.0]


def test_a_single_replica_needs_a_single_call() -> None:
    router = Router(VirtualClock(), [0])
    assert rates(router, 1) == [100.0]
    assert router.n_sent == 1
