"""What a replica needs of memory, and how likely it gets it.

Weights and activations follow from the decomposition; what the runtime itself takes is a fact of
the kind of device. The module knows no latency.
"""

import numpy as np
from scipy import special

from falcon_ray.knowledge.device import DeviceKind
from falcon_ray.knowledge.operators.operator import DTYPE_BYTES, Decomposition
from falcon_ray.space.configuration import FloatArray

RUNTIME_BYTES = {DeviceKind.CPU: 0.35 * 2**30, DeviceKind.GPU: 0.55 * 2**30}
"""Assumed of a process with torch (CPU: interpreter and libraries; GPU: context and kernels)."""
MEMORY_SD = 0.12
"""Assumed of the log of a need: allocators round up and fragment."""


def replica_bytes(
    decomposition: Decomposition, batch_sizes: FloatArray, *, dtype: str, kind: DeviceKind
) -> FloatArray:
    """Peak memory of one replica, shape of `batch_sizes`."""
    width = DTYPE_BYTES[dtype] / DTYPE_BYTES["float32"]
    activations = decomposition.activation_bytes_at(batch_sizes, dtype=dtype)
    return RUNTIME_BYTES[kind] + width * decomposition.parameter_bytes + activations


def probability_of_fitting(needed_bytes: FloatArray, limit_bytes: FloatArray) -> FloatArray:
    """Probability that a need, known up to `MEMORY_SD`, stays within a limit, shape (n,)."""
    margin = np.log(limit_bytes / needed_bytes) / MEMORY_SD
    return np.asarray(special.ndtr(np.clip(margin, -30, 30)), dtype=np.float64)
