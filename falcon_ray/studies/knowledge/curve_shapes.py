"""How often the classifier of resource curves is right, and which shapes real curves have.

Being right is measured on simulated curves whose shape is clear without noise: a fixed cost per
call that soon stops mattering (concave) or never does (convex), equal gains per doubling (slope),
nothing (plane), each rising and falling. Real curves have no true label: their shares are only
shown.
"""

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq

from falcon_ray.errors import InputError
from falcon_ray.knowledge.curves.shape import Direction, Shape, classify, classify_rows
from falcon_ray.space.configuration import FloatArray
from falcon_ray.studies.figure import Figure
from falcon_ray.studies.public_tables import public_table

BATCH_SIZES = 2.0 ** np.arange(7)
NOISE_LEVELS = (0.01, 0.03, 0.08)
LEAST_RIGHT = 0.95

_MIN_POINTS = 5
_MIN_SPAN = 16.0
# The public table's names of its families, and which of their dimensions is the batch-like one.
_BATCH_LIKE: Mapping[str, tuple[tuple[str, ...], int]] = MappingProxyType(
    {
        "elementwise": (("add", "mul", "div", "pow", "relu", "gelu", "tanh"), 0),
        "linear": (("gemm",), 1),
        "bmm": (("bmm",), 0),
    }
)


def figures(
    *, n_curves: int = 2000, seed: int = 0, table: str = "operator_latency.parquet"
) -> list[Figure]:
    """Share of simulated clear curves labelled right, and shares of labels on real ones.

    Args:
        n_curves: Per shape, direction and noise level.
        seed: Of curves and noise.
        table: Name of the public table of operators; its figures are left out where it is missing.
    """
    rng = np.random.default_rng(seed)
    found: list[Figure] = []
    for relative_sd in NOISE_LEVELS:
        shares = {
            shape: _share_right(shape, clear_curves(shape, n_curves, rng), relative_sd, rng)
            for shape in Shape
        }
        noise = f"at {relative_sd:.0%} noise"
        found.append(
            Figure(
                name=f"curve shapes labelled right {noise}",
                value=float(np.mean(list(shares.values()))),
                at_least=LEAST_RIGHT,
                note=f"mean of four shapes, {n_curves} curves each way of 7 batch sizes",
            )
        )
        found.extend(
            Figure(name=f"  {shape.value} {noise}", value=share, note="shape and direction")
            for shape, share in shares.items()
        )
        found.append(
            Figure(
                name=f"  gradual saturation {noise}",
                value=_share_right(Shape.CONCAVE, gradual_curves(n_curves, rng), relative_sd, rng),
                note="found concave; not counted among the clear cases",
            )
        )
    return found + _real_shares(table)


def clear_curves(shape: Shape, n: int, rng: np.random.Generator) -> FloatArray:
    """Rising curves without noise over `BATCH_SIZES`, shape (n, 7); a plane for `Shape.PLANE`.

    A call takes the larger of a fixed time and a time per sample, the corner rounded (a p-norm, p
    3-10), so throughput is b / (b^p + h^p)^(1/p) with its knee at batch h: concave for h of 2-6,
    convex for 64-1,000. A slope gains the same with every doubling, 4-16 fold in all.
    """
    if shape is Shape.PLANE:
        return np.ones((n, len(BATCH_SIZES)))
    if shape is Shape.SLOPE:
        gain = rng.uniform(3.0, 15.0, size=(n, 1))
        return 1.0 + gain * np.linspace(0.0, 1.0, len(BATCH_SIZES))
    low, high = (2.0, 6.0) if shape is Shape.CONCAVE else (64.0, 1000.0)
    return _roofline(
        knee=_log_uniform(low, high, n, rng), sharpness=rng.uniform(3.0, 10.0, size=(n, 1))
    )


def gradual_curves(n: int, rng: np.random.Generator) -> FloatArray:
    """Curves that saturate by Amdahl's law (1967), b / (b + h) with h of 1-3, shape (n, 7).

    They are concave without noise, D = 0.10-0.19, but not clearly so.
    """
    return _roofline(knee=_log_uniform(1.0, 3.0, n, rng), sharpness=np.ones((n, 1)))


def _roofline(*, knee: FloatArray, sharpness: FloatArray) -> FloatArray:
    return (1.0 + (knee / BATCH_SIZES) ** sharpness) ** (-1.0 / sharpness)


def _log_uniform(low: float, high: float, n: int, rng: np.random.Generator) -> FloatArray:
    return np.exp(rng.uniform(np.log(low), np.log(high), size=(n, 1)))


def _share_right(
    shape: Shape, rising: FloatArray, relative_sd: float, rng: np.random.Generator
) -> float:
    """Share of rising curves and their mirror images whose shape and direction are both found."""
    right: list[bool] = []
    for direction, curves in (
        (Direction.RISING, rising),
        (Direction.FALLING, rising[:, ::-1]),
    ):
        expected = Direction.FLAT if shape is Shape.PLANE else direction
        noisy = np.log(curves) + relative_sd * rng.standard_normal(curves.shape)
        labels = classify_rows(np.log2(BATCH_SIZES), noisy, relative_sd)
        right.extend((each.shape, each.direction) == (shape, expected) for each in labels)
    return float(np.mean(right))


def _real_shares(table: str) -> list[Figure]:
    try:
        path = public_table(table)
    except InputError:
        return []
    columns = ["family", "op", "device", "dims", "latency_us"]
    rows = pq.read_table(path, columns=columns, filters=pc.field("dtype") == "float32").to_pandas()
    found: list[Figure] = []
    for name, (families, axis) in _BATCH_LIKE.items():
        counts = _label_counts(rows[rows["family"].isin(families)], axis)
        n = counts.total()
        found.extend(
            Figure(
                name=f"real curves of {name} that are {shape.value}",
                value=counts[shape] / n if n else 0.0,
                note=f"{n} curves of at least {_MIN_POINTS} points over a factor of "
                f"{_MIN_SPAN:g}, fp32, device time, 3 % noise assumed",
            )
            for shape in Shape
        )
    return found


def _label_counts(rows: pd.DataFrame, axis: int) -> Counter[Shape]:
    """Labels of the curves over one dimension, all other dimensions, op and device equal."""
    dims = np.array(rows["dims"].tolist(), dtype=np.int64)
    points = pd.DataFrame(
        {
            "op": rows["op"].to_numpy(),
            "device": rows["device"].to_numpy(),
            "amount": dims[:, axis],
            "latency_us": rows["latency_us"].to_numpy(dtype=np.float64),
            **{f"dim_{i}": dims[:, i] for i in range(dims.shape[1]) if i != axis},
        }
    )
    rest = [column for column in points.columns if column not in ("amount", "latency_us")]
    points = points.groupby([*rest, "amount"], observed=True)["latency_us"].median().reset_index()
    counts: Counter[Shape] = Counter()
    for _, curve in points.groupby(rest, observed=True):
        amount = curve["amount"].to_numpy(dtype=np.float64)
        if len(amount) >= _MIN_POINTS and amount[-1] / amount[0] >= _MIN_SPAN:
            throughput = amount / curve["latency_us"].to_numpy()
            counts[classify(np.log2(amount), np.log(throughput)).shape] += 1
    return counts
