"""The public throughput of vision models as runs that the family model can be fitted to.

It joins measured throughput with the operators that a static trace found, per sample, and scales
both to the batch that was measured. It fits nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from falcon_ray.knowledge.device import Device
from falcon_ray.knowledge.latency.family_features import BOUND_BY_ARITHMETIC, FamilyTotals
from falcon_ray.knowledge.operators.operator import DTYPE_BYTES, Family
from falcon_ray.space.configuration import FloatArray
from falcon_ray.studies.public_tables import public_table
from falcon_ray.studies.unlisted_devices import UNLISTED_DEVICES

SOURCE = "pytorch-image-models"

DEVICE_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "rtx3090": "RTX-3090",
        "4090": "RTX-4090",
        "5090": "RTX-5090",
        "pro6000maxq": "RTX-PRO-6000-MAX-Q",
        "cpu_i7_12700h": "Intel-i7-12700H",
        "cpu_i9_10940x": "Intel-i9-10940X",
    }
)
"""Of devices, by the names that the public table gives them."""
_DTYPES: Mapping[str, str] = MappingProxyType(
    {"fp32": "float32", "amp": "float16", "amp_bf16": "bfloat16", "bf16": "bfloat16"}
)
_FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "act": Family.ACTIVATION,
        "bmm": Family.BMM,
        "conv_1x1": Family.CONV_1X1,
        "conv_3x3": Family.CONV_3X3,
        "conv_big": Family.CONV_LARGE,
        "conv_dw": Family.CONV_DEPTHWISE,
        "conv_grp": Family.CONV_GROUPED,
        "elem": Family.ELEMENTWISE,
        "free": Family.VIEW,  # reshapes that copy are among them: their bytes cost time
        "linear": Family.LINEAR,
        "move": Family.MOVE,
        "norm": Family.NORM,
        "other": Family.OTHER,
        "pool": Family.POOL,
        "sdpa": Family.ATTENTION,
        "softmax": Family.SOFTMAX,
    }
)
_WEIGHTED = ("linear", "conv_1x1", "conv_3x3", "conv_big", "conv_grp", "conv_dw")
_TRACED_BATCH = 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VisionRuns:
    """Forward passes of n vision models on one set-up.

    Attributes:
        name: Of the set-up.
        device: What ran them.
        dtype: Of the arithmetic.
        mode: eager or compiled.
        layout: nchw or nhwc.
        torch: Version, e.g. "240" for 2.4.0.
        source_dtype: As published; "amp" and "bf16" differ beyond their name.
        models: Names, length n.
        families: Of architectures, length n; held out as a whole.
        totals: At the batch that was measured.
        seconds: Of one forward pass, shape (n,).
        batch_sizes: Shape (n,).
        params_millions: As published with each run, shape (n,): where a model's differ between
            set-ups, so do the networks that ran.
    """

    name: str
    device: Device
    dtype: str
    mode: str
    layout: str
    torch: str
    source_dtype: str
    models: tuple[str, ...]
    families: tuple[str, ...]
    totals: FamilyTotals
    seconds: FloatArray
    batch_sizes: FloatArray
    params_millions: FloatArray

    @property
    def family_numbers(self) -> NDArray[np.intp]:
        """Number of each run's family among the sorted families of this set-up, shape (n,)."""
        numbers = {name: i for i, name in enumerate(sorted(set(self.families)))}
        return np.array([numbers[name] for name in self.families], dtype=np.intp)


def vision_runs() -> list[VisionRuns]:
    """Every set-up of the public table, runs without a trace left out.

    Raises:
        InputError: A public table is missing.
    """
    throughput = pd.read_parquet(public_table("vision_throughput.parquet"))
    operators = pd.read_parquet(public_table("vision_operators.parquet"))
    joined = throughput.merge(operators, on=["model", "image_size"])
    devices = {each.name: each for each in UNLISTED_DEVICES}
    runs: list[VisionRuns] = []
    for keys, rows in joined.groupby(["device", "dtype", "layout", "torch", "dynamo"], sort=True):
        published, precision, layout, torch, compiled = (str(each) for each in keys)
        device = devices[DEVICE_NAMES[published]]
        mode = "compiled" if compiled == "True" else "eager"
        batch = rows["batch"].to_numpy(dtype=np.float64)
        runs.append(
            VisionRuns(
                name=f"{device.name} {precision} {layout} torch {torch} {mode}",
                device=device,
                dtype=_DTYPES[precision],
                mode=mode,
                layout=layout,
                torch=torch,
                source_dtype=precision,
                models=tuple(rows["model"]),
                families=tuple(rows["family"]),
                totals=_totals(rows, batch, DTYPE_BYTES[_DTYPES[precision]]),
                seconds=batch / rows["throughput_rps"].to_numpy(dtype=np.float64),
                batch_sizes=batch,
                params_millions=_column(rows, "params_millions"),
            )
        )
    return runs


