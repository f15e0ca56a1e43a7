"""Processes beside the replicas, kept from one trial to the next on the same node.

To start a process takes a second of CPU, and a trial needs two on every node that it is on. The
stock knows nodes and who has borrowed what. It does not know Ray, nor what the processes do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

KEEP_S = 10.0
"""What nobody has used for so long is ended: a node that runs it is never idle to an autoscaler."""
MAX_IDLE_DRIVERS = 4
"""On one node; few trials need more."""


class Agents(Protocol):
    """Where a trial gets its load drivers and watches from.

    Each method may raise `TrialFailedError` where they cannot be asked for.
    """

    def drivers(self, borrower: str, node: str, n: int) -> list[Any]:
        """So many load drivers on a node, beyond those that the borrower has; not waited for."""
        ...

    def watch(self, borrower: str, node: str) -> Any:  # noqa: ANN401 - an actor's handle
        """The node's one watch, which borrowers share; not waited for."""
        ...

    def end(self, borrower: str, drivers: Sequence[Any]) -> None:
        """These drivers are of no more use."""
        ...

    def give_back(self, borrower: str) -> None:
        """The borrower needs nothing any more, and what it has is in order."""
        ...

    def forget(self, borrower: str) -> None:
        """The borrower is gone, or broke: its drivers may still be at work, and are ended."""
        ...


@dataclass(frozen=True, slots=True)
class Making:
    """How processes come and go.

    Attributes:
        driver: Starts a load driver on a node, and does not wait for it.
        watch: Starts a watch likewise.
        end: Ends either.
    """

    driver: Callable[[str], Any]
    watch: Callable[[str], Any]
    end: Callable[[Any], None]


@dataclass(slots=True)
class _OnNode:
    """What runs on one node.

    Attributes:
        idle: Drivers that nobody has borrowed.
        lent: Drivers by borrower.
        watch: None where there is none.
        watchers: Who uses it.
        used_s: When something was last borrowed or given back.
    """

    used_s: float
    idle: list[Any] = field(default_factory=list)
    lent: dict[str, list[Any]] = field(default_factory=dict)
    watch: Any = None
    watchers: set[str] = field(default_factory=set)


class AgentStock:
    """See `Agents`; everything is ended by `close`.

    Args:
        making: How processes come and go.
        clock: Monotonic seconds.
    """

    def __init__(self, making: Making, clock: Callable[[], float]) -> None:
        self._making = making
        self._clock = clock
        self._nodes: dict[str, _OnNode] = {}

    def drivers(self, borrower: str, node: str, n: int) -> list[Any]:
        """See `Agents.drivers`."""
        there = self._on(node)
        given = [there.idle.pop() for _ in range(min(n, len(there.idle)))]
        given += [self._making.driver(node) for _ in range(n - len(given))]
        there.lent.setdefault(borrower, []).extend(given)
        return given

    def watch(self, borrower: str, node: str) -> Any:  # noqa: ANN401 - an actor's handle
        """See `Agents.watch`."""
        there = self._on(node)
        if there.watch is None:
            there.watch = self._making.watch(node)
        there.watchers.add(borrower)
        return there.watch

    def end(self, borrower: str, drivers: Sequence[Any]) -> None:
        """See `Agents.end`."""
        for there in self._nodes.values():
            lent = there.lent.get(borrower, [])
            for driver in [each for each in lent if each in drivers]:
                lent.remove(driver)
                self._making.end(driver)

    def give_back(self, borrower: str) -> None:
        """See `Agents.give_back`."""
        for there in self._of(borrower):
            there.idle += there.lent.pop(borrower, [])
            while len(there.idle) > MAX_IDLE_DRIVERS:
                self._making.end(there.idle.pop())

    def forget(self, borrower: str) -> None:
        """See `Agents.forget`; a watch that nobody else uses is ended as well."""
        for there in self._of(borrower):
            for driver in there.lent.pop(borrower, []):
                self._making.end(driver)
            if there.watch is not None and not there.watchers:
                self._making.end(there.watch)
                there.watch = None

    def sweep(self) -> None:
        """End what nobody has used for `KEEP_S`."""
        for node, there in list(self._nodes.items()):
            in_use = there.watchers or any(there.lent.values())
            if not in_use and self._clock() - there.used_s >= KEEP_S:
                self._end_all(self._nodes.pop(node))

    def close(self) -> None:
        """End everything, what is borrowed included."""
        while self._nodes:
            self._end_all(self._nodes.popitem()[1])

    def _on(self, node: str) -> _OnNode:
        there = self._nodes.setdefault(node, _OnNode(self._clock()))
        there.used_s = self._clock()
        return there

    def _of(self, borrower: str) -> list[_OnNode]:
        """The nodes of a borrower, which is no watcher of theirs any more."""
        found = [
            each
            for each in self._nodes.values()
            if borrower in each.watchers or borrower in each.lent
        ]
        for there in found:
            there.watchers.discard(borrower)
            there.used_s = self._clock()
        return found

    def _end_all(self, there: _OnNode) -> None:
        lent = [driver for drivers in there.lent.values() for driver in drivers]
        for actor in (*there.idle, *lent, *(() if there.watch is None else (there.watch,))):
            self._making.end(actor)
