"""How far each expert on served language models is off, from families that it has not seen.

An error has a part that all deployments of a model share, which one measurement removes, and a
rest. Both are estimated by leaving out, one by one, the families that were measured, and so is how
much each expert is believed and how strongly errors are corrected. There are few families, so the
shared part is widened.

Notation: n rows; residuals are natural logs of measured over expected.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from falcon_ray.knowledge.constants import ANY_DEVICE, Constants
from falcon_ray.knowledge.llm.architecture import LlmArchitecture
from falcon_ray.knowledge.llm.correction import (
    corrected_residual,
    correction_constants,
    correction_ratios,
    fit_correction,
)
from falcon_ray.knowledge.llm.deployments import LlmGpu
from falcon_ray.knowledge.llm.experts import EXPERTS, waits_for_memory
from falcon_ray.knowledge.llm.fit import fit_llm_constants
from falcon_ray.knowledge.llm.measured import CONFIGURATION_COLUMNS, MeasuredLlms
from falcon_ray.knowledge.llm.model import ENGINE, POOLED, scaled_reserve
from falcon_ray.knowledge.llm.posterior import CENTRES, LlmFit, chosen_evidence, fit_llms
from falcon_ray.space.configuration import FloatArray

_PLACES = {"tpot_ms": 0, "ttft_ms": 1}  # in `MeasuredLlms.log_seconds`
_SLOPE_SDS = (0.05, 0.1, 0.2, 0.4)
"""How strongly errors may be corrected; families left out choose."""
_CONSTANT_WEIGHT = 0.1
_TRIALS = 3.0
"""How many independent trials a family counts as when experts are compared: half of six, as
likelihoods of dependent errors are too sure."""
_TAIL = 4.0  # degrees of freedom of the t distribution under which experts are compared
_FEWEST = 30  # rows from which an sd of their own is taken


@dataclass(frozen=True, slots=True, eq=False)
class _Left:
    """What one expert leaves unexplained of one metric, in families it has not seen, shape (n,)."""

    residual: FloatArray
    slope: float | None = None
    """Of the expert that is called constant."""


def fit_llm_experts(
    rows: pd.DataFrame,
    architectures: Mapping[str, LlmArchitecture],
    gpus: Mapping[str, LlmGpu],
    *,
    source: str,
) -> list[Constants]:
    """Fit everything that `LlmExperts` needs; arguments and errors as in `fit_llm_constants`.

    Returns:
        The rows of `fit_llm_constants`; "llm.correction" with one row for each metric;
        "llm.expert" with the weight of each expert; and for each expert and metric its errors,
        "llm.expert.ttft_ms" and "llm.expert.tpot_ms".
    """
    constants = fit_llm_constants(rows, architectures, gpus, source=source)
    # The order that measured rows are kept in.
    rows = rows.drop_duplicates(subset=[*CONFIGURATION_COLUMNS]).sort_values("model", kind="stable")
    measured = MeasuredLlms.of_table(rows, architectures, gpus)
    load = np.log(measured.concurrency / rows["n_gpus"].to_numpy(dtype=np.float64))
    workload = np.asarray(rows.groupby(["model", "isl", "osl"]).ngroup(), dtype=np.int64)
    evidence, held_out = chosen_evidence(measured)
    fitted = fit_llms(measured, evidence)
    raw = LlmFit(
        np.log([CENTRES[name] for name in POOLED]),
        np.zeros((len(ENGINE), len(measured.engines))),
        np.zeros((0, 0)),
    )
    waiting = _waiting(measured, fitted)
    folds = _folds(measured, evidence, fitted)
    left: dict[tuple[str, str], _Left] = {}
    ratios = _ratios(measured, fitted)
    for metric, place in _PLACES.items():
        slope_sd, corrected = _chosen_correction(measured, folds, place)
        constants.append(
            correction_constants(
                metric,
                fit_correction(
                    measured, ratios, fitted.residuals(measured)[place], slope_sd=slope_sd
                ),
                n=measured.osl.size,
                source=source,
            )
        )
        slope, constant = _constant(measured, load, workload, held_out[place], place)
        left["roofline", metric] = _Left(raw.residuals(measured)[place])
        left["calibrated", metric] = _Left(held_out[place])
        left["corrected", metric] = _Left(corrected)
        left["constant", metric] = _Left(constant, slope)
    return [*constants, *_errors(left, measured, waiting, source)]


@dataclass(frozen=True, slots=True, eq=False)
class _Fold:
    """One family left out, and the fit to the others."""

    out: NDArray[np.bool_]
    known: MeasuredLlms
    unknown: MeasuredLlms
    fit: LlmFit


def _folds(rows: MeasuredLlms, evidence: float, start: LlmFit) -> list[_Fold]:
    folds: list[_Fold] = []
    for name in sorted(set(rows.family)):
        out = np.asarray(rows.family == name)
        known = rows.take(~out)
        folds.append(_Fold(out, known, rows.take(out), fit_llms(known, evidence, start=start)))
    return folds


def _chosen_correction(
    rows: MeasuredLlms, folds: list[_Fold], place: int
) -> tuple[float, FloatArray]:
    """The strength with which families left out are predicted best, and what it leaves of them.

    Best is the least mean absolute log-error, the same weight for each family.
    """
    prepared = [
        (
            fold,
            _ratios(fold.known, fold.fit),
            fold.fit.residuals(fold.known)[place],
            _ratios(fold.unknown, fold.fit),
            fold.fit.residuals(fold.unknown)[place],
        )
        for fold in folds
    ]
    best: tuple[float, float, FloatArray] | None = None
    for slope_sd in _SLOPE_SDS:
        left = np.zeros(rows.osl.size)
        errors: list[float] = []
        for fold, ratios, residual, new_ratios, new_residual in prepared:
            names, values, _ = fit_correction(fold.known, ratios, residual, slope_sd=slope_sd)
            left[fold.out] = corrected_residual(
                fold.unknown, new_ratios, new_residual, names, values
            )
            errors.append(float(np.abs(left[fold.out]).mean()))
        error = float(np.mean(errors))
        if best is None or error < best[0]:
            best = (error, slope_sd, left)
    assert best is not None
    return best[1], best[2]


def _constant(
    rows: MeasuredLlms,
    load: FloatArray,
    workload: NDArray[np.int64],
    held_out: FloatArray,
    place: int,
) -> tuple[float, FloatArray]:
    """Slope of a log latency over log requests per GPU, and what the other families' leaves.

    The level is what the calibrated expert, without the family, expects of a workload's
    deployments on average. Families weigh the same, and every workload has its own level.
    """
    logs = rows.log_seconds[place]
    level = _group_means(logs - held_out, workload)
    moved = load - _group_means(load, workload)
    centred = logs - _group_means(logs, workload)
    own = [np.asarray(rows.family == name) for name in sorted(set(rows.family))]
    variances = np.array([_mean(moved[each] ** 2) for each in own])
    covariances = np.array([_mean(moved[each] * centred[each]) for each in own])

    def slope(chosen: NDArray[np.bool_]) -> float:
        variance = float(variances[chosen].sum())
        return float(covariances[chosen].sum()) / variance if variance > 0 else 0.0

    residual = logs - level
    for i, each in enumerate(own):
        residual[each] -= slope(np.arange(len(own)) != i) * moved[each]
    return slope(np.ones(len(own), dtype=np.bool_)), residual


def _mean(values: FloatArray) -> float:
    return float(values.mean())


def _group_means(values: FloatArray, group: NDArray[np.int64]) -> FloatArray:
    """The mean of each row's group, shape (n,)."""
    return (np.bincount(group, values) / np.bincount(group))[group]


