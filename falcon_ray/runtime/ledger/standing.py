"""What an ask waits for, in words: others' leases, nodes, or nothing that could ever come.

It knows one ask and what nodes hold. It does not know who else waits, nor what time it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from falcon_ray.runtime.ledger.capacity import (
    KnownNodes,
    are_held,
    what_it_takes,
    why_never_held,
)
from falcon_ray.runtime.ledger.contract import Ask, AskState
from falcon_ray.runtime.ledger.line import Lack
from falcon_ray.runtime.ledger.packing import Room, have_room


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where an ask stands that was not granted.

    Attributes:
        state: WAITING, PROVISIONING or INFEASIBLE.
        lack: What is missing though all leases were given back.
        can_be_added: Whether the autoscaler could add what is missing.
        reason: For people.
    """

    state: AskState
    lack: Lack | None = None
    can_be_added: bool = False
    reason: str = ""


def standing(ask: Ask, known: KnownNodes, rooms: Sequence[Room] | None) -> Standing:
    """Where an ask stands.

    Args:
        ask: What was asked.
        known: The nodes that there are, were and can be.
        rooms: What would be free if all leases were given back; None where that is everything.
    """
    demand = ask.demand
    if known.hold(demand):
        if rooms is None or have_room(ask, rooms):
            return Standing(state=AskState.WAITING, reason="other trials have what it needs")
        return Standing(
            state=AskState.WAITING,
            lack=Lack.ROOM,
            reason="others that are no trials of falcon_ray use what it needs",
        )
    if reason := why_never_held(demand, known.ever):
        return Standing(state=AskState.INFEASIBLE, reason=reason)
    can_be_added = are_held(demand, known.with_added)
    return Standing(
        state=AskState.PROVISIONING,
        lack=Lack.NODES,
        can_be_added=can_be_added,
        reason="it waits for nodes that the autoscaler can add"
        if can_be_added
        else "the nodes that could hold it are gone, and the autoscaler can add none",
    )


def why_given_up(found: Standing, ask: Ask, *, patience_s: float) -> str:
    """Why there is no more waiting after so many seconds, and what to do."""
    wanted = what_it_takes(ask.demand)
    if found.lack is Lack.ROOM:
        return (
            f"others that are no trials of falcon_ray have used the room for {wanted} for "
            f"{patience_s:g} s; see `ray status`, and stop them or add nodes"
        )
    if found.can_be_added:
        return (
            f"the autoscaler brought no room for {wanted} within {patience_s:g} s; see `ray "
            "status` for why, or wait longer with a larger provision_timeout_s"
        )
    return (
        f"the nodes that could hold {wanted} have been gone for {patience_s:g} s, and the "
        "autoscaler can add none; start them again, then resume"
    )
