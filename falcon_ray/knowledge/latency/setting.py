"""What is known of a device in one setting, asked for whole models: up to three predictors.

A setting is a number of threads, or a share of a GPU. The module does not know how the predictors
were made, nor how their answers are combined.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from falcon_ray.knowledge.constants import Constants
from falcon_ray.knowledge.latency.borrowed_shapes import BorrowedShapes
from falcon_ray.knowledge.latency.composition import composed_s, composition_sd
from falcon_ray.knowledge.latency.estimates import LatencyEstimate
from falcon_ray.knowledge.latency.family_model import FamilyModel
from falcon_ray.knowledge.latency.nearest_shapes import NearestShapes
from falcon_ray.knowledge.operators.operator import Family, FamilyCalls
from falcon_ray.space.configuration import FloatArray

_Shapes: TypeAlias = NearestShapes | BorrowedShapes

_NOTHING_S = 1e-12
"""Stands for no time at all where its logarithm is taken."""
_NO_RULE_SD = 1.5
"""Of the log time of an operator that no rule knows: its bytes are a lower bound."""
_UNPROFILED_SD = 0.5
"""Of the log time of an operator that was not measured on the device, by constants or bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Operators:
    """All operators of a model at b batch sizes.

    Attributes:
        seconds: All calls of each, one array (b, k) per family.
        sums: Of them, shape (b,).
        sd: Of the log of the sums, shape (b,).
        n_calls: Calls of operators that do something.
        uncovered: Names of operators whose family was not measured.
    """

    seconds: tuple[FloatArray, ...]
    sums: FloatArray
    sd: FloatArray
    n_calls: float
    uncovered: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is known for one number of threads, or one share of a GPU.

    Attributes:
        threads: Of a CPU; 0 on a GPU.
        share: Of a GPU's compute units; 1 on a CPU.
        shapes: Measured operators, if there are any.
        composition: From their sum to the whole model, if models were measured as well.
        family: Constants of this device, if there are any.
        transferred: Constants of other devices, if there are any.
        borrowed: Measured operators of other devices, for want of any of this one.
    """

    threads: int
    share: float
    shapes: NearestShapes | None
    composition: Constants | None
    family: FamilyModel | None
    transferred: FamilyModel | None
    borrowed: BorrowedShapes | None = None

    @property
    def knows_something(self) -> bool:
        """Whether there is anything to predict from."""
        return any((self.shapes, self.family, self.transferred, self.borrowed))

    @property
    def is_measured(self) -> bool:
        """Whether any of it was measured on this device."""
        return self.shapes is not None or self.family is not None

    def estimates(self, calls: Sequence[FamilyCalls]) -> list[LatencyEstimate]:
        """What each predictor says, the surest kind first; other devices only for want of this."""
        found: list[LatencyEstimate] = []
        if self.shapes is not None:
            found.append(self._by_shapes(self.shapes, calls, "profiled shapes"))
        if self.family is not None:
            found.append(_by_family(self.family, calls, "constants of this device"))
        if not self.is_measured and self.borrowed is not None:
            found.append(self._by_shapes(self.borrowed, calls, "shapes of other devices"))
        if not self.is_measured and self.transferred is not None:
            basis = "constants of other devices, scaled by facts"
            found.append(_by_family(self.transferred, calls, basis))
        return found

    def operator_sum(
        self, shapes: NearestShapes, calls: Sequence[FamilyCalls]
    ) -> tuple[float, float]:
        """Seconds of all operators at the first batch size, and how many calls they are."""
        operators = self._operators(shapes, calls)
        return float(operators.sums[0]), operators.n_calls

    def _by_shapes(
        self, shapes: _Shapes, calls: Sequence[FamilyCalls], basis: str
    ) -> LatencyEstimate:
        operators = self._operators(shapes, calls)
        total = composed_s(self.composition, operators.sums, operators.n_calls)
        return LatencyEstimate(
            log_seconds=np.log(total),
            sd=np.sqrt(
                operators.sd**2
                + composition_sd(self.composition) ** 2
                + _no_rule_sd(calls, operators.seconds) ** 2
            ),
            operator_seconds=operators.seconds,
            basis=basis,
            warnings=_not_profiled(operators.uncovered),
        )

    def _operators(self, shapes: _Shapes, calls: Sequence[FamilyCalls]) -> _Operators:
        """Operator by operator; families that nobody measured take constants, or bytes alone."""
        seconds: list[FloatArray] = []
        sds: list[FloatArray] = []
        uncovered: list[str] = []
        for each in calls:
            b, k = each.flops.shape
            if each.family is Family.VIEW:
                seconds.append(np.full((b, k), _NOTHING_S))
                sds.append(np.zeros((b, k)))
                continue
            predicted = shapes.predict(
                each.family,
                each.names * b,
                each.dims.reshape(b * k, -1),
                each.flops.ravel(),
                each.bytes_moved.ravel(),
            )
            log_seconds, sd = predicted.log_seconds, predicted.sd
            if not predicted.covered.all():
                log_seconds, sd = self._filled(each, log_seconds, sd, predicted.covered)
                uncovered += each.names
            seconds.append(np.exp(log_seconds).reshape(b, k) * each.counts)
            sds.append(sd.reshape(b, k))
        sums = np.sum([each.sum(axis=1) for each in seconds], axis=0)
        # Errors within a family are taken for one error, those of families for independent.
        shares = [(each * sd).sum(axis=1) / sums for each, sd in zip(seconds, sds, strict=True)]
        return _Operators(
            seconds=tuple(seconds),
            sums=sums,
            sd=np.sqrt(np.sum(np.square(shares), axis=0)),
            n_calls=_n_calls(calls),
            uncovered=tuple(uncovered),
        )

    def _filled(
        self,
        calls: FamilyCalls,
        log_seconds: FloatArray,
        sd: FloatArray,
        covered: NDArray[np.bool_],
    ) -> tuple[FloatArray, FloatArray]:
        model = self.family or self.transferred
        if model is None:
            return log_seconds, sd
        constant = np.log(
            model.predict_operators(calls.family, calls.flops.ravel(), calls.bytes_moved.ravel())
        )
        return np.where(covered, log_seconds, constant), np.where(covered, sd, _UNPROFILED_SD)


def _by_family(model: FamilyModel, calls: Sequence[FamilyCalls], basis: str) -> LatencyEstimate:
    log_seconds, sd = model.predict_model(calls)
    unknown = set(model.unknown_families)
    names = [name for each in calls if each.family in unknown for name in each.names]
    seconds = tuple(
        model.predict_operators(each.family, each.flops, each.bytes_moved) * each.counts
        for each in calls
    )
    return LatencyEstimate(
        log_seconds=log_seconds,
        sd=np.hypot(sd, _no_rule_sd(calls, seconds)),
        operator_seconds=seconds,
        host_seconds=model.launch_s * _n_calls(calls),
        basis=basis,
        warnings=_not_profiled(names),
    )


def _no_rule_sd(calls: Sequence[FamilyCalls], seconds: Sequence[FloatArray]) -> FloatArray:
    """The sd that operators without a rule add, of which only bytes are known, shape (b,)."""
    total = np.sum([each.sum(axis=1) for each in seconds], axis=0)
    unruled = [
        each.sum(axis=1)
        for each, group in zip(seconds, calls, strict=True)
        if group.family is Family.OTHER
    ]
    return _NO_RULE_SD * np.sum(unruled, axis=0) / total if unruled else np.zeros(len(total))


def _n_calls(calls: Sequence[FamilyCalls]) -> float:
    return sum(float(each.counts.sum()) for each in calls if each.family is not Family.VIEW)


def _not_profiled(names: Iterable[str]) -> tuple[str, ...]:
    found = ", ".join(dict.fromkeys(names))
    return (f"nobody measured these operators there: {found}",) if found else ()
