"""A trial's side of the ledger: ask, wait, tell that one is alive, give back.

Used in the process that runs the trial, so that the lease ends with it. It knows leases. It does
not know what is done with one, nor how the ledger decides.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import ray
from ray.exceptions import RayError

from falcon_ray.errors import InfeasibleError, NodesUnavailableError, TrialFailedError
from falcon_ray.runtime.ledger.contract import Answer, Ask, AskState
from falcon_ray.runtime.ledger.presence import END_S
from falcon_ray.space.demand import Demand

logger = logging.getLogger(__name__)

POLL_S = 5.0
"""How long one call waits for the ledger's decision; it is a sign of life as well."""
HEARTBEAT_S = 4.0
CALL_TIMEOUT_S = 30.0
RETRY_S = 0.5
LOST_LEDGER_S = 60.0
"""How long the ledger may be out of reach."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTerms:
    """How the trials of a search ask for their resources.

    Attributes:
        search_id: Whose they are.
        exclusive: See `Ask`.
        provision_timeout_s: See `Ask`.
    """

    search_id: str
    exclusive: bool = True
    provision_timeout_s: float = 600.0

    def ask(self, app_name: str, demand: Demand) -> Ask:
        """What one attempt at a trial asks for; each has a name of its own."""
        return Ask(
            lease_id=f"{app_name}/{secrets.token_hex(4)}",
            search_id=self.search_id,
            demand=demand,
            exclusive=self.exclusive,
            provision_timeout_s=self.provision_timeout_s,
        )


@dataclass(slots=True)
class Lease:
    """Resources that are a trial's own.

    Attributes:
        node_ids: Where its replicas have their places.
        provision_s: Seconds that it waited while nodes were being added for it.
    """

    node_ids: tuple[str, ...]
    provision_s: float
    _lost: str = field(default="", repr=False)

    def check(self) -> None:
        """Whether it is still held.

        Raises:
            TrialFailedError: The ledger has given it to others, as it heard nothing.
        """
        if self._lost:
            raise TrialFailedError(self._lost)

    def lose(self, reason: str) -> None:
        """It is not held any more."""
        self._lost = reason


class LedgerClient:
    """Calls to the ledger, which may be gone for a while.

    Args:
        ledger: Gives its actor, and makes it where it is gone for good.
        clock: Monotonic seconds.
        pause: Waits for so many seconds.
        result: What a call to the actor brought, waited for so many seconds at most.
    """

    def __init__(
        self,
        ledger: Callable[[], Any],
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
        result: Callable[[Any, float], Any] = lambda call, timeout_s: ray.get(
            call, timeout=timeout_s
        ),
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._pause = pause
        self._result = result
        self._actor = ledger()

    def alive(self, ask: Ask, node_ids: tuple[str, ...], wait_s: float = 0.0) -> Answer:
        """A sign of life, again and again while the ledger is out of reach.

        A ledger that fails at the call has not answered either.

        Raises:
            TrialFailedError: It stays so.
        """
        start_s = self._clock()
        while True:
            try:
                call = self._actor.alive.remote(ask, node_ids, wait_s)
                return self._result(call, CALL_TIMEOUT_S + wait_s)
            except (RayError, TimeoutError) as error:
                if self._clock() - start_s > LOST_LEDGER_S:
                    raise TrialFailedError(
                        f"the ledger of the cluster's resources did not answer for "
                        f"{LOST_LEDGER_S:g} s: {type(error).__name__}"
                    ) from error
                logger.info("the ledger is out of reach: %s", type(error).__name__)
                self._pause(RETRY_S)
                with suppress(RayError, ValueError):
                    self._actor = self._ledger()

    def give_back(self, lease_id: str) -> None:
        """Tell that a trial has ended; otherwise the ledger notices its silence."""
        self._told(lambda: self._actor.give_back.remote(lease_id))

    def end_app(self, app_name: str) -> None:
        """Tell that the process of a trial is gone, and its application with it."""
        self._told(lambda: self._actor.end_app.remote(app_name))

    def join(self, search_id: str) -> None:
        """Tell that a search begins, before it looks for Serve, and wait while another ends that.

        From then on nobody ends Serve before it has left.
        """
        self._told(lambda: self._actor.join.remote(search_id), CALL_TIMEOUT_S + END_S)

    def started_serve(self) -> None:
        """Tell that a search which has joined started Serve."""
        self._told(self._actor.started_serve.remote)

    def leave(self, search_id: str) -> bool:
        """Tell that a search ends; whether it is to end Serve, and to call `ended_serve` then."""
        return bool(self._told(lambda: self._actor.leave.remote(search_id)))

    def ended_serve(self) -> None:
        """Tell that a search has ended Serve, as it was told to; others wait for that."""
        self._told(self._actor.ended_serve.remote)

    def _told(self, call: Callable[[], Any], timeout_s: float = CALL_TIMEOUT_S) -> object:
        """What the ledger answers; None where it is out of reach, as nothing hangs on it."""
        try:
            return self._result(call(), timeout_s)
        except (RayError, TimeoutError) as error:
            logger.info("the ledger is out of reach: %s", type(error).__name__)
            return None


class Connection(Protocol):
    """The part of `LedgerClient` that a lease needs."""

    def alive(self, ask: Ask, node_ids: tuple[str, ...], wait_s: float = 0.0) -> Answer:
        """See `LedgerClient.alive`."""
        ...

    def give_back(self, lease_id: str) -> None:
        """See `LedgerClient.give_back`."""
        ...


@contextmanager
def leased(
    ask: Ask,
    connection: Connection,
    *,
    on_state: Callable[[AskState], None] = lambda _: None,
    heartbeat_s: float = HEARTBEAT_S,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Lease]:
    """Hold what is asked for until the context exits.

    Args:
        ask: What.
        connection: To the ledger.
        on_state: Told of every state of waiting: that others have it, or that nodes are added.
        heartbeat_s: Seconds between two signs of life.
        clock: Monotonic seconds.

    Raises:
        InfeasibleError: No node could ever hold it.
        TrialFailedError: Nodes did not come, or the ledger is out of reach.
    """
    stop = threading.Event()
    try:
        lease = _wait(ask, connection, on_state, clock)
        beat = threading.Thread(
            target=_tell_alive,
            args=(ask, lease, connection, stop, heartbeat_s),
            name="lease",
            daemon=True,
        )
        beat.start()
        try:
            yield lease
        finally:
            stop.set()
            beat.join()
    finally:
        connection.give_back(ask.lease_id)


def _wait(
    ask: Ask,
    connection: Connection,
    on_state: Callable[[AskState], None],
    clock: Callable[[], float],
) -> Lease:
    provision_s, told = 0.0, None
    while True:
        start_s = clock()
        # The first answer comes at once, so that it is known what is waited for.
        answer = connection.alive(ask, (), wait_s=0.0 if told is None else POLL_S)
        if told is AskState.PROVISIONING:
            provision_s += clock() - start_s
        match answer.state:
            case AskState.GRANTED:
                return Lease(answer.node_ids, provision_s)
            case AskState.INFEASIBLE:
                raise InfeasibleError(answer.reason)
            case AskState.UNAVAILABLE:
                raise NodesUnavailableError(answer.reason)
            case AskState.UNKNOWN:
                continue  # it was not heard in time; the next call asks anew
            case AskState.WAITING | AskState.PROVISIONING:
                found = AskState.PROVISIONING if answer.is_adding else answer.state
                if found is not told:
                    on_state(found)
                told = found


def _tell_alive(
    ask: Ask, lease: Lease, connection: Connection, stop: threading.Event, heartbeat_s: float
) -> None:
    """Give signs of life until told to stop, or until the lease is lost.

    Without them the resources go to others, so whatever ends this loses the lease.
    """
    while not stop.wait(heartbeat_s):
        try:
            answer = connection.alive(ask, lease.node_ids)
        except TrialFailedError as error:
            lease.lose(str(error))
            return
        except Exception as error:
            logger.exception("telling the ledger that the trial is alive broke")
            lease.lose(f"no sign of life was given to the ledger: {type(error).__name__}: {error}")
            return
        if answer.state is not AskState.GRANTED:
            lease.lose(
                "the ledger has given the trial's resources to others: it had no sign of life "
                "from it in time"
            )
            return
