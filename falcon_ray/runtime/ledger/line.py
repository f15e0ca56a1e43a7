"""Who comes next of those that wait for the same kind of accelerator.

There is one line for each accelerator type. The search that holds least in it comes first, among
equals the one that was served longest ago, so that searches are served alike; within a search, who
asked first. What does not fit yet may be overtaken so often, and no more.

The module does not know nodes, nor what fits.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from falcon_ray.runtime.ledger.contract import Ask, AskState
from falcon_ray.runtime.ledger.packing import Place
from falcon_ray.space.demand import Demand


class Lack(Enum):
    """What is missing though all leases were given back."""

    NODES = "nodes"
    """Nodes that could hold it, empty of everything."""
    ROOM = "room"
    """Room on them beside what others use that hold no lease."""


MAX_OVERTAKEN = 8
"""How often others may be granted before the head of a line; then none is before it is."""
CPU_LINE = "CPU"
ANY_GPU_LINE = "any GPU"


@dataclass(slots=True, kw_only=True, eq=False)
class Entry:
    """One ask in the books of the ledger.

    Attributes:
        ask: What was asked.
        number: In the order of asking.
        heard_s: When it last gave a sign of life.
        state: What became of it.
        reason: Why, for people.
        places: What it holds.
        overtaken: How often another was granted while it was the head of its line.
        lacks: What is missing though all leases were given back.
        lacks_since_s: Since when just that.
    """

    ask: Ask
    number: int
    heard_s: float
    state: AskState = AskState.WAITING
    reason: str = ""
    places: tuple[Place, ...] = ()
    overtaken: int = 0
    lacks: Lack | None = None
    lacks_since_s: float = 0.0

    @property
    def line(self) -> str:
        """The line that it stands in."""
        return line_of(self.ask.demand)

    @property
    def has_priority(self) -> bool:
        """Whether it was overtaken so often that nobody else of its line is granted before it."""
        return self.overtaken >= MAX_OVERTAKEN


@dataclass(frozen=True, slots=True, kw_only=True)
class LineCounts:
    """How many asks of one line are in which state."""

    waiting: int = 0
    provisioning: int = 0
    granted: int = 0


def line_of(demand: Demand) -> str:
    """Ray's accelerator type, or that it takes any GPU, or none."""
    if not demand.n_gpus:
        return CPU_LINE
    return demand.gpu_type or ANY_GPU_LINE


def in_order(
    waiting: Iterable[Entry], *, held: Mapping[str, int], served: Mapping[str, int]
) -> list[Entry]:
    """The asks of one line, who comes next first.

    Args:
        waiting: In any order.
        held: How many leases of this line each search holds.
        served: The number of the last grant of this line to each search, ascending in time.
    """
    first: dict[str, int] = {}
    entries = sorted(waiting, key=lambda entry: entry.number)
    for entry in entries:
        first.setdefault(entry.ask.search_id, entry.number)

    def turn(entry: Entry) -> tuple[int, int, int, int]:
        search = entry.ask.search_id
        return held.get(search, 0), served.get(search, 0), first[search], entry.number

    return sorted(entries, key=turn)
