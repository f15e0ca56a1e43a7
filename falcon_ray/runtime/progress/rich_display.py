"""A search on a terminal, or as plain lines where there is none.

It decides what is shown when; `wording` and `live_table` say how.
"""

import time
from collections.abc import Callable

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from falcon_ray.report.record import SearchHeader
from falcon_ray.report.valuation import Valuation
from falcon_ray.runtime.progress.live_table import live_table
from falcon_ray.runtime.progress.state import SearchProgress
from falcon_ray.runtime.progress.wording import opening, outcome
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.observation import Observation

REFRESHES_PER_S = 1
"""As often as what is shown changes by itself; drawing takes time from what is measured."""


class RichDisplay:
    """Shows the trials of a search, however many run at a time.

    On a terminal a live part shows what runs, and what ended scrolls by above it. Elsewhere a
    trial is one line when it starts and one when it ends, each with its label in front.

    Args:
        console: Where to.
        clock: Monotonic seconds.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._progress = SearchProgress()
        self._whys: dict[str, str] = {}
        self._live: Live | None = None

    def note(self, text: str) -> None:
        """See `SearchDisplay.note`."""
        self._print(Text(text, style="dim"))

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
        self._progress = SearchProgress(
            header=header,
            max_trials=max_trials,
            n_before=n_done,
            best=best,
            usd=usd,
            max_cost_usd=max_cost_usd,
        )
        self._print(Text(opening(header, n_done=n_done, max_trials=max_trials)))

    def suggested(self, seconds_s: float) -> None:
        """See `SearchDisplay.suggested`; nobody waits for that."""

    def trial_started(self, label: str, configuration: Configuration, why: str) -> None:
        """See `SearchDisplay.trial_started`."""
        self._progress = self._progress.started(label, configuration, now_s=self._clock())
        if not self._console.is_terminal:
            self._print(Text(f"{label}: {configuration}; why: {_one_line(why)}"))
            return
        self._whys[label] = why
        if self._live is None:
            self._live = Live(
                console=self._console,
                get_renderable=self._drawn,
                refresh_per_second=REFRESHES_PER_S,
                transient=True,
            )
            self._live.start()
        self._live.refresh()

    def phase(self, label: str, text: str) -> None:
        """See `SearchDisplay.phase`."""
        self._progress = self._progress.at_phase(label, text)
        if self._live is not None:
            self._live.refresh()

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
        before = self._progress
        self._progress = before.with_end(label, observation, usd=usd, is_fresh=is_fresh)
        ended = outcome(
            observation,
            before.valued(observation),
            is_best=self._progress.best is not before.best,
            wall_s=wall_s,
            usd=usd,
            emulated=before.header is not None and before.header.emulated,
        )
        if not self._console.is_terminal:
            self._print(Text(f"{label}: {ended}"))
            return
        self._print(Text(f"{label}: {observation.configuration}", style="bold"))
        if why := self._whys.pop(label, ""):
            self._print(Text(f"  why: {_one_line(why)}"))
        self._print(Text(f"  {ended}"))

    def close(self) -> None:
        """See `SearchDisplay.close`."""
        self._progress = self._progress.stopped()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _print(self, line: Text) -> None:
        self._console.print(line, soft_wrap=True)

    def _drawn(self) -> RenderableType:
        return live_table(self._progress, now_s=self._clock(), height=self._console.height)


def _one_line(text: str) -> str:
    return " ".join(text.split())
