"""What trials taught about predictions: how served batches deviate from them.

One deviation is shared by all models on a device (what serving adds), one belongs to each model
there. Their posterior is that of a Gaussian model with known variances (Rasmussen and Williams,
2006, eq. 2.25 and 2.26). The module knows log residuals; it does not know how they came about.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_DEVICE_SD = 0.3
_MODEL_SD = 0.2
_NOISE_SD = 0.1
_LARGEST = 0.8
"""Prior sds of the log deviations, the size of log errors of unseen models and devices; and the
largest deviation that is believed, about two of them together."""


@dataclass(frozen=True, slots=True)
class ServedOffset:
    """What to add to the log of a prediction, and the part of its variance that is left."""

    log_factor: float
    variance_left: float


class ServedOffsets:
    """The deviations on one device.

    Args:
        residuals: Model and log of measured over predicted, of every batch that was measured.
    """

    def __init__(self, residuals: Sequence[tuple[str, float]]) -> None:
        self._models = [model for model, _ in residuals]
        # A trial that went wrong must not teach more than a prior can have been wrong by.
        self._residuals = np.clip([residual for _, residual in residuals], -_LARGEST, _LARGEST)
        same = np.array([[a == b for b in self._models] for a in self._models], dtype=np.float64)
        self._covariance = (
            _DEVICE_SD**2
            + _MODEL_SD**2 * same.reshape(len(residuals), len(residuals))
            + _NOISE_SD**2 * np.eye(len(residuals))
        )

    def of(self, model: str) -> ServedOffset:
        """The expected deviation of a model, also of one that was never served."""
        if not self._models:
            return ServedOffset(0.0, 1.0)
        same = np.array([float(each == model) for each in self._models])
        towards = _DEVICE_SD**2 + _MODEL_SD**2 * same
        weights = np.linalg.solve(self._covariance, towards)
        prior = _DEVICE_SD**2 + _MODEL_SD**2
        return ServedOffset(
            float(weights @ self._residuals), 1.0 - float(weights @ towards) / prior
        )
