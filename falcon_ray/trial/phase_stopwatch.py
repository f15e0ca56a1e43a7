"""Where the seconds of one attempt at a trial went.

The stopwatch knows the order of a trial's phases. It does not know what happens in them.
"""

from collections.abc import Callable

from falcon_ray.space.observation import TrialTimes


class PhaseStopwatch:
    """Stopwatch over the phases of one attempt; phases never reached took no time.

    A phase that an error ended took until then; what comes after it is the removal.

    Args:
        clock: Monotonic seconds; the wait for resources begins now.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._start = clock()
        self._reserved: float | None = None
        self._provision_s = 0.0
        self._deployed: float | None = None
        self._warm: float | None = None
        self._measured: float | None = None

    def reserved(self, *, provision_s: float) -> None:
        """The resources are there, after seconds in which nodes were added: it is deployed."""
        self._reserved = self._clock()
        self._provision_s = provision_s

    @property
    def has_resources(self) -> bool:
        """Whether the attempt got its resources, also where it has given them back."""
        return self._reserved is not None

    def deployed(self) -> None:
        """The deployment serves: warm-up begins."""
        self._deployed = self._clock()

    def warm(self) -> None:
        """A warm-up ended; later ones in the same deployment are part of measuring."""
        if self._warm is None:
            self._warm = self._clock()

    def measured(self) -> None:
        """The measurement ended, in whatever way: removal begins."""
        self._measured = self._clock()

    def times(self) -> TrialTimes:
        """Where the seconds up to now went."""
        end = self._clock()
        reserved = end if self._reserved is None else self._reserved
        deployed = end if self._deployed is None else self._deployed
        measured = deployed if self._measured is None else self._measured
        warm = measured if self._warm is None else self._warm
        return TrialTimes(
            wait_s=reserved - self._start,
            provision_s=self._provision_s,
            deploy_s=deployed - reserved,
            warm_up_s=warm - deployed,
            measure_s=measured - warm,
            teardown_s=end - measured if self._deployed is not None else 0.0,
        )
