"""When requests arrive in open loop: on a schedule drawn beforehand, whatever the server does.

An arrival process knows a rate and a duration. It does not know when they start or who sends.
"""

import math

import numpy as np

from falcon_ray.space.configuration import FloatArray


def poisson(rate_rps: float, duration_s: float, rng: np.random.Generator) -> FloatArray:
    """Draw the arrivals of a Poisson process: independent users, none waiting for another.

    Given how many arrive, their times are independent and uniform (Ross, Stochastic
    Processes, 1996, theorem 2.3.1).

    Args:
        rate_rps: Mean arrivals per second, positive.
        duration_s: Length of the schedule, positive.
        rng: Source of chance.

    Returns:
        Intended send times in [0, duration_s), ascending, relative to the start of the load;
        shape (n,) with n random and its mean rate_rps * duration_s.

    Raises:
        ValueError: The rate or the duration is not positive and finite.
    """
    for name, value in (("rate_rps", rate_rps), ("duration_s", duration_s)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be positive and finite, got {value!r}")
    n = rng.poisson(rate_rps * duration_s)
    return np.sort(rng.random(n)) * duration_s
