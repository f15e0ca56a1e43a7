"""Which of four shapes a resource curve has, as far as its noise allows to say.

The shapes are Falcon's (Wu et al., SoCC 2022): slope, convex, concave, plane. The module sees
points, and does not know which resource, operator or device they belong to.

Notation: m curves over the same n points; x is the axis and z the height, both scaled to [0, 1];
D is the signed area between a curve and its chord, from -1/2 (pays at the very end) to 1/2 (at
once).
"""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from scipy.special import chdtrc, ndtr

from falcon_ray.space.configuration import FloatArray

DEFAULT_RELATIVE_SD = 0.03
"""Of one point, where nobody measured it."""
MIN_POINTS = 3
"""Two points always lie on their chord."""

_PLANE_P_VALUE = 0.01
PLANE_LOG_RANGE = 0.10
"""Of a curve without noise whose points are taken for equal."""
_STRAIGHT_AREA = 0.10
_FLAT_TREND = 0.10
_N_SDS = 2.0


class Shape(Enum):
    """How much more of a resource pays, along its axis."""

    SLOPE = "slope"
    """Every step pays, or costs, about the same."""
    CONVEX = "convex"
    """A rising one pays late; a falling one loses early."""
    CONCAVE = "concave"
    """A rising one saturates; a falling one loses late; one with a peak in between is concave."""
    PLANE = "plane"
    """No effect: not worth searching."""


