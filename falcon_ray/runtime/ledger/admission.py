"""Which trial may use which part of the cluster, and when: events in, decisions out.

A trial's resources are granted all at once or not at all, so trials never wait for each other.
What is granted is held until it is given back, or until its trial is silent for too long; that a
node died takes nothing from a lease, for its trial notices by itself.

The module knows the nodes that it is told of and the time that it is told. It does not know Ray,
processes, nor how long a trial takes.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from falcon_ray.runtime.ledger.capacity import KnownNodes, are_held
from falcon_ray.runtime.ledger.contract import Answer, Ask, AskState, LedgerNode, NodeType
from falcon_ray.runtime.ledger.granting import Round
from falcon_ray.runtime.ledger.line import Entry, Lack, LineCounts
from falcon_ray.runtime.ledger.packing import Place, find_places_on, rooms_of
from falcon_ray.runtime.ledger.standing import Standing, standing, why_given_up
from falcon_ray.space.demand import Demand

LEASE_S = 20.0
"""How long a trial may be silent, whether it waits or holds. What a killed one holds is free again
after that."""
IN_LINE = frozenset({AskState.WAITING, AskState.PROVISIONING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What a tick brought, by lease_id.

    Attributes:
        granted: In the order of granting.
        unavailable: Whose nodes did not come in time.
        expired: Who was silent for too long, and is unknown now.
    """

    granted: tuple[str, ...] = ()
    unavailable: tuple[str, ...] = ()
    expired: tuple[str, ...] = ()


