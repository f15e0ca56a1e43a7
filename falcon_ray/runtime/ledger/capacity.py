"""What nodes hold at most, empty of everything, and why a demand could never be held.

It knows the nodes that there are, were and can be. It does not know who uses them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from falcon_ray.runtime.ledger.contract import Ask, LedgerNode, NodeType
from falcon_ray.runtime.ledger.packing import Room
from falcon_ray.space.defaults import NodeShape
from falcon_ray.space.demand import Demand


def most_replicas(demand: Demand, shape: NodeShape) -> int:
    """How many replicas an empty node holds, all of them at most."""
    return Room("", shape).count(Ask(lease_id="", search_id="", demand=demand))


def are_held(demand: Demand, nodes: Mapping[NodeShape, int]) -> bool:
    """Whether empty nodes, so many of each shape, hold all replicas together."""
    return _total(demand, nodes) >= demand.replicas


def why_never_held(demand: Demand, nodes: Mapping[NodeShape, int]) -> str | None:
    """Why empty nodes, so many of each shape, do not hold all replicas; None where they do."""
    fit = _total(demand, nodes)
    if fit >= demand.replicas:
        return None
    if fit:
        return f"{demand.replicas} replicas do not fit: the nodes hold {fit}; {_offers(nodes)}"
    wanted = f" with {words}" if (words := _what_one_takes(demand)) else ""
    return f"no node can hold a replica{wanted}; {_offers(nodes)}"


def what_it_takes(demand: Demand) -> str:
    """What all replicas take, in words."""
    one = _what_one_takes(demand) or "next to nothing"
    return one if demand.replicas == 1 else f"{demand.replicas} replicas of {one}"


def _what_one_takes(demand: Demand) -> str:
    wanted = [f"{demand.cpu_cores:g} CPU cores"] if demand.cpu_cores else []
    if demand.n_gpus:
        of_type = f" of type {demand.gpu_type}" if demand.gpu_type else ""
        wanted.append(f"{demand.n_gpus:g} GPUs{of_type}")
    return " and ".join(wanted)


class KnownNodes:
    """Which nodes there are, were at most, and can be, by what they have.

    Nodes of a type that the autoscaler can add count as that many of the type; the others by
    their shape.
    """

    def __init__(self) -> None:
        self._most: dict[NodeShape | str, tuple[NodeShape, int]] = {}
        self.live: Mapping[NodeShape, int] = Counter()
        self.addable: Mapping[NodeShape, int] = Counter()
        self._are_held: dict[Demand, bool] = {}

    def learn(self, nodes: Sequence[LedgerNode], types: Sequence[NodeType]) -> None:
        """Take in the nodes that are there now, and the types that can be added."""
        self._are_held.clear()
        by_type = {each.name: each for each in types}
        self.live = Counter(_kind(node.shape) for node in nodes)
        typed = Counter(node.node_type for node in nodes if node.node_type in by_type)
        added = Counter[NodeShape]()
        for each in types:
            added[_kind(each.shape)] += max(0, each.max_nodes - typed[each.name])
            self._remember(each.name, each.shape, max(each.max_nodes, typed[each.name]))
        self.addable = added
        for shape, n in Counter(
            _kind(node.shape) for node in nodes if node.node_type not in by_type
        ).items():
            self._remember(shape, shape, n)

    def hold(self, demand: Demand) -> bool:
        """Whether the nodes that are there would hold all replicas, empty of everything."""
        if demand not in self._are_held:
            self._are_held[demand] = are_held(demand, self.live)
        return self._are_held[demand]

    @property
    def with_added(self) -> Mapping[NodeShape, int]:
        """Those that are there and those that can be added to them."""
        return Counter(self.live) + Counter(self.addable)

    @property
    def ever(self) -> Mapping[NodeShape, int]:
        """The most nodes of each shape that there were or can be at once."""
        found: Counter[NodeShape] = Counter()
        for shape, n in self._most.values():
            found[shape] += n
        return found

    def _remember(self, key: NodeShape | str, shape: NodeShape, n: int) -> None:
        _, most = self._most.get(key, (shape, 0))
        self._most[key] = _kind(shape), max(most, n)


def _kind(shape: NodeShape) -> NodeShape:
    """Nodes are of one kind whatever their memory: Ray hands out cores and GPUs."""
    return replace(shape, ram_gib=0.0)


def _total(demand: Demand, nodes: Mapping[NodeShape, int]) -> int:
    return sum(n * most_replicas(demand, shape) for shape, n in nodes.items())


def _offers(nodes: Iterable[NodeShape]) -> str:
    """What the nodes have, each kind of node once."""
    kinds = dict.fromkeys(
        f"{node.cpus} cores" + (f" and {node.n_gpus} {node.gpu_type}" if node.n_gpus else "")
        for node in nodes
    )
    return f"they have {', '.join(kinds) or 'nothing'}"
