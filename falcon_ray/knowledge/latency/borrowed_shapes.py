"""Latency of operators on a device that nobody measured them on: what others would take there.

Every measured device lends its deviation from ideal times; the facts of this one give the ideal
times. Lenders disagree, and how much they do is the error bar. The module knows no models.
"""

from collections.abc import Sequence

import numpy as np

from falcon_ray.knowledge.latency.nearest_shapes import NearestShapes, OperatorPrediction
from falcon_ray.knowledge.operators.operator import Family
from falcon_ray.space.configuration import FloatArray

_DEVICE_SD = 0.25
"""Between devices, before any two are compared; it weighs as much as two of them."""
_PRIOR_DEVICES = 2.0


class BorrowedShapes:
    """Predicts operators as the mean, in log space, of what several lenders say.

    Args:
        lenders: Moved to the device that is predicted by `NearestShapes.moved_to`.
    """

    def __init__(self, lenders: Sequence[NearestShapes]) -> None:
        self._lenders = tuple(lenders)

    def predict(
        self,
        family: Family,
        names: Sequence[str] | str,
        dims: FloatArray,
        flops: FloatArray,
        bytes_moved: FloatArray,
    ) -> OperatorPrediction:
        """Latency of n operators of one family; arguments as of `NearestShapes.predict`.

        It is covered where at least one lender measured the family.
        """
        all_lenders = [
            each.predict(family, names, dims, flops, bytes_moved) for each in self._lenders
        ]
        found = [each for each in all_lenders if each.covered.all()]
        if not found:
            return all_lenders[0]
        logs = np.stack([each.log_seconds for each in found])
        mean = logs.mean(axis=0)
        within = np.mean([each.sd**2 for each in found], axis=0)
        squares = ((logs - mean) ** 2).sum(axis=0) + _PRIOR_DEVICES * _DEVICE_SD**2
        between = squares / (len(found) - 1 + _PRIOR_DEVICES)
        sd = np.sqrt(between * (1 + 1 / len(found)) + within)
        return OperatorPrediction(mean, sd, found[0].covered)
