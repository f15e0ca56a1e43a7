"""Fitted constants of one predictor on one device, with what the fit does not know of them.

They are numbers with a covariance and a source. The module does not know what a term means;
the predictor that fitted them does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from falcon_ray.errors import InputError
from falcon_ray.space.configuration import FloatArray

ANY_DEVICE = "*"
"""Stands for a device that nobody measured."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Constants:
    """One row of a profile's table of constants.

    Attributes:
        predictor: Which predictor they belong to.
        device: A device's name, or `ANY_DEVICE`.
        dtype: Of the arithmetic.
        mode: eager, graph, compiled, or a serving engine.
        threads: Of a CPU; 0 on a GPU.
        share: Of a GPU's compute units; 1 on a CPU.
        terms: Name of each of the k constants.
        values: Shape (k,); multiples of ideal time, or seconds, as the predictor says.
        covariance: Of the values, shape (k, k).
        residual_sd: Of the natural log of measured over predicted, out of sample.
        n: Measurements behind the fit.
        source: Key of the manifest's sources.

    Raises:
        InputError: The shapes disagree, or a number is not finite.
    """

    predictor: str
    device: str
    dtype: str
    mode: str
    terms: tuple[str, ...]
    values: FloatArray
    covariance: FloatArray
    residual_sd: float
    n: int
    source: str
    threads: int = 0
    share: float = 1.0

    def __post_init__(self) -> None:
        k = len(self.terms)
        if self.values.shape != (k,) or self.covariance.shape != (k, k):
            raise InputError(
                f"constants of {self.predictor} on {self.device} have {k} terms, but "
                f"{self.values.shape} values with a covariance of {self.covariance.shape}; fit "
                "them again by scripts/fit_profile"
            )
        if not (
            np.isfinite(self.values).all()
            and np.isfinite(self.covariance).all()
            and self.residual_sd >= 0
        ):
            raise InputError(
                f"constants of {self.predictor} on {self.device} are not all finite; fit them "
                "again by scripts/fit_profile"
            )

    def value(self, term: str) -> float | None:
        """One constant by name, or None where it was not fitted."""
        return float(self.values[self.terms.index(term)]) if term in self.terms else None

    def to_row(self) -> dict[str, Any]:
        """The constants as a row of `schemas.CONSTANTS`."""
        return {
            "predictor": self.predictor,
            "device": self.device,
            "dtype": self.dtype,
            "mode": self.mode,
            "threads": self.threads,
            "share": self.share,
            "terms": list(self.terms),
            "values": self.values.tolist(),
            "covariance": self.covariance.ravel().tolist(),
            "residual_sd": self.residual_sd,
            "n": self.n,
            "source": self.source,
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Constants":
        """Read what `to_row` wrote.

        Raises:
            InputError: The row's lists disagree.
        """
        terms = tuple(row["terms"])
        covariance = np.array(row["covariance"], dtype=np.float64)
        if covariance.size == len(terms) ** 2:  # otherwise the shape is refused with a message
            covariance = covariance.reshape(len(terms), len(terms))
        return cls(
            predictor=row["predictor"],
            device=row["device"],
            dtype=row["dtype"],
            mode=row["mode"],
            terms=terms,
            values=np.array(row["values"], dtype=np.float64),
            covariance=covariance,
            residual_sd=row["residual_sd"],
            n=row["n"],
            source=row["source"],
            threads=row["threads"],
            share=row["share"],
        )
