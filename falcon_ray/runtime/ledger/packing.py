"""Where the replicas of a demand find places, by the rules by which Ray hands out nodes and GPUs.

Cores add up on a node. A share of a GPU below 1 lies on one GPU; whole GPUs are so many entirely
free ones of one node. A place is as tight as can be, so that large holes stay free, and a demand
without GPUs goes to nodes without GPUs where it can.

Who may be beside whom: an exclusive lease has its GPUs to itself, and one without GPUs its nodes;
the cores of a node are otherwise only counted. Which GPU a share lies on is Ray's choice, and Ray
puts it beside another share where it fits. So an exclusive share stays away from nodes where the
share of another lease could meet it, though another GPU be free there.

The module does not know who waits, nor what time it is.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from falcon_ray.runtime.ledger.contract import Ask, LedgerNode
from falcon_ray.space.defaults import NodeShape

ONE = 10_000
"""Ray counts in ten-thousandths; whole numbers of them add up exactly."""


def units(amount: float) -> int:
    """An amount of cores or GPUs as Ray counts it."""
    return round(amount * ONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What one replica takes of one node.

    Attributes:
        node_id: Ray's.
        cpus: Of `ONE` for each core.
        gpus: Which GPUs, by a number of the ledger's own, and how much of each, of `ONE`.
    """

    node_id: str
    cpus: int
    gpus: tuple[tuple[int, int], ...] = ()


