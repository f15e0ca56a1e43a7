"""How what stems from emulated accelerators says so, and how that is recognised.

It knows words. It does not know what was emulated.
"""

from falcon_ray.space.observation import Measurement

ACCELERATOR_KEY = "accelerator"
"""In the environment of a measurement."""
EMULATED = "emulated"


def emulated_environment(gpu_type: str, dtype: str) -> dict[str, str]:
    """What a replica says it runs on."""
    return {ACCELERATOR_KEY: f"{EMULATED} {gpu_type}", "dtype": dtype}


def emulated_enforcement() -> dict[str, str]:
    """How a replica says that limits are held: by what is predicted under them."""
    return {"cpu": EMULATED, "compute": EMULATED, "memory": EMULATED}


def is_emulated(measurement: Measurement) -> bool:
    """Whether a measurement stems from an emulated accelerator."""
    return measurement.environment.get(ACCELERATOR_KEY, "").startswith(EMULATED)