def _errors(
    left: Mapping[tuple[str, str], _Left],
    rows: MeasuredLlms,
    waiting: NDArray[np.bool_],
    source: str,
) -> list[Constants]:
    """Rows of errors and weights."""
    families = sorted(set(rows.family))
    n, few = rows.osl.size, len(families) - 1
    found: list[Constants] = []
    likelihood = dict.fromkeys(EXPERTS, 0.0)
    for (name, metric), each in left.items():
        offset_sd, sds = _split(each.residual, rows.family, waiting)
        total = np.hypot(offset_sd, np.where(waiting, sds[1], sds[0]))
        density = np.asarray(stats.t.logpdf(each.residual, _TAIL, scale=total), dtype=np.float64)
        likelihood[name] += float(
            np.mean([_mean(density[rows.family == family]) for family in families])
        )
        values = {"offset_sd": offset_sd, "running_sd": sds[0], "waiting_sd": sds[1]}
        variances = {term: value**2 / few for term, value in values.items()}
        if each.slope is not None:
            values["slope"], variances["slope"] = each.slope, 0.0
        found.append(_row(f"llm.expert.{metric}", name, values, variances, n=n, source=source))
    informed = [name for name in EXPERTS if name != "constant"]
    belief = np.exp(_TRIALS * np.array([likelihood[name] for name in informed]))
    belief *= (1 - _CONSTANT_WEIGHT) / belief.sum()
    weights = dict(zip(informed, belief.tolist(), strict=True)) | {"constant": _CONSTANT_WEIGHT}
    found += [
        _row("llm.expert", name, {"weight": weight}, {"weight": 0.0}, n=n, source=source)
        for name, weight in weights.items()
    ]
    return found


