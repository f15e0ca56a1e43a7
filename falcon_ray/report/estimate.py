"""What is expected of a model before its first trial: values for people and for machines.

An estimate holds predictions with their error bars and says how far they can be trusted. It does
not know how they were made.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from falcon_ray.knowledge.curves.resource_curve import ResourceCurve
from falcon_ray.space.configuration import Configuration

INTERVAL_PERCENT = 80


@dataclass(frozen=True, slots=True)
class Expected:
    """A positive quantity: its median and the interval that holds it with 80 % probability."""

    median: float
    low: float
    high: float

    @classmethod
    def of_log(cls, mean: float, half_width: float) -> "Expected":
        """From the mean of the natural log and half the width of its interval."""
        return cls(math.exp(mean), math.exp(mean - half_width), math.exp(mean + half_width))

    def times(self, factor: float) -> "Expected":
        """The quantity in another unit."""
        return Expected(factor * self.median, factor * self.low, factor * self.high)

    def to_json(self) -> dict[str, float]:
        """Plain values."""
        return {"median": self.median, "low": self.low, "high": self.high}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedConfiguration:
    """What one configuration is expected to do.

    Attributes:
        configuration: Of the space.
        device: What it runs on.
        usd_per_hour: All replicas together.
        requests_per_dollar: The score.
        metrics: By name, in the unit that the name ends with.
        memory_gib: Of one replica.
        probability_fits: That this is within what the configuration allows.
    """

    configuration: Configuration
    device: str
    usd_per_hour: float
    requests_per_dollar: Expected
    metrics: Mapping[str, Expected]
    memory_gib: float
    probability_fits: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "configuration": dict(self.configuration),
            "device": self.device,
            "usd_per_hour": self.usd_per_hour,
            "requests_per_dollar": self.requests_per_dollar.to_json(),
            "metrics": {name: each.to_json() for name, each in self.metrics.items()},
            "memory_gib": self.memory_gib,
            "probability_fits": self.probability_fits,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedOperator:
    """A key operator: its part of the time, and what more of each resource does to it.

    Attributes:
        name: An operator's name, or a term's.
        detail: Its canonical dimensions, in words.
        calls: In one forward pass, or step.
        share: Of the whole predicted time.
        curves: One per resource.
    """

    name: str
    detail: str
    calls: int
    share: float
    curves: tuple[ResourceCurve, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.name,
            "detail": self.detail,
            "calls": self.calls,
            "share": self.share,
            "curves": [
                {
                    "resource": each.resource,
                    "device": each.subject.device,
                    "values": list(each.values),
                    "throughput": list(each.throughput),
                    "is_per_dollar": each.is_per_dollar,
                    "shape": each.shape.value,
                    "direction": each.direction.value,
                    "good": [each.good.low, each.good.high],
                }
                for each in self.curves
            ],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorPart:
    """Where a model's time goes at one point.

    Attributes:
        point: Device, dtype and batch size, in words.
        operators: Key operators by falling share.
        n_others: Further signatures.
        others_share: What those take together.
        host_share: What belongs to no operator.
        basis: Which knowledge the times stand on.
    """

    point: str
    operators: tuple[ExpectedOperator, ...]
    n_others: int
    others_share: float
    host_share: float
    basis: str

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "point": self.point,
            "operators": [each.to_json() for each in self.operators],
            "n_others": self.n_others,
            "others_share": self.others_share,
            "host_share": self.host_share,
            "basis": self.basis,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Everything that is expected of a model.

    Attributes:
        target: What the user named.
        model: Facts of the model, in words: parameters, FLOPs.
        n_candidates: How many configurations were compared.
        closest: What comes nearest, in words, where none of them is expected to work.
        best_by_device: The best configuration of every device that it fits on, best first.
        top: The best configurations of all, best first.
        operators: Where the best configuration's time goes; None where nothing works.
        unfit: Configurations that memory rules out, in words, one line per device and dtype.
        warnings: Where the knowledge is thin.
        knowledge: Where it comes from, one line per source.
    """

    target: str
    model: str
    n_candidates: int
    best_by_device: tuple[ExpectedConfiguration, ...]
    top: tuple[ExpectedConfiguration, ...]
    operators: OperatorPart | None
    unfit: tuple[str, ...]
    warnings: tuple[str, ...]
    knowledge: tuple[str, ...]
    closest: str = ""

    def to_json(self) -> dict[str, Any]:
        """The estimate as plain JSON values."""
        return {
            "target": self.target,
            "model": self.model,
            "n_candidates": self.n_candidates,
            "closest": self.closest,
            "interval_percent": INTERVAL_PERCENT,
            "best_by_device": [each.to_json() for each in self.best_by_device],
            "top": [each.to_json() for each in self.top],
            "key_operators": None if self.operators is None else self.operators.to_json(),
            "unfit": list(self.unfit),
            "warnings": list(self.warnings),
            "knowledge": list(self.knowledge),
        }