class Admission:
    """The ledger's books, and its decisions.

    Args:
        lease_s: How long a trial may be silent.
        grants_from_s: Nothing is granted before: a ledger that was restarted first hears from the
            trials that hold what it no longer knows, which takes one of their heartbeats.
    """

    def __init__(self, *, lease_s: float = LEASE_S, grants_from_s: float = 0.0) -> None:
        self._lease_s = lease_s
        self._grants_from_s = grants_from_s
        self._entries: dict[str, Entry] = {}
        self._n_asked = 0
        self._nodes: tuple[LedgerNode, ...] | None = None
        self._known = KnownNodes()
        self._served: dict[str, dict[str, int]] = {}
        self._claimed: dict[str, tuple[str, ...]] = {}

    def nodes_changed(
        self, nodes: Sequence[LedgerNode], types: Sequence[NodeType], now_s: float
    ) -> None:
        """Take in the nodes that are there now and the types that can be added, with their use."""
        self._nodes = tuple(nodes)
        self._known.learn(nodes, types)
        for lease_id, node_ids in self._claimed.items():
            entry = self._entries.get(lease_id)
            if entry is not None and self._contradicts(entry, node_ids):
                del self._entries[lease_id]
        self._claimed.clear()
        self._judge(self._entries.values(), now_s)

    def ask(self, ask: Ask, now_s: float) -> Answer:
        """Stand in line, or be refused at once; asking again is a sign of life, and no more."""
        entry = self._entries.get(ask.lease_id)
        if entry is None:
            entry = self._enter(ask, now_s)
            self._judge([entry], now_s)
        entry.heard_s = now_s
        return self.answer(ask.lease_id)

    def alive(self, lease_id: str, now_s: float) -> Answer:
        """Take in a sign of life; whoever is UNKNOWN and holds something must be restored."""
        if entry := self._entries.get(lease_id):
            entry.heard_s = now_s
        return self.answer(lease_id)

    def restore(self, ask: Ask, node_ids: Sequence[str], now_s: float) -> Answer:
        """Take back a lease that a ledger before this one granted; a sign of life if it is known.

        Returns:
            GRANTED, or UNKNOWN with the reason where its nodes are gone or taken: its trial has
            lost it. Before the nodes are known it is believed, and judged as soon as they are.
        """
        entry = self._entries.get(ask.lease_id)
        if entry is not None and entry.state not in IN_LINE:
            entry.heard_s = now_s
            return self.answer(ask.lease_id)
        entry = entry or self._enter(ask, now_s)
        entry.heard_s = now_s
        entry.state, entry.reason = AskState.GRANTED, ""
        if self._nodes is None:
            self._claimed[ask.lease_id] = tuple(node_ids)
        elif reason := self._contradicts(entry, node_ids):
            del self._entries[ask.lease_id]
            return Answer(state=AskState.UNKNOWN, reason=reason)
        return self.answer(ask.lease_id)

    def give_back(self, lease_id: str, now_s: float) -> None:  # noqa: ARG002
        """Forget an ask, whatever became of it; what it held is free for others."""
        self._forget(lease_id)

    def tick(self, now_s: float) -> Changes:
        """Forget whoever is silent, give up on nodes that do not come, and grant what fits."""
        expired = [
            lease_id
            for lease_id, entry in self._entries.items()
            if now_s - entry.heard_s >= self._lease_s
        ]
        for lease_id in expired:
            self._forget(lease_id)
        unavailable = self._judge(self._entries.values(), now_s)
        may_grant = self._nodes is not None and now_s >= self._grants_from_s
        granted = self._grant(now_s) if may_grant else []
        return Changes(
            granted=tuple(granted), unavailable=tuple(unavailable), expired=tuple(expired)
        )

    def answer(self, lease_id: str) -> Answer:
        """What became of an ask."""
        entry = self._entries.get(lease_id)
        if entry is None:
            return Answer(state=AskState.UNKNOWN, reason="it was given back, or silent too long")
        claimed = self._claimed.get(lease_id, ())
        node_ids = tuple(place.node_id for place in entry.places) or claimed
        return Answer(
            state=entry.state,
            node_ids=node_ids,
            reason=entry.reason,
            is_adding=self._is_helped_by_more(entry),
        )

    def wanted(self) -> tuple[Ask, ...]:
        """The asks that more nodes would help which the autoscaler can add, in their order.

        Those that no node could hold that is there, and those that wait for others to end.
        """
        return tuple(
            entry.ask for entry in self._entries.values() if self._is_helped_by_more(entry)
        )

    def _is_helped_by_more(self, entry: Entry) -> bool:
        if entry.state is AskState.PROVISIONING:
            return are_held(entry.ask.demand, self._known.with_added)
        return (
            entry.state is AskState.WAITING
            and entry.lacks is None
            and are_held(entry.ask.demand, self._known.addable)
        )

    def known(self) -> frozenset[str]:
        """All lease ids in the books: what bears another's name has no live owner."""
        return frozenset(self._entries)

    def counts(self) -> Mapping[str, LineCounts]:
        """How many wait and hold, by accelerator type, "any GPU" and "CPU"."""
        found = Counter((entry.line, entry.state) for entry in self._entries.values())
        return {
            line: LineCounts(
                waiting=found[line, AskState.WAITING],
                provisioning=found[line, AskState.PROVISIONING],
                granted=found[line, AskState.GRANTED],
            )
            for line in sorted({line for line, _ in found})
        }

    def _enter(self, ask: Ask, now_s: float) -> Entry:
        self._n_asked += 1
        entry = Entry(ask=ask, number=self._n_asked, heard_s=now_s)
        self._entries[ask.lease_id] = entry
        if self._nodes is None:
            entry.reason = "the ledger has not looked at the cluster yet"
        return entry

    def _forget(self, lease_id: str) -> None:
        self._entries.pop(lease_id, None)
        self._claimed.pop(lease_id, None)

    def _contradicts(self, entry: Entry, node_ids: Sequence[str]) -> str:
        """Give a lease back its places; why that cannot be, where it cannot.

        Other leases alone can contradict: what is in use on its nodes is in use by itself.
        """
        nodes = [LedgerNode(node_id=each.node_id, shape=each.shape) for each in self._nodes or ()]
        entry.places = find_places_on(entry.ask, node_ids, rooms_of(nodes, self._leases())) or ()
        if entry.places:
            return ""
        return f"its places on {', '.join(sorted(set(node_ids))) or 'no node'} are gone or taken"

    def _in_state(self, state: AskState) -> list[Entry]:
        return [each for each in self._entries.values() if each.state is state]

    def _leases(self) -> list[tuple[Ask, tuple[Place, ...]]]:
        return [(each.ask, each.places) for each in self._in_state(AskState.GRANTED)]

    def _judge(self, entries: Iterable[Entry], now_s: float) -> list[str]:
        """Say what those in line wait for; the lease ids of those whose patience is at its end."""
        if self._nodes is None:
            return []
        rooms = rooms_of(self._nodes, self._leases(), given_back=True)
        beside_others = rooms if any(room.is_used_by_others for room in rooms) else None
        standings: dict[tuple[Demand, bool], Standing] = {}
        given_up: list[str] = []
        for entry in entries:
            if entry.state not in IN_LINE:
                continue
            key = entry.ask.demand, entry.ask.exclusive
            if key not in standings:
                standings[key] = standing(entry.ask, self._known, beside_others)
            found = standings[key]
            if found.lack is not entry.lacks:
                entry.lacks, entry.lacks_since_s = found.lack, now_s
            entry.state, entry.reason = found.state, found.reason
            patience_s = self._patience_s(entry)
            if entry.state in IN_LINE and now_s - entry.lacks_since_s >= patience_s:
                entry.state = AskState.UNAVAILABLE
                entry.reason = why_given_up(found, entry.ask, patience_s=patience_s)
                given_up.append(entry.ask.lease_id)
        return given_up

    def _patience_s(self, entry: Entry) -> float:
        """How long it may lack what it lacks.

        What others use is seen late: what a lease gave back looks like theirs for a while.
        """
        if entry.lacks is None:
            return math.inf
        timeout_s = entry.ask.provision_timeout_s
        return timeout_s if entry.lacks is Lack.NODES else max(timeout_s, self._lease_s)

    def _grant(self, now_s: float) -> list[str]:
        searches = {entry.ask.search_id for entry in self._entries.values()}
        for line in self._served.values():
            for gone in line.keys() - searches:
                del line[gone]
        waiting = self._in_state(AskState.WAITING)
        found = Round(
            self._nodes or (),
            waiting,
            bystanders=[
                each
                for each in waiting
                if each.lacks is not None and now_s - each.lacks_since_s >= self._lease_s
            ],
            granted=self._in_state(AskState.GRANTED),
            served=self._served,
        ).run()
        return [entry.ask.lease_id for entry in found]
