"""What a search tells whoever watches it, and how several can.

A display is told what happens as it happens, by one thread. It does not know how trials are
run, and nothing that it does may change what a search finds.
"""

from typing import Protocol

from falcon_ray.report.record import SearchHeader
from falcon_ray.report.valuation import Valuation
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.observation import Observation


class SearchDisplay(Protocol):
    """Told what a search does, as it does it.

    Several trials may run at a time: each is known by its label, which no other has while it
    runs.
    """

    def note(self, text: str) -> None:
        """Something worth one line."""
        ...

    def search_started(
        self,
        header: SearchHeader,
        *,
        n_done: int,
        max_trials: int,
        best: Valuation | None = None,
        usd: float = 0.0,
        max_cost_usd: float | None = None,
    ) -> None:
        """The search begins, or goes on.

        Args:
            header: What was asked.
            n_done: Trials that ended before.
            max_trials: Trials in all, those included.
            best: The one of them with the highest score.
            usd: What they cost.
            max_cost_usd: What the search may cost in all; None without a limit.
        """
        ...

    def suggested(self, seconds_s: float) -> None:
        """The optimizer took so long to suggest a configuration."""
        ...

    def trial_started(self, label: str, configuration: Configuration, why: str) -> None:
        """A configuration is about to be deployed; `label` names the trial from now on."""
        ...

    def phase(self, label: str, text: str) -> None:
        """A running trial has come to another phase; `state.stage_of` says what that amounts to."""
        ...

    def trial_ended(
        self,
        label: str,
        observation: Observation,
        *,
        wall_s: float,
        usd: float | None = None,
        is_fresh: bool = False,
    ) -> None:
        """A running trial ended.

        Args:
            label: Which one.
            observation: How.
            wall_s: From its start to the end of its teardown.
            usd: What it cost; None where nobody knows.
            is_fresh: Whether it only measured a configuration again, at the end of the search.
        """
        ...

    def close(self) -> None:
        """Nothing more will follow."""
        ...


class SilentDisplay:
    """Shows nothing."""

    def note(self, text: str) -> None:
        """See `SearchDisplay.note`."""

    def search_started(
        self,
        header: SearchHeader,
        *,
        n_done: int,
        max_trials: int,
        best: Valuation | None = None,
        usd: float = 0.0,
        max_cost_usd: float | None = None,
    ) -> None:
        """See `SearchDisplay.search_started`."""

    def suggested(self, seconds_s: float) -> None:
        """See `SearchDisplay.suggested`."""

    def trial_started(self, label: str, configuration: Configuration, why: str) -> None:
        """See `SearchDisplay.trial_started`."""

    def phase(self, label: str, text: str) -> None:
        """See `SearchDisplay.phase`."""

    def trial_ended(
        self,
        label: str,
        observation: Observation,
        *,
        wall_s: float,
        usd: float | None = None,
        is_fresh: bool = False,
    ) -> None:
        """See `SearchDisplay.trial_ended`."""

    def close(self) -> None:
        """See `SearchDisplay.close`."""


class DisplayGroup:
    """Tells several displays the same, in the order in which they were given."""

    def __init__(self, *displays: SearchDisplay) -> None:
        self._displays = displays

    def note(self, text: str) -> None:
        """See `SearchDisplay.note`."""
        for each in self._displays:
            each.note(text)

    def search_started(
        self,
        header: SearchHeader,
        *,
        n_done: int,
        max_trials: int,
        best: Valuation | None = None,
        usd: float = 0.0,
        max_cost_usd: float | None = None,
    ) -> None:
        """See `SearchDisplay.search_started`."""
        for each in self._displays:
            each.search_started(
                header,
                n_done=n_done,
                max_trials=max_trials,
                best=best,
                usd=usd,
                max_cost_usd=max_cost_usd,
            )

    def suggested(self, seconds_s: float) -> None:
        """See `SearchDisplay.suggested`."""
        for each in self._displays:
            each.suggested(seconds_s)

    def trial_started(self, label: str, configuration: Configuration, why: str) -> None:
        """See `SearchDisplay.trial_started`."""
        for each in self._displays:
            each.trial_started(label, configuration, why)

    def phase(self, label: str, text: str) -> None:
        """See `SearchDisplay.phase`."""
        for each in self._displays:
            each.phase(label, text)

    def trial_ended(
        self,
        label: str,
        observation: Observation,
        *,
        wall_s: float,
        usd: float | None = None,
        is_fresh: bool = False,
    ) -> None:
        """See `SearchDisplay.trial_ended`."""
        for each in self._displays:
            each.trial_ended(label, observation, wall_s=wall_s, usd=usd, is_fresh=is_fresh)

    def close(self) -> None:
        """See `SearchDisplay.close`."""
        for each in self._displays:
            each.close()
