"""What a configuration takes of a cluster: so many equal replicas, each with cores and GPUs.

It knows configurations. It does not know nodes, nor what anything costs.
"""

import math
from dataclasses import dataclass
from typing import Self

from falcon_ray.errors import InputError
from falcon_ray.space.configuration import Configuration


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What all replicas of a configuration take together, and one of them alone.

    Attributes:
        cpu_cores: Of one replica; not negative.
        n_gpus: Of one replica: a share of one below 1, else a whole number; 0 for none.
        gpu_type: Ray's accelerator type of these GPUs; None where any will do, or none is needed.
        replicas: How many there are; at least 1.

    Raises:
        InputError: An amount is negative, or is a share of several GPUs.
    """

    cpu_cores: float = 1.0
    n_gpus: float = 0.0
    gpu_type: str | None = None
    replicas: int = 1

    def __post_init__(self) -> None:
        if not (math.isfinite(self.cpu_cores) and self.cpu_cores >= 0):
            raise InputError(f"cpu_cores must not be negative, got {self.cpu_cores!r}")
        if not (math.isfinite(self.n_gpus) and self.n_gpus >= 0):
            raise InputError(f"n_gpus must not be negative, got {self.n_gpus!r}")
        if self.replicas < 1:
            raise InputError(f"replicas must be at least 1, got {self.replicas}")
        if self.n_gpus > 1 and self.n_gpus != int(self.n_gpus):
            raise InputError(
                f"a replica takes a share of one GPU or whole ones, got {self.n_gpus:g}; give "
                "gpu_share 1 with several GPUs"
            )

    @classmethod
    def of(cls, configuration: Configuration) -> Self:
        """The demand of a configuration, by its dimensions.

        Without `cpu_cores` a replica takes one core, Ray's default. A `gpu_type` or a
        `gpu_memory_gib` alone asks for one whole GPU.
        """
        return cls(
            cpu_cores=configuration.number("cpu_cores", 1.0),
            n_gpus=_n_gpus(configuration),
            gpu_type=configuration.text("gpu_type", "") or None,
            replicas=configuration.count("replicas", 1),
        )


def _n_gpus(configuration: Configuration) -> float:
    if "n_gpus" in configuration or "gpu_share" in configuration:
        return configuration.count("n_gpus", 1) * configuration.number("gpu_share", 1.0)
    return 1.0 if "gpu_type" in configuration or "gpu_memory_gib" in configuration else 0.0
