"""A service whose answer is known: how long each of its batches takes, by one law.

The law knows the number of a batch and chance. It does not know whether its times are slept by a
replica or only added up, how requests reach it, or who measures it.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter

from falcon_ray.errors import InputError
from falcon_ray.space.configuration import FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownService:
    """One replica with a queue that serves up to `batch_size` requests at a time.

    Batch k takes service_s * noise_k / (1 - warm_up_depth * exp(-k / warm_up_batches)), however
    full it is. The noise is lognormal with mean 1; its logarithm is autoregressive of order 1.

    Attributes:
        batch_size: Requests that one batch holds at most.
        service_s: Mean seconds of a batch once the service is warm.
        noise_cv: Standard deviation of a batch's time over its mean.
        noise_correlation: Of the noise of consecutive batches, in [0, 1).
        warm_up_depth: Share of throughput that is missing at first, in [0, 1).
        warm_up_batches: Batches after which the missing share has fallen to 1 / e.

    Raises:
        InputError: A value is out of range.
    """

    batch_size: int
    service_s: float
    noise_cv: float = 0.0
    noise_correlation: float = 0.0
    warm_up_depth: float = 0.0
    warm_up_batches: float = 1.0

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {self.batch_size!r}")
        for name in ("service_s", "noise_cv"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise InputError(f"{name} must be finite and not negative, got {value!r}")
        for name in ("noise_correlation", "warm_up_depth"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise InputError(f"{name} must lie in [0, 1), got {value!r}")
        if not self.warm_up_batches > 0:
            raise InputError(f"warm_up_batches must be positive, got {self.warm_up_batches!r}")

    @property
    def saturation_rps(self) -> float:
        """Requests per second of the warm service, every batch full."""
        return self.batch_size / self.service_s


class BatchTimes:
    """How long the batches of one deployment take, first to last.

    Args:
        service: The law.
        rng: Source of the noise.
    """

    def __init__(self, service: KnownService, rng: np.random.Generator) -> None:
        self._service = service
        self._rng = rng
        self._n_done = 0
        self._level = float(rng.standard_normal())

    def take(self, n: int) -> FloatArray:
        """Seconds of the next `n` batches, shape (n,)."""
        service = self._service
        rho = service.noise_correlation
        steps = self._rng.standard_normal(n) * math.sqrt(1 - rho**2)
        if rho > 0 and n > 0:
            steps, _ = lfilter([1.0], [1.0, -rho], steps, zi=[rho * self._level])
            self._level = float(steps[-1])
        # Of a lognormal variable with mean 1: sigma**2 = log(1 + cv**2), mu = -sigma**2 / 2.
        variance = math.log1p(service.noise_cv**2)
        noise = np.exp(math.sqrt(variance) * steps - variance / 2)
        batch = self._n_done + np.arange(n)
        self._n_done += n
        missing = service.warm_up_depth * np.exp(-batch / service.warm_up_batches)
        return service.service_s * noise / (1 - missing)
