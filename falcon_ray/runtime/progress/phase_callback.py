"""The way of a phase from a trial's process to the display: Tune reports it as a result.

It does not know what phases there are.
"""

from collections.abc import Callable
from typing import Any

from ray.tune import Callback

from falcon_ray.runtime.progress.display import SearchDisplay, SilentDisplay

PHASE_KEY = "phase"


class PhaseCallback(Callback):
    """Carries the phases that Tune trials report to the display.

    Args:
        display: Told about phases.
        label_of: The trial's label by its Tune id; None where the trial has ended.
    """

    def __init__(self, display: SearchDisplay, label_of: Callable[[str], str | None]) -> None:
        self._display = display
        self._label_of = label_of

    def __getstate__(self) -> dict[str, Any]:
        """Without the display: Tune pickles its set-up, and a terminal cannot be."""
        return {"_display": SilentDisplay(), "_label_of": _nobody}

    def on_trial_result(
        self,
        iteration: int,  # noqa: ARG002 - Tune's signature
        trials: list[Any],  # noqa: ARG002
        trial: Any,  # noqa: ANN401
        result: dict[str, Any],
        **info: Any,  # noqa: ANN401, ARG002
    ) -> None:
        """Show the phase, if the result is one."""
        phase = result.get(PHASE_KEY)
        if phase and (label := self._label_of(trial.trial_id)) is not None:
            self._display.phase(label, phase)


def _nobody(_: str) -> None:
    """Who has no display needs no label."""
