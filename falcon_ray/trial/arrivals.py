"""When requests arrive in open loop: on a schedule drawn beforehand, whatever the server does.

An arrival process knows a rate and a duration. It does not know when they start or who sends.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from falcon_ray.errors import InputError
from falcon_ray.space.configuration import FloatArray
from falcon_ray.space.workload import MAX_RATE_RPS

HEADER = "arrival_s"


class ArrivalProcess(Protocol):
    """How arrivals are spread over time."""

    @property
    def steady(self) -> bool:
        """Whether any stretch of a schedule is like any other, so that a part can be judged."""
        ...

    def draw(self, rate_rps: float, duration_s: float, rng: np.random.Generator) -> FloatArray:
        """Draw one schedule.

        Args:
            rate_rps: Mean arrivals per second, positive.
            duration_s: Length of the schedule, positive.
            rng: Source of chance.

        Returns:
            Intended send times in [0, duration_s), ascending, relative to the start of the
            load; shape (n,).

        Raises:
            ValueError: The rate or the duration is not positive and finite.
        """
        ...


@dataclass(frozen=True, slots=True)
class Poisson:
    """Independent users, none waiting for another.

    Given how many arrive, their times are independent and uniform (Ross, Stochastic
    Processes, 1996, theorem 2.3.1).
    """

    @property
    def steady(self) -> bool:
        """See `ArrivalProcess.steady`."""
        return True

    def draw(self, rate_rps: float, duration_s: float, rng: np.random.Generator) -> FloatArray:
        """See `ArrivalProcess.draw`; how many arrive is random, its mean is rate times length."""
        _check(rate_rps, duration_s)
        n = rng.poisson(rate_rps * duration_s)
        return np.sort(rng.random(n)) * duration_s


@dataclass(frozen=True, slots=True)
class ArrivalTrace:
    """The pattern of recorded arrivals, at any rate.

    Time is scaled so that the whole trace has the mean rate that is asked for. Where it is then
    longer than the duration, its busiest stretch of that length is used, so that one sizes for
    the peak; where it is shorter, it is repeated.

    Attributes:
        times_s: At least two arrivals, ascending, not all at once.

    Raises:
        InputError: The times are not such.
    """

    times_s: tuple[float, ...]

    def __post_init__(self) -> None:
        times_s = np.asarray(self.times_s, dtype=np.float64)
        if times_s.size < 2:
            raise InputError(
                f"an arrival trace needs at least 2 arrivals, got {times_s.size}; record for longer"
            )
        if not np.all(np.isfinite(times_s)) or np.any(np.diff(times_s) < 0):
            raise InputError(
                "the times of an arrival trace must be finite and ascending; sort them"
            )
        if times_s[-1] == times_s[0]:
            raise InputError(
                f"all {times_s.size} arrivals of the trace are at {times_s[0]:g} s, so they have "
                "no rate; record the times with their fractions of a second"
            )
        if self.rate_rps > MAX_RATE_RPS:
            raise InputError(
                f"the trace has {self.rate_rps:g} arrivals per second, more than "
                f"{MAX_RATE_RPS:g}; give the times in seconds"
            )

    @property
    def steady(self) -> bool:
        """See `ArrivalProcess.steady`."""
        return False

    @property
    def rate_rps(self) -> float:
        """Mean rate as recorded: gaps over the time from the first arrival to the last."""
        return (len(self.times_s) - 1) / (self.times_s[-1] - self.times_s[0])

    def draw(self, rate_rps: float, duration_s: float, rng: np.random.Generator) -> FloatArray:
        """See `ArrivalProcess.draw`; nothing is left to chance."""
        _check(rate_rps, duration_s)
        del rng
        times_s = (np.asarray(self.times_s) - self.times_s[0]) * (self.rate_rps / rate_rps)
        # One mean gap follows the last arrival, so that repeating keeps the rate.
        length_s = times_s.size / rate_rps
        if length_s > duration_s:
            ends = np.searchsorted(times_s, times_s + duration_s)
            first = int(np.argmax(ends - np.arange(times_s.size)))
            return times_s[first : ends[first]] - times_s[first]
        starts_s = length_s * np.arange(math.ceil(duration_s / length_s))
        repeated_s = (starts_s[:, np.newaxis] + times_s).ravel()
        return repeated_s[repeated_s < duration_s]


def read_trace(path: Path) -> ArrivalTrace:
    """Read arrivals from a file with one time in seconds per line.

    The first line may be the header `arrival_s`; empty lines are passed over.

    Raises:
        InputError: The file cannot be read, or a line is not such a time; says which.
    """
    try:
        with path.open(encoding="utf-8-sig") as lines:
            times_s = _times_s(path, lines)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"arrival trace {path} cannot be read ({error}); give a text file with one time in "
            "seconds per line"
        ) from error
    try:
        return ArrivalTrace(times_s)
    except InputError as error:
        raise InputError(f"arrival trace {path}: {error}") from error


def _times_s(path: Path, lines: Iterable[str]) -> tuple[float, ...]:
    times_s = list[float]()
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or (number == 1 and text == HEADER):
            continue
        where = f"arrival trace {path}, line {number}"
        try:
            time_s = float(text)
        except ValueError:
            raise InputError(
                f"{where}: {text[:40]!r} is not a number; give one time in seconds per line"
            ) from None
        if not math.isfinite(time_s):
            raise InputError(f"{where}: {text!r} is not finite; leave the line out")
        if time_s < 0:
            raise InputError(
                f"{where}: {text} s is negative; count the seconds from the start of the recording"
            )
        if times_s and time_s < times_s[-1]:
            raise InputError(
                f"{where}: {text} s is earlier than the {times_s[-1]:g} s before it; sort the times"
            )
        times_s.append(time_s)
    return tuple(times_s)


def _check(rate_rps: float, duration_s: float) -> None:
    for name, value in (("rate_rps", rate_rps), ("duration_s", duration_s)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be positive and finite, got {value!r}")
