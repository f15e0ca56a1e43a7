"""One round of granting: who of those in line finds places now.

Who was overtaken too often comes first, in the order of asking. Until it fits, nobody else of its
line is granted anything, and the nodes that it would take if all leases were given back are kept
from the other lines, so that they fall free. The first of them is kept from nothing, so somebody
always goes on.

The module does not know what time it is.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from falcon_ray.runtime.ledger.capacity import most_replicas
from falcon_ray.runtime.ledger.contract import Ask, AskState, LedgerNode
from falcon_ray.runtime.ledger.line import Entry, in_order
from falcon_ray.runtime.ledger.packing import Room, find_places, rooms_of
from falcon_ray.space.demand import Demand


class Round:
    """One round of granting.

    Args:
        nodes: That are there now.
        waiting: Whom the nodes could hold.
        bystanders: Those of them for whom nobody is held up: it is not leases that they wait for.
        granted: Who holds something.
        served: The number of the last grant to each search, by line; kept up to date.
    """

    def __init__(
        self,
        nodes: Sequence[LedgerNode],
        waiting: Iterable[Entry],
        *,
        bystanders: Iterable[Entry],
        granted: Iterable[Entry],
        served: dict[str, dict[str, int]],
    ) -> None:
        self._nodes = nodes
        self._lines: dict[str, list[Entry]] = defaultdict(list)
        for entry in waiting:
            self._lines[entry.line].append(entry)
        self._bystanders = frozenset(entry.ask.lease_id for entry in bystanders)
        self._held: dict[str, Counter[str]] = defaultdict(Counter)
        self._served = served
        self._leases = [(entry.ask, entry.places) for entry in granted]
        for entry in granted:
            self._held[entry.line][entry.ask.search_id] += 1
        self._rooms = rooms_of(nodes, self._leases)
        self._hopeless: set[tuple[Demand, bool]] = set()
        self._done: list[Entry] = []

    def run(self) -> list[Entry]:
        """Grant what fits; who was granted something, in that order."""
        closed: set[str] = set()
        first = [each for line in self._lines.values() for each in line if self._has_priority(each)]
        for entry in sorted(first, key=lambda each: each.number):
            if entry.line not in closed and not self._try(entry):
                closed.add(entry.line)
                kept = self._plan(entry.ask)
                self._rooms = [room for room in self._rooms if room.node_id not in kept]
        for line in sorted(self._lines, key=self._first_number):
            if line not in closed:
                self._serve(line)
        return self._done

    def _serve(self, line: str) -> None:
        """Grant in the order of a line, until nothing fits or its head was overtaken too often."""
        while True:
            order = self._in_order(line)
            if first := [each for each in order if self._has_priority(each)]:
                if not self._try(min(first, key=lambda each: each.number)):
                    return
                continue
            head = self._head(order)
            entry = next((each for each in order if self._try(each)), None)
            if entry is None:
                return
            if head is not None and order.index(head) < order.index(entry):
                head.overtaken += 1
            self._count_across(entry)

    def _count_across(self, entry: Entry) -> None:
        """Count for the heads of other lines whose nodes a later one was granted a part of."""
        taken = {place.node_id for place in entry.places}
        shapes = {node.shape for node in self._nodes if node.node_id in taken}
        for line, entries in self._lines.items():
            if line == entry.line or not any(each.number < entry.number for each in entries):
                continue
            head = self._head(self._in_order(line))
            if (
                head is not None
                and head.number < entry.number
                and any(most_replicas(head.ask.demand, shape) for shape in shapes)
            ):
                head.overtaken += 1

    def _try(self, entry: Entry) -> bool:
        """Grant it where it fits now. What did not fit once will not in this round."""
        key = entry.ask.demand, entry.ask.exclusive
        places = None if key in self._hopeless else find_places(entry.ask, self._rooms)
        if places is None:
            self._hopeless.add(key)
            return False
        entry.places, entry.state, entry.reason = places, AskState.GRANTED, ""
        self._lines[entry.line].remove(entry)
        self._held[entry.line][entry.ask.search_id] += 1
        served = self._served.setdefault(entry.line, {})
        served[entry.ask.search_id] = max(served.values(), default=0) + 1
        self._done.append(entry)
        return True

    def _plan(self, ask: Ask) -> frozenset[str]:
        """The nodes that it would take if all leases were given back, of those not kept yet."""
        kept = {room.node_id for room in self._rooms}
        nodes = [node for node in self._nodes if node.node_id in kept]
        beside_others = rooms_of(nodes, self._leases, given_back=True)
        empty = [Room(node.node_id, node.shape) for node in nodes]
        places = find_places(ask, beside_others) or find_places(ask, empty) or ()
        return frozenset(place.node_id for place in places)

    def _in_order(self, line: str) -> list[Entry]:
        served = self._served.get(line, {})
        return in_order(self._lines[line], held=self._held[line], served=served)

    def _head(self, order: Sequence[Entry]) -> Entry | None:
        return next((each for each in order if each.ask.lease_id not in self._bystanders), None)

    def _has_priority(self, entry: Entry) -> bool:
        return entry.has_priority and entry.ask.lease_id not in self._bystanders

    def _first_number(self, line: str) -> int:
        return min((entry.number for entry in self._lines[line]), default=0)
