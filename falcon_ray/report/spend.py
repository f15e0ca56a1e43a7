"""What a search cost, from its journal alone.

The journal says what each trial cost, or that nobody knew. The module knows neither prices nor how
costs come about.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from falcon_ray.report.record import SearchRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Spend:
    """Dollars of a search.

    Attributes:
        trials_usd: Of all trials of which that is known; None where it is known of none.
        confirmations_usd: Of the fresh measurements at the end, likewise.
        max_cost_usd: The limit; None without one.
        n_unknown: Trials and fresh measurements of which nobody knows what they cost; with those
            of which no end was recorded.
    """

    trials_usd: float | None
    confirmations_usd: float | None
    max_cost_usd: float | None
    n_unknown: int

    @property
    def total_usd(self) -> float | None:
        """Of all of which it is known; None where it is known of none."""
        if self.trials_usd is None and self.confirmations_usd is None:
            return None
        return (self.trials_usd or 0.0) + (self.confirmations_usd or 0.0)


def spend(record: SearchRecord) -> Spend:
    """Add up what a journal says."""
    trials = [each.usd for each in record.trials]
    fresh = [each.usd for each in record.confirmations]
    unknown = sum(each is None for each in (*trials, *fresh))
    return Spend(
        trials_usd=_sum(trials),
        confirmations_usd=_sum(fresh),
        max_cost_usd=record.max_cost_usd,
        n_unknown=unknown + len(record.interrupted) + len(record.interrupted_confirmations),
    )


def spend_json(record: SearchRecord) -> Mapping[str, Any]:
    """The fields of `spend` in `report.json`."""
    found = spend(record)
    return {
        "total_usd": found.total_usd,
        "trials_usd": found.trials_usd,
        "confirmations_usd": found.confirmations_usd,
        "max_cost_usd": found.max_cost_usd,
        "n_unknown": found.n_unknown,
    }


def spend_note(record: SearchRecord) -> Iterator[str]:
    """One line, e.g. `Spent 0.83 USD of at most 2.00.`; none where nothing is known.

    Emulated GPUs cost nothing: of them it says what real ones would have.
    """
    found = spend(record)
    if found.total_usd is None:
        return
    usd = f"{_usd(found.total_usd)} USD"
    text = f"Would have spent {usd} on real GPUs" if record.header.emulated else f"Spent {usd}"
    if found.max_cost_usd is not None:
        text += f" of at most {_usd(found.max_cost_usd)}"
    if found.confirmations_usd is not None:
        text += f", {_usd(found.confirmations_usd)} of it to measure afresh"
    if found.n_unknown:
        text += f"; what {found.n_unknown} without a recorded cost took is not in it"
    yield f"{text}."


def _sum(dollars: list[float | None]) -> float | None:
    known = [each for each in dollars if each is not None]
    return sum(known) if known else None


def _usd(usd: float) -> str:
    """To the cent, and to two figures below a cent."""
    return f"{usd:.2f}" if usd >= 0.01 or usd == 0 else f"{usd:.2g}"
