"""Resource curves of operators: what more of one resource pays, and where enough of it is.

A curve belongs to an operator in one size regime on one device, never to the operator's name: the
same matrix product pays late while it is small and saturates when it is large. So curves hold
their points, measured or predicted, and labels are derived from them. The module does not know
where latencies come from, and takes prices as they are given.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from falcon_ray.errors import InputError
from falcon_ray.knowledge.curves.shape import (
    DEFAULT_RELATIVE_SD,
    PLANE_LOG_RANGE,
    CurveShape,
    Direction,
    Shape,
    classify_rows,
)
from falcon_ray.knowledge.operators.operator import Dims
from falcon_ray.space.configuration import FloatArray
from falcon_ray.space.dimension import Scale

GOOD_FRACTION = 0.9
"""What is as good as the best: 0.9 of it."""

_BLOCKS = "▁▂▃▄▅▆▇█"
_LOG2_RESOURCES = frozenset({"batch_size", "concurrency"})
_WORDS = MappingProxyType(
    {"batch_size": "batch", "gpu_share": "GPU share", "cpu_cores": "CPU cores"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveSubject:
    """Whose curve it is.

    Attributes:
        operator: Name of an operator, or of a term that stands for some, e.g. "prefill".
        dims: Canonical dimensions at the axis's first point: the size regime; may be empty.
        dtype: What it is computed in.
        device: On which it runs.
    """

    operator: str
    device: str
    dims: Dims = ()
    dtype: str = "float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A closed interval of a resource, in the resource's own unit."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceCurve:
    """Throughput over one resource, everything else equal.

    Attributes:
        subject: Whose curve it is.
        resource: A dimension's name, e.g. "batch_size".
        values: Of the resource, ascending, length n.
        throughput: At each value: work per second, or per dollar.
        relative_sd: Noise, or error, of each.
        is_per_dollar: Whether `throughput` is work per dollar.
        label: Shape and direction, derived.
        good: Where the throughput is at least 0.9 of its highest point, without a gap around that
            point, between points by interpolation; the whole axis for a plane, whose points differ
            by no more than noise.
    """

    subject: CurveSubject
    resource: str
    values: tuple[float, ...]
    throughput: tuple[float, ...]
    relative_sd: tuple[float, ...]
    is_per_dollar: bool
    label: CurveShape
    good: Interval

    @property
    def shape(self) -> Shape:
        """Slope, convex, concave or plane."""
        return self.label.shape

    @property
    def direction(self) -> Direction:
        """Rising, falling or flat."""
        return self.label.direction

    def describe(self) -> str:
        """One line, e.g. "batch 1-64: concave, rising; good from 16"."""
        word = _WORDS.get(self.resource, self.resource.replace("_", " "))
        axis = f"{word} {self.values[0]:g}-{self.values[-1]:g}"
        if self.shape is Shape.PLANE:
            return f"{axis}: plane, no effect"
        return f"{axis}: {self.shape.value}, {self._course()}; good {self.describe_good()}"

    def _course(self) -> str:
        if self.direction is not Direction.FLAT:
            return self.direction.value
        return "peaks in between" if self.shape is Shape.CONCAVE else "no trend"

    def describe_good(self) -> str:
        """The good interval in words, e.g. "from 16"."""
        low, high = self.good.low, self.good.high
        if all(value.is_integer() for value in self.values):
            low, high = np.ceil(low), np.floor(high)
        from_start, to_end = low <= self.values[0], high >= self.values[-1]
        if from_start and to_end:
            return "everywhere"
        if low == high:
            return f"at {low:.3g}"
        if to_end:
            return f"from {low:.3g}"
        return f"up to {high:.3g}" if from_start else f"from {low:.3g} to {high:.3g}"


def curve_over(
    resource: str,
    values: FloatArray,
    latency_s: FloatArray,
    *,
    subject: CurveSubject,
    work: FloatArray | None = None,
    usd_per_hour: float | FloatArray | None = None,
    relative_sd: float | FloatArray | None = None,
) -> ResourceCurve:
    """One operator's curve; see `curves_over`, whose rows this takes one of."""
    return curves_over(
        resource,
        values,
        np.asarray(latency_s, dtype=np.float64)[None, :],
        subjects=(subject,),
        work=work,
        usd_per_hour=usd_per_hour,
        relative_sd=relative_sd,
    )[0]


