"""How long trials have held their resources, as the driver hears of it.

For trials whose process dies before it can say so itself. The module knows which phase needs
resources. It does not know what these cost, nor why a trial ended.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from falcon_ray.runtime.progress import SilentDisplay
from falcon_ray.runtime.progress.state import Stage, stage_of
from falcon_ray.space.observation import Observation

FIRST_PHASE = "deploying"
"""With which every attempt begins once it has its resources."""


@dataclass(slots=True)
class _Held:
    """Seconds of the attempts that ended, and when the one began that holds resources now."""

    before_s: float = 0.0
    since_s: float | None = None


class HeldTimes(SilentDisplay):
    """Listens to the phases of trials beside a display.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._held: dict[str, _Held] = {}

    def held_s(self, label: str) -> float:
        """Seconds for which a trial that has not ended held its resources; 0 without any."""
        held = self._held.get(label, _Held())
        return held.before_s + (0.0 if held.since_s is None else self._clock() - held.since_s)

    def phase(self, label: str, text: str) -> None:
        """See `SearchDisplay.phase`; another attempt waits for its resources anew."""
        if text == FIRST_PHASE:
            self._held.setdefault(label, _Held())
            if self._held[label].since_s is None:
                self._held[label].since_s = self._clock()
        elif label in self._held and stage_of(text) is not Stage.RUNNING:
            self._held[label] = _Held(before_s=self.held_s(label))

    def trial_ended(
        self,
        label: str,
        observation: Observation,  # noqa: ARG002 - what a listener is told
        *,
        wall_s: float,  # noqa: ARG002
        usd: float | None = None,  # noqa: ARG002
        is_fresh: bool = False,  # noqa: ARG002
    ) -> None:
        """See `SearchDisplay.trial_ended`; what it held is forgotten."""
        self._held.pop(label, None)
