"""What the data sheet of a device says about the time of a model: a roofline, operator by operator.

No measurement of operators or models enters, so it is right about what scales with what, and wrong
by a factor that no data sheet tells: how much of the peaks kernels reach. The module knows devices
and operators. It does not know candidates.
"""

from collections.abc import Sequence

import numpy as np

from falcon_ray.knowledge.device import Device, DeviceKind
from falcon_ray.knowledge.operators.operator import Family, FamilyCalls
from falcon_ray.space.configuration import FloatArray

LAUNCH_S = {DeviceKind.CPU: 3e-6, DeviceKind.GPU: 8e-6}
"""Assumed of one call from Python, whatever it does."""
EFFICIENCY = 0.5
"""Assumed share of the peaks of arithmetic and of traffic that kernels reach."""
_SHORTEST_S = 1e-9


def log_roofline_s(
    calls: Sequence[FamilyCalls], device: Device, *, dtype: str, part: float
) -> FloatArray:
    """Log seconds of one forward pass if every operator ran at half of the device's peaks.

    Of each operator the longer of computing and moving counts (Williams et al., 2009), after its
    launch; they run one after the other.

    Args:
        calls: `Decomposition.calls` in the dtype, at b batch sizes.
        device: Its facts.
        dtype: What is computed in.
        part: Of the compute units; a part of them has the whole bandwidth.

    Returns:
        Shape (b,).
    """
    peak = EFFICIENCY * part * device.peak(dtype)
    bandwidth = EFFICIENCY * device.bandwidth_bytes_per_s
    launch_s = LAUNCH_S[device.kind]
    seconds = np.sum(
        [
            (launch_s + np.maximum(each.flops / peak, each.bytes_moved / bandwidth)) @ each.counts
            for each in calls
            if each.family is not Family.VIEW
        ],
        axis=0,
    )
    return np.log(np.maximum(seconds, _SHORTEST_S))