def _row(
    predictor: str,
    mode: str,
    values: Mapping[str, float],
    variances: Mapping[str, float],
    *,
    n: int,
    source: str,
) -> Constants:
    return Constants(
        predictor=predictor,
        device=ANY_DEVICE,
        dtype="*",
        mode=mode,
        terms=tuple(values),
        values=np.array([values[term] for term in values]),
        covariance=np.diag([variances[term] for term in values]),
        residual_sd=0.0,
        n=n,
        source=source,
    )


def _split(
    residual: FloatArray, family: NDArray[np.str_], waiting: NDArray[np.bool_]
) -> tuple[float, tuple[float, float]]:
    """The sd of what a family shares, and of the rest with all requests running or some waiting.

    The first is known from as many cases as there are families: it is widened by a quantile of
    Student's t, with one degree of freedom less, over the normal's.
    """
    names, place, counts = np.unique(family, return_inverse=True, return_counts=True)
    medians = np.array([np.median(residual[place == i]) for i in range(names.size)])
    few = max(1, names.size - 1)
    inflation = float(stats.t.ppf(0.9, few) / stats.norm.ppf(0.9))
    rest, weight = residual - medians[place], 1.0 / counts[place]
    sds = [
        _sd(rest[chosen], weight[chosen]) if chosen.sum() >= _FEWEST else _sd(rest, weight)
        for chosen in (~waiting, waiting)
    ]
    return inflation * float(np.sqrt(np.mean(medians**2))), (sds[0], sds[1])


def _sd(residual: FloatArray, weight: FloatArray) -> float:
    """Of a normal whose 80 and 95 % intervals are, on average, as wide as the data's."""
    order = np.argsort(np.abs(residual))
    share = np.cumsum(weight[order]) / weight.sum()
    widths = np.interp([0.8, 0.95], share, np.abs(residual)[order])
    return float(np.mean(widths / stats.norm.ppf([0.9, 0.975])))


def _memory_bytes(rows: MeasuredLlms, fit: LlmFit) -> FloatArray:
    """What all requests under way need at once on one GPU, shape (n,)."""
    reserve = np.exp(
        fit.pooled[POOLED.index("reserve_bytes")]
        + fit.engine[ENGINE.index("reserve_bytes")][rows.engine]
    )
    terms = rows.terms
    cache = rows.concurrency * terms.cache_bytes / terms.ranks
    return terms.weight_bytes + scaled_reserve(terms, reserve) + cache


def _waiting(rows: MeasuredLlms, fit: LlmFit) -> NDArray[np.bool_]:
    return waits_for_memory(
        rows.terms, concurrency=rows.concurrency, memory_bytes=_memory_bytes(rows, fit)
    )


def _ratios(rows: MeasuredLlms, fit: LlmFit) -> FloatArray:
    times = fit.times(rows)
    return correction_ratios(
        rows.terms,
        concurrency=rows.concurrency,
        osl=rows.osl,
        log_ttft_s=np.log(times.ttft_s),
        log_tpot_s=np.log(times.tpot_s),
        log_memory_share=np.log(_memory_bytes(rows, fit) / rows.terms.memory_bytes),
    )