def curves_over(
    resource: str,
    values: FloatArray,
    latency_s: FloatArray,
    *,
    subjects: Sequence[CurveSubject],
    work: FloatArray | None = None,
    usd_per_hour: float | FloatArray | None = None,
    relative_sd: float | FloatArray | None = None,
) -> tuple[ResourceCurve, ...]:
    """Curves of m operators over the same n values of one resource.

    Args:
        resource: A dimension's name. Batch size and concurrency compare by doublings, whatever is
            a part of a machine (shares, cores) by amounts: proportional gains are a slope.
        values: Shape (n,), each once, in any order.
        latency_s: Seconds of one call, shape (m, n), measured or predicted.
        subjects: Whose curves they are, length m.
        work: Done by one call, shape (n,); left out, the batch size itself where that is the
            resource, else 1.
        usd_per_hour: Price at each value, a number or of shape (n,); left out, throughput is per
            second.
        relative_sd: Of the latencies, a number, or of shape (n,) or (m, n); left out, 0 or NaN
            where it is unknown, which means 3 %.

    Raises:
        InputError: Fewer than 3 values, a value twice, or a latency, price or amount of work that
            is not positive.
    """
    order = np.argsort(values)
    axis = np.asarray(values, dtype=np.float64)[order]
    latency = np.asarray(latency_s, dtype=np.float64)
    if latency.shape != (len(subjects), len(axis)):
        raise InputError(
            f"{len(subjects)} curves over {len(axis)} values of {resource} need latencies of that "
            f"shape, got {latency.shape}"
        )
    if work is None:
        work = np.asarray(values) if resource == "batch_size" else np.ones(len(axis))
    dollars_per_s = 1.0 if usd_per_hour is None else np.asarray(usd_per_hour) / 3600.0
    with np.errstate(divide="ignore", invalid="ignore"):  # refused below, with a message
        throughput = (np.asarray(work) / latency / dollars_per_s)[:, order]
    if not (np.isfinite(throughput).all() and (throughput > 0).all()):
        raise InputError(
            f"latencies, work and prices over {resource} must be positive and finite, got "
            f"latencies from {latency.min():g} to {latency.max():g} s"
        )
    sd = _known_or_default(relative_sd, latency.shape)[:, order]
    by_doublings = scale_of(resource) is Scale.LOG2
    if by_doublings and not axis.min(initial=1.0) > 0:
        raise InputError(f"{resource} must be positive, got {axis.min():g}")
    u = np.log2(axis) if by_doublings else axis
    try:
        labels = classify_rows(u, np.log(throughput), sd)
    except ValueError as error:
        raise InputError(f"no curve over {resource} at {axis.tolist()}: {error}") from error
    return tuple(
        ResourceCurve(
            subject=subject,
            resource=resource,
            values=tuple(axis.tolist()),
            throughput=tuple(throughput[i].tolist()),
            relative_sd=tuple(sd[i].tolist()),
            is_per_dollar=usd_per_hour is not None,
            label=labels[i],
            good=_good_interval(u, throughput[i], labels[i].shape, by_doublings=by_doublings),
        )
        for i, subject in enumerate(subjects)
    )


def good_values(log_throughput: FloatArray, *, is_ordered: bool) -> NDArray[np.bool_]:
    """Which values of a resource are good on each of m curves over the same v values.

    Good is what reaches 0.9 of the curve's highest point; where values have an order, without a gap
    around that point. On a curve whose points differ by no more than 10 % everything is.

    Args:
        log_throughput: Natural log, shape (m, v), in the order of the values.
        is_ordered: Whether the values have one; types of GPU have none.

    Returns:
        Shape (m, v).
    """
    best = log_throughput.max(axis=1, keepdims=True)
    good = log_throughput >= best + np.log(GOOD_FRACTION)
    if is_ordered:
        at = log_throughput.argmax(axis=1)[:, None]
        n = log_throughput.shape[1]
        place = np.arange(n, dtype=np.intp)[None, :]
        before = np.asarray(np.where(~good & (place < at), place, -1), dtype=np.intp)
        after = np.asarray(np.where(~good & (place > at), place, n), dtype=np.intp)
        last_gap, first_gap = before.max(axis=1)[:, None], after.min(axis=1)[:, None]
        good = (place > last_gap) & (place < first_gap)
    return good | (np.ptp(log_throughput, axis=1, keepdims=True) <= PLANE_LOG_RANGE)


def scale_of(resource: str) -> Scale:
    """On which scale steps along a resource's curve compare."""
    return Scale.LOG2 if resource in _LOG2_RESOURCES else Scale.LINEAR


def sparkline(heights: Sequence[float]) -> str:
    """Bars from zero to the highest, e.g. "▂▄▆██"; empty for no heights.

    Args:
        heights: Not negative.
    """
    highest = max(heights, default=0.0)
    if highest <= 0:
        return _BLOCKS[0] * len(heights)
    return "".join(_BLOCKS[min(int(each / highest * 8), 7)] for each in heights)


def _known_or_default(relative_sd: float | FloatArray | None, shape: tuple[int, ...]) -> FloatArray:
    given = 0.0 if relative_sd is None else relative_sd
    sd = np.broadcast_to(np.asarray(given, dtype=np.float64), shape)
    return np.where(np.isnan(sd) | (sd == 0), DEFAULT_RELATIVE_SD, sd)


def _good_interval(u: FloatArray, y: FloatArray, shape: Shape, *, by_doublings: bool) -> Interval:
    if shape is Shape.PLANE:
        low, high = float(u[0]), float(u[-1])
    else:
        best = int(y.argmax())
        low = _crossing(u[best::-1], y[best::-1])
        high = _crossing(u[best:], y[best:])
    return Interval(low=2.0**low, high=2.0**high) if by_doublings else Interval(low=low, high=high)


def _crossing(u: FloatArray, y: FloatArray) -> float:
    """Where y, going away from its highest point at index 0, first falls below 0.9 of it."""
    threshold = GOOD_FRACTION * y[0]
    below = np.flatnonzero(y < threshold)
    if not below.size:
        return float(u[-1])
    after = int(below[0])
    before = after - 1
    part = (y[before] - threshold) / (y[before] - y[after])
    return float(u[before] + part * (u[after] - u[before]))
