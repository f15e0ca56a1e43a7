"""From a configuration to what the replicas of its emulated deployment are told.

It brings times and configurations together. It knows no replicas, which need neither.
"""

import math

from falcon_ray.runtime.emulated.service import (
    BATCH_NOISE_SD,
    DEPLOYMENT_NOISE_SD,
    EmulatedService,
)
from falcon_ray.runtime.emulated.times import EmulatedTimes
from falcon_ray.space.configuration import Configuration


def emulated_service(
    times: EmulatedTimes,
    configuration: Configuration,
    *,
    batch_noise_sd: float = BATCH_NOISE_SD,
    deployment_noise_sd: float = DEPLOYMENT_NOISE_SD,
) -> EmulatedService:
    """What a replica in this configuration takes.

    Raises:
        InputError: See `EmulatedTimes.of`.
    """
    costs = times.of(configuration)
    share = configuration.number("gpu_share", 1.0)
    largest = configuration.count("batch_size", 1)
    return EmulatedService(
        gpu_type=costs.gpu_type,
        dtype=costs.dtype,
        seconds=tuple(costs.seconds_at(n, share=share) for n in range(1, largest + 1)),
        needed_gib=costs.memory_gib_at(largest),
        allowed_gib=min(
            share * costs.gpu_memory_gib, configuration.number("gpu_memory_gib", math.inf)
        ),
        batch_noise_sd=batch_noise_sd,
        deployment_noise_sd=deployment_noise_sd,
    )
