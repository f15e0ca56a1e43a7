"""Whether trials of several searches were granted their resources in a fair order.

Journals say when trials waited and for how long. The module does not know how it was decided.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from falcon_ray.errors import InputError
from falcon_ray.report.journal import read_events

LATE_S = 2.0
"""What the times of a journal are off by, at most: who came so shortly before another came with
it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """One trial's wait for its resources.

    Attributes:
        search: Whose.
        line: Which type of GPU it waited for.
        asked_s: When it asked.
        granted_s: When it had them.
    """

    search: str
    line: str
    asked_s: float
    granted_s: float

    @property
    def wait_s(self) -> float:
        """How long it waited."""
        return self.granted_s - self.asked_s


def waits_of(directory: Path) -> Iterator[Wait]:
    """The waits of a search's trials, by the time of day; those that had no times are left out."""
    try:
        events = read_events(directory)
    except InputError:
        return
    for each in events:
        if each.name != "trial_ended":
            continue
        times = each.fields["observation"]["times"]
        held = ("deploy_s", "warm_up_s", "measure_s", "teardown_s")
        granted_s = each.time.timestamp() - sum(times[part] for part in held)
        yield Wait(
            search=directory.name,
            line=str(each.fields["observation"]["configuration"]["gpu_type"]),
            asked_s=granted_s - times["wait_s"],
            granted_s=granted_s,
        )


def overtakings(waits: Sequence[Wait], *, late_s: float = LATE_S) -> int:
    """How many grants went to a trial although another one was first by any account.

    That other one had asked before, waited in the same line until after the grant, and its search
    had been granted no more in that line.
    """
    found = 0
    for grant in waits:
        earlier = [
            each
            for each in waits
            if each.line == grant.line
            and each.search != grant.search
            and each.asked_s < grant.asked_s - late_s
            and each.granted_s > grant.granted_s + late_s
        ]
        found += any(
            _granted(waits, each.search, grant) <= _granted(waits, grant.search, grant)
            for each in earlier
        )
    return found


def _granted(waits: Sequence[Wait], search: str, before: Wait) -> int:
    """How many trials of a search had been granted in a line before another grant."""
    return sum(
        each.search == search and each.line == before.line and each.granted_s < before.granted_s
        for each in waits
    )
