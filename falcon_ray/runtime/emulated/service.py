"""One emulated deployment: how long each of its batches takes, and whether it fits its memory.

Plain numbers that a replica is given, and chance. It does not know how the numbers came about,
how the time is spent, or what a request is.
"""

import asyncio
import hashlib
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np

from falcon_ray.errors import InputError
from falcon_ray.space.configuration import Configuration

BATCH_NOISE_SD = 0.03
"""Of the log of a batch's time."""
DEPLOYMENT_NOISE_SD = 0.02
"""Of the log of the factor that all batches of one deployment share."""
AT_ONCE_S = 1e-3
"""A batch that begins so soon after the last one ended was waiting for it."""
LONGEST_LATENESS_S = 0.05
"""That a busy machine adds to a timer, and that the next batch makes up for. What is longer is a
stall, which nothing makes up for."""
_DRAWN_AT_ONCE = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedService:
    """What one replica of a deployment is told.

    Attributes:
        gpu_type: What it stands for.
        dtype: What it would compute in.
        seconds: Of a batch of 1, 2, ... up to the largest number of requests.
        needed_gib: Memory at the largest batch; None where nobody knows.
        allowed_gib: Memory that it may use.
        batch_noise_sd: Of the log of a batch's time, from batch to batch.
        deployment_noise_sd: Of the log of its mean, from deployment to deployment.

    Raises:
        InputError: There is no time, or a spread is negative.
    """

    gpu_type: str
    dtype: str
    seconds: tuple[float, ...]
    needed_gib: float | None
    allowed_gib: float
    batch_noise_sd: float = BATCH_NOISE_SD
    deployment_noise_sd: float = DEPLOYMENT_NOISE_SD

    def __post_init__(self) -> None:
        if not self.seconds:
            raise InputError("an emulated service needs the time of a batch of one at least")
        for name in ("batch_noise_sd", "deployment_noise_sd"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise InputError(f"{name} must be finite and not negative, got {value!r}")

    @property
    def batch_size(self) -> int:
        """The largest batch."""
        return len(self.seconds)

    def check_memory(self) -> None:
        """Do what a GPU does that is too small.

        Raises:
            MemoryError: The largest batch needs more than is allowed.
        """
        if self.needed_gib is not None and self.needed_gib > self.allowed_gib:
            raise MemoryError(
                f"emulated {self.gpu_type} out of memory: batches of {self.batch_size} in "
                f"{self.dtype} are predicted to need {self.needed_gib:.3g} GiB, and "
                f"{self.allowed_gib:.3g} GiB are allowed"
            )


class NoisyTimes:
    """How long the batches of one replica take, first to last.

    Both kinds of noise are lognormal with mean 1. The factor of the deployment is drawn from the
    seed, the configuration and the deployment's name, so that its replicas share it; the batches'
    noise from these and the replica's rank.

    Args:
        service: The times without noise.
        seed: Of the search.
        configuration: Which it is.
        deployment: Tells deployments of one configuration apart.
        rank: Of the replica among those of its deployment.
    """

    def __init__(
        self,
        service: EmulatedService,
        *,
        seed: int,
        configuration: Configuration,
        deployment: str,
        rank: int = 0,
    ) -> None:
        digest = hashlib.sha256(f"{configuration}\n{deployment}".encode()).digest()
        entropy = [seed, int.from_bytes(digest)]
        shared = np.random.default_rng(entropy)
        sd = service.deployment_noise_sd
        factor = math.exp(sd * float(shared.standard_normal()) - sd**2 / 2)
        self._seconds = [factor * each for each in service.seconds]
        self._sd = service.batch_noise_sd
        self._rng = np.random.default_rng([*entropy, rank + 1])
        self._drawn: list[float] = []

    def take(self, n_requests: int) -> float:
        """Seconds of the next batch."""
        if not self._drawn:
            steps = self._rng.standard_normal(_DRAWN_AT_ONCE)
            self._drawn = np.exp(self._sd * steps - self._sd**2 / 2).tolist()
        return self._seconds[n_requests - 1] * self._drawn.pop()


class PacedSleep:
    """Spends the time of batches asleep, so that other processes of the machine have its CPU.

    Timers count in milliseconds, and ring a little late. What one batch took too long or too short
    is made up for by the next one where that waited already, so that the rate of a busy replica is
    right; one batch alone is off by that much.

    Args:
        clock: Monotonic seconds.
        sleep: Waits about so many of them.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._ended_s = -math.inf
        self._late_s = 0.0

    async def spend(self, seconds: float) -> float:
        """Let a batch's time pass; what it took."""
        began_s = start_s = self._clock()
        if start_s - self._ended_s <= AT_ONCE_S:
            start_s -= self._late_s
        await self._sleep(max(0.0, start_s + seconds - self._clock()))
        self._ended_s = self._clock()
        self._late_s = min(self._ended_s - start_s - seconds, LONGEST_LATENESS_S)
        return self._ended_s - began_s