def reference_setups(runs: list[VisionRuns]) -> list[int]:
    """Indices of one set-up per device, dtype and mode: the newest version, channels first."""
    best: dict[tuple[str, str, str], int] = {}
    for i, each in enumerate(runs):
        key = each.device.name, each.dtype, each.mode
        if each.layout != "nchw" or each.source_dtype == "bf16":
            continue
        if key not in best or int(runs[best[key]].torch) < int(each.torch):
            best[key] = i
    return sorted(best.values())


def _totals(rows: pd.DataFrame, batch: FloatArray, element_bytes: float) -> FamilyTotals:
    elements = _elements(rows, batch)
    names = [name for name in _FAMILIES if rows[f"count_{name}"].any()]
    return FamilyTotals(
        flops={
            _FAMILIES[name]: batch * rows[f"flops_{name}"].to_numpy(dtype=np.float64)
            for name in names
            if _FAMILIES[name] in BOUND_BY_ARITHMETIC
        },
        bytes_moved={_FAMILIES[name]: element_bytes * elements[name] for name in names},
        launches=np.asarray(
            rows[[f"count_{name}" for name in names if name != "free"]].sum(axis=1),
            dtype=np.float64,
        ),
    )


def _elements(rows: pd.DataFrame, batch: FloatArray) -> dict[str, FloatArray]:
    """Elements that each family moves at the measured batch, shapes (n,).

    The table states elements per sample of a trace at batch 2, in which half of the weights hides.
    They are taken out again, see `_weights`.
    """
    weights = _weights(rows)
    elements: dict[str, FloatArray] = {}
    for name in _FAMILIES:
        each = _column(rows, f"elements_{name}")
        own = weights.get(name, np.zeros(len(rows)))
        elements[name] = batch * np.maximum(each - own / _TRACED_BATCH, 0.0) + own
    return elements


def _weights(rows: pd.DataFrame) -> dict[str, FloatArray]:
    """Parameters of each family, shapes (n,): the table states those of whole models only.

    A family that uses every weight once per sample, such as a classifier, has half as many
    weights as FLOPs, and shows it: elsewhere the elements are far fewer than the FLOPs. The
    others share the rest in proportion to their FLOPs, each at most what its elements can hide.
    """
    left = 1e6 * _column(rows, "params_millions")
    weights: dict[str, FloatArray] = {}
    room: dict[str, FloatArray] = {}
    for name in _WEIGHTED:
        used_once = _column(rows, f"flops_{name}") / 2
        most = _TRACED_BATCH * _column(rows, f"elements_{name}")
        weights[name] = np.where(used_once <= most, np.minimum(used_once, left), 0.0)
        left = left - weights[name]
        room[name] = np.where(used_once <= most, 0.0, most)
    for _ in _WEIGHTED:  # what one family has no room for goes to those that have
        flops = {
            name: np.where(weights[name] < room[name], _column(rows, f"flops_{name}"), 0.0)
            for name in _WEIGHTED
        }
        total = np.maximum(sum(flops.values()), 1.0)
        spent = np.zeros(len(rows))
        for name in _WEIGHTED:
            more = np.minimum(
                left * flops[name] / total, np.maximum(room[name] - weights[name], 0.0)
            )
            weights[name] = weights[name] + more
            spent = spent + more
        left = left - spent
    return weights


def _column(rows: pd.DataFrame, name: str) -> FloatArray:
    return rows[name].to_numpy(dtype=np.float64)
