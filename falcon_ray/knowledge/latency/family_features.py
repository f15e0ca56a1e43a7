"""What the family model's constants multiply: ideal seconds of arithmetic and of traffic.

A run is a forward pass at one batch size. Its terms are the FLOPs of each family over the device's
peak, the bytes of each family over its bandwidth, and the number of calls. The module knows no
measured time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from falcon_ray.knowledge.device import Device
from falcon_ray.knowledge.operators.operator import Family, FamilyCalls
from falcon_ray.space.configuration import FloatArray

LAUNCH_TERM = "launch_s"
"""Seconds of one call that neither arithmetic nor traffic explains."""

BOUND_BY_ARITHMETIC = (
    Family.CONV_1X1,
    Family.CONV_3X3,
    Family.CONV_LARGE,
    Family.CONV_DEPTHWISE,
    Family.CONV_GROUPED,
    Family.LINEAR,
    Family.BMM,
    Family.ATTENTION,
    Family.RECURRENT,
)
"""Families whose FLOPs count; the others only move bytes."""


def flops_term(family: Family) -> str:
    """Name of the multiple of a family's ideal seconds of arithmetic."""
    return f"{family.value}.flops"


def bytes_term(family: Family) -> str:
    """Name of the multiple of a family's ideal seconds of traffic."""
    return f"{family.value}.bytes"


TERMS: tuple[str, ...] = (
    *(flops_term(family) for family in BOUND_BY_ARITHMETIC),
    *(bytes_term(family) for family in Family),
    LAUNCH_TERM,
)
"""All terms of the model, in the order of the columns of `ideal_seconds`."""

FAMILY_OF_TERM: Mapping[str, Family] = MappingProxyType(
    {
        **{flops_term(family): family for family in BOUND_BY_ARITHMETIC},
        **{bytes_term(family): family for family in Family},
    }
)
"""The family that a term belongs to; the launch term belongs to none."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FamilyTotals:
    """Sums over all operators of each family, of n runs.

    Attributes:
        flops: Shape (n,) each; families that are absent do nothing.
        bytes_moved: Shape (n,) each, in the dtype that the run is computed in.
        launches: Calls that do something, shape (n,).
    """

    flops: Mapping[Family, FloatArray]
    bytes_moved: Mapping[Family, FloatArray]
    launches: FloatArray

    @classmethod
    def of_calls(cls, calls: Sequence[FamilyCalls]) -> "FamilyTotals":
        """The totals of one model at the b batch sizes of its calls."""
        n = len(calls[0].flops) if calls else 0
        launches = sum(each.counts.sum() for each in calls if each.family is not Family.VIEW)
        return cls(
            flops={each.family: each.flops @ each.counts for each in calls},
            bytes_moved={each.family: each.bytes_moved @ each.counts for each in calls},
            launches=np.full(n, float(launches)),
        )

    @classmethod
    def concatenated(cls, totals: Sequence["FamilyTotals"]) -> "FamilyTotals":
        """The runs of all, one behind the other; families that some lack do nothing there."""

        def joined(columns: Sequence[Mapping[Family, FloatArray]]) -> dict[Family, FloatArray]:
            families = [family for family in Family if any(family in each for each in columns)]
            return {
                family: np.concatenate(
                    [
                        each.get(family, np.zeros(len(one.launches)))
                        for each, one in zip(columns, totals, strict=True)
                    ]
                )
                for family in families
            }

        return cls(
            flops=joined([each.flops for each in totals]),
            bytes_moved=joined([each.bytes_moved for each in totals]),
            launches=np.concatenate([each.launches for each in totals]),
        )

    def of(self, chosen: NDArray[np.bool_]) -> "FamilyTotals":
        """The totals of some of the runs; `chosen` has shape (n,)."""
        return FamilyTotals(
            flops={family: each[chosen] for family, each in self.flops.items()},
            bytes_moved={family: each[chosen] for family, each in self.bytes_moved.items()},
            launches=self.launches[chosen],
        )

    def ideal_seconds(self, device: Device, dtype: str) -> FloatArray:
        """Ideal seconds of every term and the number of calls, shape (n, `len(TERMS)`)."""
        peak, bandwidth = device.peak(dtype), device.bandwidth_bytes_per_s
        columns = np.zeros((len(self.launches), len(TERMS)))
        for family, flops in self.flops.items():
            if family in BOUND_BY_ARITHMETIC:
                columns[:, TERMS.index(flops_term(family))] = flops / peak
        for family, moved in self.bytes_moved.items():
            columns[:, TERMS.index(bytes_term(family))] = moved / bandwidth
        columns[:, -1] = self.launches
        return columns
