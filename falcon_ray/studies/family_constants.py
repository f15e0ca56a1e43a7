"""Fits the constants per family that are shipped, from public measurements.

Whole vision models on consumer GPUs say what every family costs in half precision; tables of
operators say what matrix products, 3 x 3 convolutions and streaming operators cost on data-centre
GPUs. What a table lacks is taken from the mean over devices, with the variance between them.

Not measured by anyone: eager half precision at small batches on data-centre GPUs, recurrent
operators and embeddings anywhere. Launches of eager calls are those of the float32 tables.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from falcon_ray.knowledge.constants import ANY_DEVICE, Constants
from falcon_ray.knowledge.device import Device, DeviceKind
from falcon_ray.knowledge.latency.family_features import (
    BOUND_BY_ARITHMETIC,
    LAUNCH_TERM,
    TERMS,
    FamilyTotals,
    bytes_term,
    flops_term,
)
from falcon_ray.knowledge.latency.family_fit import fit_family_constants
from falcon_ray.knowledge.latency.family_model import FamilyModel
from falcon_ray.knowledge.latency.family_pool import completed, pooled, restricted, with_stand_ins
from falcon_ray.knowledge.operators.operator import Family
from falcon_ray.space.catalogue import Catalogue
from falcon_ray.studies.operator_tables import operator_rows
from falcon_ray.studies.vision_runs import SOURCE as VISION
from falcon_ray.studies.vision_runs import VisionRuns, reference_setups, vision_runs

OPERATORS = "neusight-asplos25"
GEMM = "aiconfigurator"

_ROWS_OF_AN_OPERATOR = 1000
"""Of each ATen operator on each device: more change no constant by more than its sd."""
_GROUPS_OF_A_FAMILY = 25
_HALF = ("float16", "bfloat16")
_STREAMING = (Family.ACTIVATION, Family.ELEMENTWISE, Family.NORM, Family.SOFTMAX)
_STREAMING_RELATIVE_SD = 0.1
"""From 0.03 to 1 held-out models are predicted equally well; 0.1 tells the families apart."""
_SAME_CHIP = {"V100-16G": "V100-32G", "A100-40G": "A100-80G"}


def streaming_constants(operator_fits: Sequence[Constants]) -> Constants:
    """What bytes cost in operators that only stream, by single calls: a ridge for whole models.

    In whole models activations follow normalisations, so that a fit to them alone may give all of
    their time to either.

    Args:
        operator_fits: Of eager float32 calls, one device each.
    """
    mean = pooled(operator_fits, dtype="float32", mode="eager", source=OPERATORS)
    own = restricted(mean, [bytes_term(family) for family in _STREAMING])
    return replace(own, covariance=np.diag((_STREAMING_RELATIVE_SD * own.values) ** 2))


def operator_fits(mode: str) -> list[Constants]:
    """Constants of every device and dtype whose single operators were measured in a mode.

    Raises:
        InputError: A public table is missing.
    """
    return [each for each in _operator_fits() if each.mode == mode]


def ridge_for(runs: VisionRuns, streaming: Constants) -> Constants | None:
    """What the fit of a set-up is drawn to: fused and CPU kernels are no single calls on a GPU."""
    return streaming if _is_gpu(runs) and runs.mode == "eager" else None


def vision_fit(
    runs: VisionRuns,
    ridge_towards: Constants | None,
    *,
    groups: NDArray[np.intp],
    kept: NDArray[np.bool_] | None = None,
) -> Constants:
    """Constants of one set-up.

    Args:
        runs: All of its n runs.
        ridge_towards: Of single calls (`ridge_for`), or of other devices.
        groups: Number of each run's architecture family, shape (n,).
        kept: Runs to fit to, shape (n,); all where it is left out.
    """
    chosen = np.full(len(groups), fill_value=True) if kept is None else kept
    return fit_family_constants(
        runs.totals.of(chosen),
        runs.seconds[chosen],
        groups=groups[chosen],
        device=runs.device,
        dtype=runs.dtype,
        mode=runs.mode,
        source=VISION,
        ridge_towards=ridge_towards,
        threads=0 if _is_gpu(runs) else runs.device.units,
    )


def public_constants() -> list[Constants]:
    """All constants that public measurements give; about 5 s.

    Rows of `ANY_DEVICE` are means over devices, for GPUs nobody measured.

    Raises:
        InputError: A public table is missing.
    """
    runs = vision_runs()
    chosen = [runs[i] for i in reference_setups(runs)]
    tables = _operator_fits()
    eager = [each for each in tables if each.mode == "eager"]
    streaming = streaming_constants(eager)
    vision = [
        (each, vision_fit(each, ridge_for(each, streaming), groups=each.family_numbers))
        for each in chosen
    ]
    gemm = [each for each in tables if each.mode == "graph"]
    float32 = pooled(eager, dtype="float32", mode="eager", source=OPERATORS)

    rows: list[Constants] = []
    for mode in ("eager", "compiled"):
        measured = [(run, fit) for run, fit in vision if _is_gpu(run) and fit.mode == mode]
        fits = [fit for _, fit in measured]
        base = pooled(
            fits, dtype="float16", mode=mode, source=VISION, device_sd=_device_sd(measured)
        )
        if mode == "eager":
            base = _overlaid(base, restricted(float32, [LAUNCH_TERM]))
        base = with_stand_ins(base)
        rows += [with_stand_ins(completed(fit, base)) for fit in fits]
        rows += _half_rows(base, fits, [each for each in gemm if each.dtype == "bfloat16"])
        rows += _eighth_rows(base, [each for each in gemm if each.dtype == "fp8"])
        rows += _single_rows(base, float32, eager)
    rows += _unmeasured_half_rows(rows)
    rows += _same_chip_rows(rows)
    return rows + _processor_rows([pair for pair in vision if not _is_gpu(pair[0])])


def _half_rows(
    base: Constants, fits: Sequence[Constants], gemm: Sequence[Constants]
) -> list[Constants]:
    """float16 and bfloat16: matrix products were measured on more GPUs than all else."""
    products = [_linear(each) for each in (*fits, *gemm)]
    mean = pooled(products, dtype="float16", mode=base.mode, source=VISION)
    half = _overlaid(base, mean)
    own = [_own(half, _linear(each), source=GEMM) for each in gemm]
    return [replace(each, dtype=dtype) for each in (half, *own) for dtype in _HALF]


def _eighth_rows(base: Constants, gemm: Sequence[Constants]) -> list[Constants]:
    """fp8: only matrix products were measured, the rest stays as in half precision."""
    products = [_linear(each) for each in gemm]
    mean = _overlaid(base, pooled(products, dtype="fp8", mode=base.mode, source=GEMM))
    own = [_own(mean, each, source=GEMM) for each in products]
    return [replace(each, dtype="fp8") for each in (replace(mean, source=GEMM), *own)]


def _single_rows(base: Constants, mean: Constants, eager: Sequence[Constants]) -> list[Constants]:
    """float32: arithmetic as in the tables; what bytes cost is taken from half precision too.

    In other modes than eager, only the arithmetic of single calls still holds.
    """
    arithmetic = [flops_term(family) for family in BOUND_BY_ARITHMETIC]
    streaming = restricted(base, [each for each in base.terms if each not in arithmetic])
    kept = TERMS if base.mode == "eager" else arithmetic
    single = with_stand_ins(_overlaid(streaming, restricted(mean, kept)))
    own = [_own(single, with_stand_ins(restricted(each, kept)), source=OPERATORS) for each in eager]
    return [replace(each, dtype="float32", source=OPERATORS) for each in (single, *own)]


def _unmeasured_half_rows(rows: Sequence[Constants]) -> list[Constants]:
    """Half precision on GPUs of which only float32 was measured: those that a power limit slows.

    A GPU that reaches less of its float32 peak than others also reaches less of its half
    precision peak. That is assumed of the slow ones: on the two GPUs that were measured in both
    precisions, which are not slow, the factors agree within a sixth.
    """
    single = [each for each in rows if each.dtype == "float32" and each.device != ANY_DEVICE]
    term = flops_term(Family.LINEAR)
    eager = [each.value(term) for each in single if each.mode == "eager"]
    usual = float(np.median([each for each in eager if each is not None]))
    found: list[Constants] = []
    for half in rows:
        if half.device != ANY_DEVICE or half.dtype not in _HALF:
            continue
        known = {each.device for each in rows if each.dtype in _HALF} | set(_SAME_CHIP)
        for own in single:
            reached = own.value(term)
            if own.mode != half.mode or own.device in known or reached is None:
                continue
            scales = np.array(
                [reached / usual if each.endswith(".flops") else 1.0 for each in half.terms]
            )
            found.append(
                replace(
                    half,
                    device=own.device,
                    values=half.values * scales,
                    covariance=half.covariance * np.outer(scales, scales),
                    source=OPERATORS,
                )
            )
    return found


def _same_chip_rows(rows: Sequence[Constants]) -> list[Constants]:
    """Cards that differ from a measured one in their memory only."""
    known = {(each.device, each.dtype, each.mode) for each in rows}
    return [
        replace(each, device=device)
        for device, measured in _SAME_CHIP.items()
        for each in rows
        if each.device == measured and (device, each.dtype, each.mode) not in known
    ]


def _processor_rows(measured: Sequence[tuple[VisionRuns, Constants]]) -> list[Constants]:
    """Both CPUs, and their mean for CPUs nobody measured."""
    fits = [fit for _, fit in measured]
    mean = pooled(
        fits,
        dtype="float32",
        mode=fits[0].mode,
        source=VISION,
        device_sd=_device_sd(measured),
    )
    rows = [*fits, replace(mean, threads=fits[0].threads)]
    return [with_stand_ins(each) for each in rows]


def _operator_fits() -> list[Constants]:
    """Constants of every device, dtype and mode of the public tables of operators."""
    catalogue = Catalogue.packaged()
    table = operator_rows().select(
        ["op", "family", "device", "dtype", "mode", "latency_us", "flops", "bytes"]
    )
    keys = table.group_by(["device", "dtype", "mode"]).aggregate([]).to_pylist()
    fits: list[Constants] = []
    for key in sorted(keys, key=lambda each: (each["mode"], each["device"], each["dtype"])):
        if key["dtype"] not in {"float32", "bfloat16", "fp8"}:
            continue
        rows = table
        for name, value in key.items():
            rows = rows.filter(pc.equal(rows[name], value))
        device = Device.of_gpu(catalogue.gpu(key["device"]))
        fits.append(_operator_fit(rows, device, key["dtype"], key["mode"]))
    return fits


def _operator_fit(rows: pa.Table, device: Device, dtype: str, mode: str) -> Constants:
    rows = _thinned(rows)
    names = np.array(rows["family"].to_pylist())
    flops, moved = rows["flops"].to_numpy(), rows["bytes"].to_numpy()
    families = [family for family in Family if family.value in set(names)]
    groups = np.zeros(len(names), dtype=np.intp)
    for i, family in enumerate(families):
        members = np.flatnonzero(names == family.value)
        groups[members] = i * _GROUPS_OF_A_FAMILY + np.arange(len(members)) % _GROUPS_OF_A_FAMILY
    return fit_family_constants(
        FamilyTotals(
            flops={
                each: np.where(names == each.value, flops, 0.0)
                for each in families
                if each in BOUND_BY_ARITHMETIC
            },
            bytes_moved={each: np.where(names == each.value, moved, 0.0) for each in families},
            launches=np.ones(len(names)),
        ),
        1e-6 * rows["latency_us"].to_numpy(),
        groups=groups,
        device=device,
        dtype=dtype,
        mode=mode,
        source=OPERATORS if mode == "eager" else GEMM,
    )


def _thinned(rows: pa.Table) -> pa.Table:
    """Evenly spaced rows of each operator in the order of its FLOPs and bytes."""
    parts: list[pa.Table] = []
    for name in sorted({str(each) for each in rows["op"].to_pylist()}):
        part = rows.filter(pc.equal(rows["op"], pa.scalar(name)))
        part = part.sort_by([("flops", "ascending"), ("bytes", "ascending")])
        n = min(part.num_rows, _ROWS_OF_AN_OPERATOR)
        parts.append(part.take(np.linspace(0, part.num_rows - 1, n).astype(np.int64)))
    return pa.concat_tables(parts)


def _device_sd(fits: Sequence[tuple[VisionRuns, Constants]]) -> float:
    """Root mean square of the median log error of each device from the others' constants."""
    medians: list[float] = []
    for run, fit in fits:
        others = [each for other, each in fits if other.device != run.device]
        mean = pooled(others, dtype=fit.dtype, mode=fit.mode, source=VISION)
        log_seconds, _ = FamilyModel(mean, run.device).predict_totals(run.totals)
        medians.append(float(np.median(np.log(run.seconds) - log_seconds)))
    return float(np.sqrt(np.mean(np.square(medians))))


def _overlaid(base: Constants, better: Constants) -> Constants:
    """`better` where it has a term, else `base`; errors of whole models are those of `base`."""
    joined = completed(better, base)
    return replace(base, terms=joined.terms, values=joined.values, covariance=joined.covariance)


def _own(base: Constants, measured: Constants, *, source: str) -> Constants:
    """A row of the device of `measured`, which holds terms that are better than those of `base`."""
    row = _overlaid(base, measured)
    return replace(row, device=measured.device, source=source, n=measured.n)


def _linear(constants: Constants) -> Constants:
    return restricted(constants, [flops_term(Family.LINEAR), bytes_term(Family.LINEAR)])


def _is_gpu(runs: VisionRuns) -> bool:
    return runs.device.kind is DeviceKind.GPU