class Room:
    """What is free on one node, and which leases are there.

    Args:
        node_id: Ray's.
        shape: What the node has.
    """

    def __init__(self, node_id: str, shape: NodeShape) -> None:
        self.node_id = node_id
        self.gpu_type = shape.gpu_type
        self._cpus = units(shape.cpus)
        self._gpus = [ONE] * shape.n_gpus
        self._asks: dict[str, Ask] = {}
        self._share_of_others = 0
        self.is_used_by_others = False

    def count(self, ask: Ask) -> int:
        """How many replicas of a lease that is not here yet find places, all of them at most."""
        return self.count_of(ask, cpus=units(ask.demand.cpu_cores), gpus=units(ask.demand.n_gpus))

    def count_of(self, ask: Ask, *, cpus: int, gpus: int) -> int:
        """`count`, where what a replica takes is known in Ray's units."""
        demand = ask.demand
        if self._cpus < cpus or (demand.gpu_type is not None and demand.gpu_type != self.gpu_type):
            return 0
        n = demand.replicas if not gpus else min(demand.replicas, self._count_by_gpus(gpus))
        n = min(n, self._cpus // cpus) if cpus else n
        return n if n and self._is_welcome(ask, gpus) else 0

    def tightness(self, ask: Ask, n: int) -> tuple[bool, int, int, str]:
        """What orders nodes for n replicas: GPUs that would lie idle, then what is left."""
        gpus, cpus = units(ask.demand.n_gpus), units(ask.demand.cpu_cores)
        return (
            bool(self._gpus) and not gpus,
            sum(self._gpus) - n * gpus,
            self._cpus - n * cpus,
            self.node_id,
        )

    def take(self, ask: Ask, n: int) -> tuple[Place, ...]:
        """Give places to n replicas, of which `count` says that they find them."""
        places: list[Place] = []
        for _ in range(n):
            gpus = self._choose_gpus(units(ask.demand.n_gpus))
            place = Place(node_id=self.node_id, cpus=units(ask.demand.cpu_cores), gpus=gpus)
            self.put(ask, place)
            places.append(place)
        return tuple(places)

    def put(self, ask: Ask, place: Place) -> None:
        """Enter a place that was given before."""
        self._asks[ask.lease_id] = ask
        self._cpus -= place.cpus
        for number, amount in place.gpus:
            if number < len(self._gpus):  # else the node has fewer than when they were given
                self._gpus[number] -= amount

    def use(self, *, cpus: int, gpus: int) -> None:
        """Enter what others use that hold no lease; which of the GPUs is not known.

        Whole GPUs are taken for entirely free ones, the rest for a share of one.
        """
        self.is_used_by_others = bool(cpus or gpus)
        self._cpus -= cpus
        for _ in range(gpus // ONE):
            freest = max(range(len(self._gpus)), key=self._gpus.__getitem__)
            self._gpus[freest] = 0
        self._share_of_others = gpus % ONE
        if self._share_of_others:
            fitting = [free for free in self._gpus if free >= self._share_of_others]
            chosen = self._gpus.index(min(fitting) if fitting else max(self._gpus))
            self._gpus[chosen] = max(0, self._gpus[chosen] - self._share_of_others)

    def _is_welcome(self, ask: Ask, share: int) -> bool:
        others = self._asks.values()
        if others and _wants_node_alone(ask):
            return False
        if any(_wants_node_alone(other) for other in others):
            return False
        if not 0 < share < ONE:
            return True
        if ask.exclusive and 0 < self._share_of_others <= ONE - share:
            return False
        return not any(
            (ask.exclusive or other.exclusive) and 0 < units(other.demand.n_gpus) <= ONE - share
            for other in others
        )

    def _count_by_gpus(self, gpus: int) -> int:
        if gpus >= ONE:
            return sum(free == ONE for free in self._gpus) // (gpus // ONE)
        return sum(free // gpus for free in self._gpus)

    def _choose_gpus(self, gpus: int) -> tuple[tuple[int, int], ...]:
        if gpus >= ONE:
            free = [number for number, each in enumerate(self._gpus) if each == ONE]
            return tuple((number, ONE) for number in free[: gpus // ONE])
        if not gpus:
            return ()
        fitting = [number for number, each in enumerate(self._gpus) if each >= gpus]
        return ((min(fitting, key=self._gpus.__getitem__), gpus),)


def rooms_of(
    nodes: Iterable[LedgerNode],
    leases: Iterable[tuple[Ask, Sequence[Place]]],
    *,
    given_back: bool = False,
) -> list[Room]:
    """What is free on nodes beside leases and beside what others use.

    With `given_back`, what would be free if all leases were given back.

    Others use what Ray counts as in use beyond the leases on a node. A lease that was granted and
    is not deployed yet therefore hides as much of their use: its replicas then find no place, the
    trial fails by its own time-out and is tried again. One that was just given back looks like
    others' use until Ray counts it no longer.
    """
    by_node = {node.node_id: node for node in nodes}
    rooms = {node.node_id: Room(node.node_id, node.shape) for node in by_node.values()}
    leased = {node_id: [0, 0] for node_id in rooms}
    for ask, places in leases:
        for place in places:
            if place.node_id in rooms:  # else the node died, and its lease counts for nothing
                if not given_back:
                    rooms[place.node_id].put(ask, place)
                leased[place.node_id][0] += place.cpus
                leased[place.node_id][1] += sum(amount for _, amount in place.gpus)
    for node_id, room in rooms.items():
        node, (cpus, gpus) = by_node[node_id], leased[node_id]
        used_gpus = min(units(node.used_gpus), units(node.shape.n_gpus))
        room.use(cpus=max(0, units(node.used_cpus) - cpus), gpus=max(0, used_gpus - gpus))
    return list(rooms.values())


def have_room(ask: Ask, rooms: Iterable[Room]) -> bool:
    """Whether all replicas find places now."""
    left = ask.demand.replicas
    for room in rooms:
        left -= room.count(ask)
        if left <= 0:
            return True
    return False


def find_places(ask: Ask, rooms: Iterable[Room]) -> tuple[Place, ...] | None:
    """Places for all replicas, on few nodes, taken off their rooms; None where they have none."""
    replicas = ask.demand.replicas
    cpus, gpus = units(ask.demand.cpu_cores), units(ask.demand.n_gpus)
    able = {room: n for room in rooms if (n := room.count_of(ask, cpus=cpus, gpus=gpus))}
    if not ask.demand.n_gpus:
        without = {room: n for room, n in able.items() if room.gpu_type is None}
        able = without if sum(without.values()) >= replicas else able
    if sum(able.values()) < replicas:
        return None
    places: list[Place] = []
    while (left := replicas - len(places)) > 0:
        room = _next_room(ask, able, left)
        places += room.take(ask, min(left, able.pop(room)))
    return tuple(places)


def find_places_on(
    ask: Ask, node_ids: Sequence[str], rooms: Iterable[Room]
) -> tuple[Place, ...] | None:
    """Places on these nodes, one for each replica; None where any of them has none.

    Nothing is taken off the rooms unless all have places.
    """
    by_node = {room.node_id: room for room in rooms}
    wanted = {node_id: node_ids.count(node_id) for node_id in dict.fromkeys(node_ids)}
    if len(node_ids) != ask.demand.replicas or any(
        node_id not in by_node or by_node[node_id].count(ask) < n for node_id, n in wanted.items()
    ):
        return None
    found = {node_id: list(by_node[node_id].take(ask, n)) for node_id, n in wanted.items()}
    return tuple(found[node_id].pop() for node_id in node_ids)


def _next_room(ask: Ask, able: dict[Room, int], left: int) -> Room:
    """The tightest that holds all that are left, else the one that holds most of them."""
    enough = [room for room, n in able.items() if n >= left]
    if enough:
        return min(enough, key=lambda room: room.tightness(ask, left))
    return min(able, key=lambda room: (-able[room], room.tightness(ask, able[room])))


def _wants_node_alone(ask: Ask) -> bool:
    return ask.exclusive and not ask.demand.n_gpus
