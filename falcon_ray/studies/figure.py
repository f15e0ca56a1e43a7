"""A figure that a benchmark prints, beside the goal that it is held to."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured number.

    Attributes:
        name: What was measured, for people.
        value: The number.
        unit: e.g. "%", "ms"; empty for a plain number.
        at_most: Goal as an upper limit; None without one.
        at_least: Goal as a lower limit; None without one.
        note: How it was measured: how many cases, what was held out.
    """

    name: str
    value: float
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None
    note: str = ""

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is met; None where there is no goal."""
        if self.at_most is None and self.at_least is None:
            return None
        return (self.at_most is None or self.value <= self.at_most) and (
            self.at_least is None or self.value >= self.at_least
        )
