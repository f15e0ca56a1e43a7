"""Whether an offered rate is more than a service can take, seen before the load is over.

The rule sees two series of windows. It does not know who sends, or what the rate is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from falcon_ray.errors import InputError
from falcon_ray.trial.statistics import rise_is_significant

MIN_WINDOWS = 6
"""With fewer, no order of the windows would be a significant trend at 1 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OverloadRule:
    """Overloaded is a service whose queue and latency both grow, and are too long already.

    Arrivals at random make queues that come and go, so neither alone is proof: a queue may rise
    by chance while latency is far below the limit, or latency may be over the limit and level.

    Attributes:
        n_windows: How many recent windows the trend tests look at.
        significance: Of either trend test. Small, as the rule is asked again and again.

    Raises:
        InputError: A value is out of range.
    """

    n_windows: int = 8
    significance: float = 0.01

    def __post_init__(self) -> None:
        if self.n_windows < MIN_WINDOWS:
            raise InputError(f"n_windows must be at least {MIN_WINDOWS}, got {self.n_windows!r}")
        if not 0 < self.significance < 1:
            raise InputError(f"significance must lie between 0 and 1, got {self.significance!r}")

    def overloaded(
        self, *, in_flight: Sequence[float], latency_ms: Sequence[float], limit_ms: float
    ) -> bool:
        """Say whether the load exceeds what the service can take.

        Args:
            in_flight: Requests without an answer at the end of each window, oldest first.
            latency_ms: Typical latency of each window, likewise.
            limit_ms: What the latency must not exceed.

        Raises:
            ValueError: The series differ in length.
        """
        if len(in_flight) != len(latency_ms):
            raise ValueError(
                f"in_flight has {len(in_flight)} windows and latency_ms {len(latency_ms)}; give "
                "one value of each per window"
            )
        if len(in_flight) < self.n_windows or not latency_ms[-1] > limit_ms:
            return False
        return all(
            rise_is_significant(np.asarray(series[-self.n_windows :]), self.significance)
            for series in (in_flight, latency_ms)
        )