class Direction(Enum):
    """Where the curve goes as the resource grows."""

    RISING = "rising"
    FALLING = "falling"
    FLAT = "flat"
    """Neither over the whole axis: a plane, or a peak or dip in between."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveShape:
    """The label of a curve with the statistics behind it.

    Attributes:
        shape: One of four.
        direction: Of the whole curve.
        p_value: Of the chi-square test that all points are equal.
        log_range: Highest over lowest point, natural log.
        area: Signed area D between curve and chord in the unit square; positive above it.
        area_sd: Its sd from the noise of the points, to first order.
    """

    shape: Shape
    direction: Direction
    p_value: float
    log_range: float
    area: float
    area_sd: float


def classify(
    u: FloatArray, log_y: FloatArray, relative_sd: float | FloatArray = DEFAULT_RELATIVE_SD
) -> CurveShape:
    """The shape of one curve; see `classify_rows`.

    Args:
        u: Axis on which steps compare, e.g. log2 of the batch size, shape (n,), ascending.
        log_y: Natural log of the throughput, or of what a dollar buys, shape (n,).
        relative_sd: Noise of y, a number or of shape (n,).

    Raises:
        ValueError: As `classify_rows`.
    """
    sd = np.broadcast_to(np.asarray(relative_sd, dtype=np.float64), np.shape(log_y))
    return classify_rows(u, np.asarray(log_y, dtype=np.float64)[None, :], sd[None, :])[0]


def classify_rows(
    u: FloatArray, log_y: FloatArray, relative_sd: float | FloatArray = DEFAULT_RELATIVE_SD
) -> tuple[CurveShape, ...]:
    """The shapes of m curves over the same axis.

    A curve is a plane when a chi-square test of a constant passes (p > 0.01), or when its log
    range is within 10 % plus the expected range of its noise. Otherwise |D| must exceed both 0.10
    and two of its sds to be concave (D > 0) or convex (D < 0); else it is a slope. D is taken on y
    itself, not on its log: what a step adds is what it pays.

    Args:
        u: Shape (n,), ascending.
        log_y: Shape (m, n).
        relative_sd: Noise of y, a number, or of shape (n,) or (m, n).

    Raises:
        ValueError: Fewer than 3 points, an axis that does not ascend, values that are not
            finite, or noise that is not positive.
    """
    u = np.asarray(u, dtype=np.float64)
    log_y = np.asarray(log_y, dtype=np.float64)
    _check(u, log_y)
    sd = np.broadcast_to(np.asarray(relative_sd, dtype=np.float64), log_y.shape)
    if not (np.isfinite(sd).all() and (sd > 0).all()):
        raise ValueError(
            f"relative_sd must be positive, got {sd.min():g}; leave it out where it is unknown"
        )
    x = (u - u[0]) / (u[-1] - u[0])
    p_values = _constant_p_values(log_y, sd)
    log_range = np.ptp(log_y, axis=1)
    noise_range = expected_range(len(u)) * np.sqrt((sd**2).mean(axis=1))
    plane = (p_values > _PLANE_P_VALUE) | (log_range <= PLANE_LOG_RANGE + noise_range)
    area, area_sd = _signed_areas(x, log_y, sd)
    bent = np.abs(area) > np.maximum(_STRAIGHT_AREA, _N_SDS * area_sd)
    trend, trend_sd = _trends(x, log_y, sd)
    directed = ~plane & (np.abs(trend) > np.maximum(_FLAT_TREND, _N_SDS * trend_sd))
    return tuple(
        CurveShape(
            shape=_shape(is_plane=bool(plane[i]), is_bent=bool(bent[i]), area=float(area[i])),
            direction=_direction(is_directed=bool(directed[i]), trend=float(trend[i])),
            p_value=float(p_values[i]),
            log_range=float(log_range[i]),
            area=float(area[i]),
            area_sd=float(area_sd[i]),
        )
        for i in range(len(log_y))
    )


def expected_range(n: int) -> float:
    """Expected range of n standard normals; Tippett (1925), by the trapezoidal rule."""
    t = np.linspace(-9.0, 9.0, 3601)
    below = ndtr(t)
    return float(np.trapezoid(1.0 - below**n - (1.0 - below) ** n, t))


def _check(u: FloatArray, log_y: FloatArray) -> None:
    if u.ndim != 1 or log_y.ndim != 2 or log_y.shape[1] != len(u):
        raise ValueError(
            f"a curve has one height for every point of its axis, got {u.shape} and {log_y.shape}"
        )
    if len(u) < MIN_POINTS:
        raise ValueError(
            f"a curve's shape needs at least {MIN_POINTS} points, got {len(u)}; measure or "
            "predict more of them"
        )
    if not (np.isfinite(u).all() and np.isfinite(log_y).all()):
        raise ValueError("a curve's points must be finite, and throughputs positive")
    if not (np.diff(u) > 0).all():
        raise ValueError(f"a curve's axis must ascend, got {u.tolist()}")


def _constant_p_values(log_y: FloatArray, sd: FloatArray) -> FloatArray:
    weight = sd**-2
    mean = (weight * log_y).sum(axis=1) / weight.sum(axis=1)
    chi_square = (weight * (log_y - mean[:, None]) ** 2).sum(axis=1)
    return np.asarray(chdtrc(log_y.shape[1] - 1, chi_square), dtype=np.float64)


def _signed_areas(
    x: FloatArray, log_y: FloatArray, sd: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """D and its sd, each of shape (m,).

    D = sum_i c_i y_i / (max y - min y), where c are the trapezoidal rule's weights less those of
    the chord, 1/2 at both ends. The sd follows to first order, the highest and the lowest point
    counting through the height of the square, too.
    """
    rows = np.arange(len(log_y))
    # Only ratios matter below; the shift keeps exp() in range.
    y = np.exp(log_y - log_y.max(axis=1, keepdims=True))
    highest, lowest = y.argmax(axis=1), y.argmin(axis=1)
    height = y[rows, highest] - y[rows, lowest]
    height = np.where(height > 0, height, 1.0)  # an exact constant has no area
    steps = np.diff(x)
    c = np.zeros_like(x)
    c[1:] += steps / 2
    c[:-1] += steps / 2
    c[[0, -1]] -= 0.5
    area = (y @ c) / height
    slopes = np.broadcast_to(c, y.shape).copy()
    slopes[rows, highest] -= area
    slopes[rows, lowest] += area
    area_sd = np.sqrt(((slopes * y * sd) ** 2).sum(axis=1)) / height
    return area, area_sd


def _trends(x: FloatArray, log_y: FloatArray, sd: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Least-squares slope of log y over the whole axis and its sd, each of shape (m,)."""
    centred = x - x.mean()
    lever = centred / (centred**2).sum()
    return log_y @ lever, np.sqrt(((lever * sd) ** 2).sum(axis=1))


def _shape(*, is_plane: bool, is_bent: bool, area: float) -> Shape:
    if is_plane:
        return Shape.PLANE
    if not is_bent:
        return Shape.SLOPE
    return Shape.CONCAVE if area > 0 else Shape.CONVEX


def _direction(*, is_directed: bool, trend: float) -> Direction:
    if not is_directed:
        return Direction.FLAT
    return Direction.RISING if trend > 0 else Direction.FALLING
