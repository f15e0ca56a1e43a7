"""A small profile with known constants, and a model whose time follows from them by hand."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from falcon_ray.knowledge.constants import Constants
from falcon_ray.knowledge.device import Device, DeviceKind
from falcon_ray.knowledge.latency.family_features import LAUNCH_TERM, bytes_term, flops_term
from falcon_ray.knowledge.latency.family_model import PREDICTOR
from falcon_ray.knowledge.operators.operator import Decomposition, Family, Operator
from falcon_ray.knowledge.profile.manifest import Source
from falcon_ray.knowledge.profile.profile import Profile
from falcon_ray.knowledge.profile.schemas import CONSTANTS, DEVICES
from falcon_ray.knowledge.profile.tables import device_row

CPU = Device(
    name="known cpu",
    kind=DeviceKind.CPU,
    peak_flops_per_s={"float32": 1e11},
    bandwidth_bytes_per_s=1e10,
    memory_bytes=2.0**33,
    units=4,
    source="made up",
)
LAUNCH_S = 1e-4
RESIDUAL_SD = 0.2


def constants(
    device: str = CPU.name, *, threads: int = 1, dtype: str = "float32", factor: float = 1.0
) -> Constants:
    """Of linear layers: twice the ideal time of arithmetic and of traffic, and 0.1 ms a call."""
    return Constants(
        predictor=PREDICTOR,
        device=device,
        dtype=dtype,
        mode="eager",
        terms=(flops_term(Family.LINEAR), bytes_term(Family.LINEAR), LAUNCH_TERM),
        values=factor * np.array([2.0, 2.0, LAUNCH_S]),
        covariance=np.zeros((3, 3)),
        residual_sd=RESIDUAL_SD,
        n=10,
        source="made up",
        threads=threads,
    )


def profile(*rows: Constants, devices: Sequence[Device] = (CPU,)) -> Profile:
    """A profile of these constants."""
    return Profile.of_tables(
        {
            "constants": pa.Table.from_pylist([each.to_row() for each in rows], CONSTANTS),
            "devices": pa.Table.from_pylist([device_row(each) for each in devices], DEVICES),
        },
        {"made up": Source(licence="none", date="2026-01-01", description="made up")},
    )


def one_layer() -> Decomposition:
    """A linear layer of 1,000 features to 1,000: 2e6 FLOPs a sample, 4 MB of weights."""

    def layer(batch: int) -> Operator:
        return Operator(
            name="linear",
            family=Family.LINEAR,
            dims=(batch, 1000, 1000),
            flops=2e6 * batch,
            bytes_read=4e6 + 4e3 * batch,
            bytes_written=4e3 * batch,
        )

    return Decomposition(
        model="one_layer",
        batch_sizes=(2, 4),
        low=(layer(2),),
        high=(layer(4),),
        parameter_bytes=4e6,
        activation_bytes=(16e3, 32e3),
    )


def one_layer_s(batch: int, *, device: Device = CPU) -> float:
    """Seconds of `one_layer` by `constants`."""
    arithmetic = 2e6 * batch / device.peak("float32")
    traffic = (4e6 + 8e3 * batch) / device.bandwidth_bytes_per_s
    return 2 * arithmetic + 2 * traffic + LAUNCH_S
