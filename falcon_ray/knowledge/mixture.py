"""What several experts expect of every candidate of a space, before the first trial.

Knowledge comes in degrees: a roofline from datasheets, the same with corrections learned from
other models, a composition of measured operators, or nothing but a constant. Which of them is
right about a new model only its trials can tell, so all of them are kept, with weights and with
the error that each of them makes. The module holds expectations. It knows neither where they come
from nor how they are searched.

Notation: n candidates; every array is over all of them; logarithms are natural.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from falcon_ray.errors import InputError
from falcon_ray.space.configuration import FloatArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpectedMetric:
    """What one expert expects of the log of one positive metric.

    Attributes:
        mean: Expected log, shape (n,).
        offset_sd: Sd of the error that all candidates share: how far the expert is off for this
            model as a whole. One measurement removes it.
        residual_sd: Sd of the rest, which only near candidates share, a number or of shape (n,).

    Raises:
        InputError: A number is not finite, or an sd is negative.
    """

    mean: FloatArray
    offset_sd: float
    residual_sd: float | FloatArray

    def __post_init__(self) -> None:
        residual = np.asarray(self.residual_sd, dtype=np.float64)
        if self.mean.ndim != 1 or residual.shape not in ((), self.mean.shape):
            raise InputError(
                "an expert needs one mean, and one sd or one in all, for each candidate; got the "
                f"shapes {self.mean.shape} and {residual.shape}"
            )
        n_bad = int(np.count_nonzero(~np.isfinite(self.mean)))
        if n_bad:
            raise InputError(
                f"an expert's means must be finite logarithms; {n_bad} of {self.mean.size} are not"
            )
        sds = np.append(residual, self.offset_sd)
        if not (np.isfinite(sds).all() and (sds >= 0).all()):
            raise InputError("an expert's errors must be finite and not negative")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Expert:
    """One way to predict, and how much it is believed before the first trial.

    Attributes:
        name: For people, e.g. "roofline".
        weight: Positive; only ratios between experts count.
        metrics: By the names that `Measurement` gives them.
    """

    name: str
    weight: float
    metrics: Mapping[str, ExpectedMetric]

    def __post_init__(self) -> None:
        if not self.metrics:
            raise InputError(f"the expert {self.name!r} predicts no metric; leave it out")
        if not (np.isfinite(self.weight) and self.weight > 0):
            raise InputError(f"the weight of {self.name} must be positive, got {self.weight!r}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpertMixture:
    """All that is expected of n candidates of one model.

    Attributes:
        experts: At least one.
        log_memory_share: Log of the memory a candidate needs over what it may use, shape (n,);
            None where nothing is known about memory.
        operator_seconds: Of each key operator, by name: seconds that a request takes of it,
            replicas and batching included, shape (n,): one over them and over the price is what
            the operator's resource curves show. Empty where no operator is known.

    Raises:
        InputError: There is no expert, or an array does not have one finite number for each
            candidate.
    """

    experts: tuple[Expert, ...]
    log_memory_share: FloatArray | None = None
    operator_seconds: Mapping[str, FloatArray] = field(default_factory=dict[str, FloatArray])

    def __post_init__(self) -> None:
        if not self.experts:
            raise InputError("a mixture needs at least one expert")
        arrays = [each.mean for expert in self.experts for each in expert.metrics.values()]
        arrays += list(self.operator_seconds.values())
        if self.log_memory_share is not None:
            arrays.append(self.log_memory_share)
        if len({each.shape for each in arrays}) != 1:
            raise InputError(
                "experts, memory and operators must speak of the same candidates, got the shapes "
                f"{sorted({each.shape for each in arrays})}"
            )
        if not all(np.isfinite(each).all() for each in arrays):
            raise InputError("memory shares and seconds of operators must be finite")
        for name, seconds in self.operator_seconds.items():
            if not (seconds > 0).all():
                raise InputError(
                    f"seconds of the operator {name!r} must be positive; leave out an operator "
                    "that takes none"
                )

    @property
    def n(self) -> int:
        """How many candidates it speaks of."""
        return next(iter(self.experts[0].metrics.values())).mean.size
