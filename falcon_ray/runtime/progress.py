"""What a search shows while it runs.

`SearchDisplay` is what the job tells; `RichDisplay` shows it on a terminal, or as plain lines
where there is none. `PhaseCallback` carries the phases of a Tune trial to the display.
"""

from typing import Any, Protocol

from ray.tune import Callback
from rich.console import Console
from rich.status import Status
from rich.text import Text

from falcon_ray.report.record import SearchHeader
from falcon_ray.report.valuation import value
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.objective import Objective
from falcon_ray.space.observation import Measurement, Observation, TrialStatus
from falcon_ray.space.workload import Scenario

PHASE_KEY = "phase"


class SearchDisplay(Protocol):
    """Told what a search does, as it does it."""

    def note(self, text: str) -> None:
        """Something worth one line."""
        ...

    def search_started(
        self, header: SearchHeader, *, n_done: int, max_trials: int, best: float | None = None
    ) -> None:
        """The search begins, or goes on after `n_done` trials with `best` as highest score."""
        ...

    def trial_started(self, label: str, configuration: Configuration, why: str) -> None:
        """A configuration is about to be deployed; `label` names the trial."""
        ...

    def phase(self, text: str) -> None:
        """The running trial has come to another phase."""
        ...

    def trial_ended(
        self, observation: Observation, *, wall_s: float, is_fresh: bool = False
    ) -> None:
        """The running trial ended; `is_fresh` where it only measured a configuration again."""
        ...

    def close(self) -> None:
        """Nothing more will follow."""
        ...


class SilentDisplay:
    """Shows nothing."""

    def note(self, text: str) -> None:
        """See `SearchDisplay.note`."""

    def search_started(
        self, header: SearchHeader, *, n_done: int, max_trials: int, best: float | None = None
    ) -> None:
        """See `SearchDisplay.search_started`."""

    def trial_started(self, label: str, configuration: Configuration, why: str) -> None:
        """See `SearchDisplay.trial_started`."""

    def phase(self, text: str) -> None:
        """See `SearchDisplay.phase`."""

    def trial_ended(
        self, observation: Observation, *, wall_s: float, is_fresh: bool = False
    ) -> None:
        """See `SearchDisplay.trial_ended`."""

    def close(self) -> None:
        """See `SearchDisplay.close`."""


class RichDisplay:
    """One line per trial, and a live line for the one that runs.

    Args:
        console: Where to; a live line is shown on terminals only.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status: Status | None = None
        self._header: SearchHeader | None = None
        self._trial = ""
        self._best = 0.0

    def note(self, text: str) -> None:
        """See `SearchDisplay.note`."""
        self._print(Text(text, style="dim"))

    def search_started(
        self, header: SearchHeader, *, n_done: int, max_trials: int, best: float | None = None
    ) -> None:
        """See `SearchDisplay.search_started`."""
        self._header, self._best = header, best or 0.0
        aim = f"most requests per dollar{_conditions(header.objective)}"
        done = f" ({n_done} done before)" if n_done else ""
        self._print(
            Text(
                f"Search {header.search_id}: {header.target}, {len(header.space)} "
                f"configurations, up to {max_trials} trials{done}; aim: {aim}"
            )
        )

    def trial_started(self, label: str, configuration: Configuration, why: str) -> None:
        """See `SearchDisplay.trial_started`."""
        self._trial = f"{label}: {configuration}"
        self._print(Text(self._trial, style="bold"))
        self._print(Text(f"  why: {why}"))
        if self._console.is_terminal:
            self._status = self._console.status(Text("starting"))
            self._status.start()

    def phase(self, text: str) -> None:
        """See `SearchDisplay.phase`."""
        if self._status is not None:
            self._status.update(Text(text))

    def trial_ended(
        self, observation: Observation, *, wall_s: float, is_fresh: bool = False
    ) -> None:
        """See `SearchDisplay.trial_ended`."""
        self._stop_status()
        self._print(Text(f"  {self._outcome(observation, is_fresh=is_fresh)}, {wall_s:.0f} s"))

    def close(self) -> None:
        """See `SearchDisplay.close`."""
        self._stop_status()

    def _print(self, line: Text) -> None:
        self._console.print(line, soft_wrap=True)

    def _stop_status(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _outcome(self, observation: Observation, *, is_fresh: bool) -> str:
        measured = observation.measurement
        if measured is None or self._header is None:
            word = "infeasible" if observation.status is TrialStatus.INFEASIBLE else "failed"
            return f"{word}: {observation.reason}"
        valued = value(observation, self._header.objective, self._header.pricing)
        parts = [_rates(measured)]
        if measured.slo_verdict is not None:
            parts.append(f"SLO {measured.slo_verdict}")
        if valued.score is None:
            parts += [valued.reason] if valued.reason else []
        else:
            is_best = not is_fresh and valued.score > self._best
            best = ", best so far" if is_best else ""
            self._best = valued.score if is_best else self._best
            parts.append(f"{valued.score:,.0f} requests per dollar{best}")
        if measured.cut_short:
            parts.append(f"cut short: {measured.cut_short}")
        return "; ".join(parts)


def _conditions(objective: Objective) -> str:
    """Which rate counts, as the end of a sentence."""
    slo, offered_rps = objective.slo, objective.offered_rps
    if objective.scenario is Scenario.OFFLINE:
        return " at saturation"
    alone = " with one in flight" if objective.scenario is Scenario.SINGLE_STREAM else ""
    given = "" if offered_rps is None else f" at {offered_rps:g}/s"
    if slo is None:
        return alone + given
    limit = f"p{slo.latency_percentile:g} within {slo.latency_budget_ms:g} ms"
    return f"{alone}{given}{' and' if alone else ' with'} {limit}"


def _rates(measured: Measurement) -> str:
    rate = f"{measured.saturation_rps:.4g} requests/s at saturation"
    if (low := measured.saturation_rps_ci_low) is not None:
        half = 100 * (measured.saturation_rps - low) / measured.saturation_rps
        rate += f" (±{half:.1f} %)"
    if measured.single_stream_rps is not None:
        rate += f", {measured.single_stream_rps:.4g}/s with one in flight"
    if measured.capacity_rps is not None:
        rate += f", {measured.capacity_rps:.4g}/s certified"
    return rate


class PhaseCallback(Callback):
    """Carries the phases that a Tune trial reports to the display."""

    def __init__(self, display: SearchDisplay) -> None:
        self._display = display

    def __getstate__(self) -> dict[str, Any]:
        """Without the display: Tune pickles its set-up, and a terminal cannot be."""
        return {"_display": SilentDisplay()}

    def on_trial_result(
        self,
        iteration: int,  # noqa: ARG002 - Tune's signature
        trials: list[Any],  # noqa: ARG002
        trial: Any,  # noqa: ANN401, ARG002
        result: dict[str, Any],
        **info: Any,  # noqa: ANN401, ARG002
    ) -> None:
        """Show the phase, if the result is one."""
        if phase := result.get(PHASE_KEY):
            self._display.phase(phase)
