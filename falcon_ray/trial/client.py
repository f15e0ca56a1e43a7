"""Whether the load's own processes, and not the service, set what was measured.

The rule knows how late the drivers were and how busy. It does not know who they are or how to
get more of them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from falcon_ray.errors import InputError
from falcon_ray.trial.protocols import LoadHealth


class ClientVerdict(Enum):
    """Whether the drivers kept up."""

    FINE = "fine"
    """What was measured is the service's."""
    SATURATED = "saturated"
    """A driver lags and is busy: more drivers may bring more."""
    STARVED = "starved"
    """A driver lags and yet used little CPU: something kept it from running."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRule:
    """Judges how late the drivers were, in proportion to what they measure.

    A driver that gets a round of answers at once is late with most of them by its own work. Busy
    for a share u of the time, it works through u of each round's period and is late by u / 2 of
    it when it is busy: by u ** 2 / 2 periods on average, where latency with two rounds in flight
    is two periods. So up to u = 0.6 its own work explains a lag of less than a tenth of the
    latency; a larger lag at less than half a core comes from elsewhere.

    Attributes:
        max_lag_share: Of the latency, that the mean lag may be. Rates and latencies are then
            off by no more than this.
        min_lag_ms: A mean lag below it is the scheduling of any busy machine.
        busy_share: Of one core; a driver that lags and used less is starved.
        max_gain: More drivers that bring no more than this share of throughput show that the
            drivers were not the limit.

    Raises:
        InputError: A value is out of range.
    """

    max_lag_share: float = 0.1
    min_lag_ms: float = 1.0
    busy_share: float = 0.5
    max_gain: float = 0.05

    def __post_init__(self) -> None:
        for name in ("max_lag_share", "min_lag_ms", "busy_share", "max_gain"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be positive, got {getattr(self, name)!r}")

    def judge(self, health: LoadHealth, *, latency_ms: float) -> ClientVerdict:
        """Say whether the drivers kept up.

        Args:
            health: Of the whole measurement.
            latency_ms: What the lag has to be small against: the median latency in closed
                loop, the latency limit in open loop.
        """
        if health.lag_ms <= max(self.min_lag_ms, self.max_lag_share * latency_ms):
            return ClientVerdict.FINE
        if health.cpu_share >= self.busy_share:
            return ClientVerdict.SATURATED
        return ClientVerdict.STARVED


def mean_health(parts: Iterable[tuple[float, LoadHealth]]) -> LoadHealth:
    """Health over several stretches: means by their length, and what is in flight at the end.

    Args:
        parts: Seconds of each stretch and its health, in order of time.

    Raises:
        ValueError: There is no part.
    """
    given = tuple(parts)
    if not given:
        raise ValueError("the health of no stretch at all; ask after the load has run")
    total_s = sum(seconds for seconds, _ in given) or 1.0
    last = given[-1][1]
    return LoadHealth(
        n_drivers=last.n_drivers,
        lag_ms=sum(seconds * each.lag_ms for seconds, each in given) / total_s,
        cpu_share=sum(seconds * each.cpu_share for seconds, each in given) / total_s,
        in_flight=last.in_flight,
        oldest_in_flight_s=last.oldest_in_flight_s,
    )
