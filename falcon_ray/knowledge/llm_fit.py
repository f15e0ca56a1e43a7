"""Fits what engines make of ideal times to measured deployments of language models.

Every constant is fitted on the logarithm and held near an order of magnitude, and an engine's
factors near those of all engines, because few families of models have been measured. Error bars
come from families that the fit has not seen. The module does not know where the rows come from.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import least_squares

from falcon_ray.errors import InputError
from falcon_ray.knowledge.constants import ANY_DEVICE, Constants
from falcon_ray.knowledge.llm_architecture import LlmArchitecture
from falcon_ray.knowledge.llm_deployments import IntArray, LlmDeployments, LlmGpu
from falcon_ray.knowledge.llm_model import ENGINE, POOLED, WAITING_SHARE, LlmTimes, llm_times
from falcon_ray.knowledge.llm_terms import LlmTerms, llm_terms
from falcon_ray.space.configuration import FloatArray

_CENTRES: Mapping[str, tuple[float, float]] = {
    "weights": (1.3, 0.5),
    "expert_weights": (1.3, 0.5),
    "four_bit": (1.2, 0.1),
    "cache": (1.3, 0.5),
    "linear": (1.8, 0.5),
    "attention": (1.8, 0.5),
    "exchange": (1.3, 0.5),
    "kernel_s": (5e-6, 1.0),
    "all_reduce_s": (5e-6, 1.0),
    "step_s": (4e-4, 1.0),
    "request_s": (1e-5, 1.0),
    "prefill_linear": (1.8, 0.5),
    "prefill_attention": (1.8, 0.5),
    "prefill_exchange": (1.3, 0.5),
    "prefill_move": (1.0, 1.0),
    "prefill_load": (1.0, 1.0),
    "interference": (1.0, 0.2),
    "burst": (0.2, 1.0),
    "first_token_steps": (1.0, 1.0),
    "first_token_s": (2e-2, 1.0),
    "reserve_bytes": (12 * 2.0**30, 0.3),
    "sharpness": (6.0, 0.3),
}
"""Where a constant is expected before any data, and the sd of its logarithm: half to three quarters
of a peak, some microseconds for a launch. Data moves them; they decide where data is silent. They
were set by hand, by people who had seen measurements, so they are no evidence."""
_ENGINE_SD: Mapping[str, float] = {
    "overhead": 0.15,
    "interference": 0.2,
    "step": 0.05,
    "first_token_s": 1.0,
    "reserve_bytes": 0.2,
}
"""How far the engines are expected apart."""
_NOISE = 0.3
"""Log-error up to which a residual counts by its square, beyond by its size: tails are heavy."""
_FAMILY_EVIDENCE = 3.0
"""How many independent rows a family counts as against the centres: what is special to a family
is shared by all of its rows."""
_METRICS = ("tpot", "ttft", "request")
CONFIGURATION_COLUMNS = (
    "model",
    "gpu_type",
    "backend",
    "precision",
    "n_gpus",
    "expert_parallel",
    "attention_dp",
    "concurrency",
    "isl",
    "osl",
)
"""What makes two measured deployments the same one."""
_MEASURED_COLUMNS = ("family", "tpot_ms", "ttft_ms", "throughput_rps")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Rows:
    """Measured deployments of several models; columns have length n."""

    terms: LlmTerms
    concurrency: FloatArray
    osl: FloatArray
    engine: IntArray
    family: NDArray[np.str_]
    gpu_type: NDArray[np.str_]
    log_seconds: FloatArray  # of `_METRICS`, shape (3, n)

    def take(self, chosen: NDArray[np.bool_]) -> "_Rows":
        terms = LlmTerms(
            **{each.name: getattr(self.terms, each.name)[chosen] for each in fields(LlmTerms)}
        )
        return _Rows(
            terms=terms,
            concurrency=self.concurrency[chosen],
            osl=self.osl[chosen],
            engine=self.engine[chosen],
            family=self.family[chosen],
            gpu_type=self.gpu_type[chosen],
            log_seconds=self.log_seconds[:, chosen],
        )

    def times(self, fitted: "_Fitted") -> LlmTimes:
        return llm_times(
            self.terms,
            concurrency=self.concurrency,
            osl=self.osl,
            pooled=dict(zip(POOLED, fitted.pooled, strict=True)),
            engine={name: fitted.engine[i][self.engine] for i, name in enumerate(ENGINE)},
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Fitted:
    """Logs of the pooled constants, shape (p,), and of engines' factors, shape (f, engines)."""

    pooled: FloatArray
    engine: FloatArray


def fit_llm_constants(
    rows: pd.DataFrame,
    architectures: Mapping[str, LlmArchitecture],
    gpus: Mapping[str, LlmGpu],
    *,
    source: str,
) -> list[Constants]:
    """Fit everything that `LlmPredictor` needs.

    Args:
        rows: Measured deployments with the columns of a configuration (`model`, `gpu_type`,
            `backend`, `precision`, `n_gpus`, `expert_parallel`, `attention_dp`, `concurrency`,
            `isl`, `osl`) and `family`, `tpot_ms`, `ttft_ms`, `throughput_rps`. Equal rows count
            once.
        architectures: By the names in `model`.
        gpus: By the names in `gpu_type`.
        source: Key of the manifest's sources.

    Returns:
        One row of predictor "llm" for all engines and one for each, with logarithms as values;
        of "llm.tpot", "llm.ttft" and "llm.throughput" the sd of what they leave unexplained, from
        families and types of GPU held out; and one of "llm.seen" for each type of GPU.

    Raises:
        InputError: A column, an architecture or the facts of a GPU are missing, or fewer than
            two families were measured, so that nothing can be held out.
    """
    engines = tuple(sorted(str(each) for each in rows["backend"].unique()))
    measured = _measured(rows, architectures, gpus, engines)
    families = sorted(set(measured.family))
    if len(families) < 2:
        raise InputError(
            f"only the family {', '.join(families)} was measured; error bars of unseen models "
            "need at least two"
        )
    fitted, covariance = _fit(measured, len(engines))
    residuals = _held_out(measured, measured.family, len(engines))
    elsewhere = _held_out(measured, measured.gpu_type, len(engines))
    known = _residuals(measured, fitted)
    n = int(measured.osl.size)
    p = len(POOLED)
    constants = [_constants("*", POOLED, fitted.pooled, covariance[:p, :p], n=n, source=source)]
    for index, engine in enumerate(engines):
        place = p + np.arange(len(ENGINE)) * len(engines) + index
        constants.append(
            _constants(
                engine,
                ENGINE,
                fitted.engine[:, index],
                covariance[np.ix_(place, place)],
                n=int((measured.engine == index).sum()),
                source=source,
            )
        )
    waiting = _waits(measured, fitted)
    for index, metric in enumerate(("tpot", "ttft", "throughput")):
        constants.append(
            _error(
                metric,
                residuals[index],
                waiting,
                measured.family,
                new_gpu_sd=_excess_sd(elsewhere[index], known[index]),
                source=source,
            )
        )
    empty = np.zeros(0)
    for name, count in zip(*np.unique(measured.gpu_type, return_counts=True), strict=True):
        constants.append(
            Constants(
                predictor="llm.seen",
                device=str(name),
                dtype="*",
                mode="*",
                terms=(),
                values=empty,
                covariance=np.zeros((0, 0)),
                residual_sd=0.0,
                n=int(count),
                source=source,
            )
        )
    return constants


def _measured(
    rows: pd.DataFrame,
    architectures: Mapping[str, LlmArchitecture],
    gpus: Mapping[str, LlmGpu],
    engines: tuple[str, ...],
) -> _Rows:
    """Check the rows and take their terms, model by model."""
    missing = [name for name in (*CONFIGURATION_COLUMNS, *_MEASURED_COLUMNS) if name not in rows]
    if missing:
        raise InputError(f"measured deployments lack the columns {', '.join(missing)}")
    rows = rows.drop_duplicates(subset=[*CONFIGURATION_COLUMNS]).sort_values("model", kind="stable")
    models = list(dict.fromkeys(str(each) for each in rows["model"]))
    unknown = [model for model in models if model not in architectures]
    if unknown:
        raise InputError(f"the architecture of {unknown[0]} is missing; give its config.json")
    parts: list[LlmTerms] = []
    for model in models:
        columns = rows[rows["model"] == model]
        deployments = LlmDeployments.of_columns(
            {name: columns[name].to_numpy() for name in CONFIGURATION_COLUMNS}, gpus
        )
        parts.append(llm_terms(architectures[model], deployments))
    terms = LlmTerms(
        **{
            each.name: np.concatenate([getattr(part, each.name) for part in parts])
            for each in fields(LlmTerms)
        }
    )
    request_s = rows["concurrency"].to_numpy() / rows["throughput_rps"].to_numpy()
    return _Rows(
        terms=terms,
        concurrency=rows["concurrency"].to_numpy(dtype=np.float64),
        osl=rows["osl"].to_numpy(dtype=np.float64),
        engine=np.array([engines.index(str(each)) for each in rows["backend"]], dtype=np.int64),
        family=rows["family"].to_numpy(dtype=str),
        gpu_type=rows["gpu_type"].to_numpy(dtype=str),
        log_seconds=np.log(
            np.stack(
                [rows["tpot_ms"].to_numpy() / 1e3, rows["ttft_ms"].to_numpy() / 1e3, request_s]
            )
        ),
    )


def _residuals(rows: _Rows, fitted: _Fitted) -> FloatArray:
    """Log of measured over predicted, shape (3, n)."""
    times = rows.times(fitted)
    return rows.log_seconds - np.log(np.stack([times.tpot_s, times.ttft_s, times.request_s]))


def _held_out(rows: _Rows, group: NDArray[np.str_], n_engines: int) -> FloatArray:
    """Residuals of every row by a fit that has not seen its group, shape (3, n)."""
    residuals = np.zeros_like(rows.log_seconds)
    for name in sorted(set(group)):
        out = group == name
        if not out.all():
            known, _ = _fit(rows.take(~out), n_engines)
            residuals[:, out] = _residuals(rows.take(out), known)
    return residuals


def _fit(rows: _Rows, n_engines: int) -> tuple[_Fitted, FloatArray]:
    """Maximum a posteriori, with the covariance of the logs by Gauss and Newton."""
    p, f = len(POOLED), len(ENGINE)
    centre = np.concatenate(
        [np.log([_CENTRES[name][0] for name in POOLED]), np.zeros(f * n_engines)]
    )
    spread = np.array(
        [_CENTRES[name][1] for name in POOLED]
        + [_ENGINE_SD[name] for name in ENGINE for _ in range(n_engines)]
    )
    _, inverse, counts = np.unique(rows.family, return_inverse=True, return_counts=True)
    weight = np.sqrt(counts.mean() / counts[inverse])
    scale = weight / _NOISE
    hold = np.sqrt(counts.mean() / _FAMILY_EVIDENCE)

    def misfit(z: FloatArray) -> FloatArray:
        values = centre + spread * z
        fitted = _Fitted(values[:p], values[p:].reshape(f, n_engines))
        return np.concatenate([(scale * _residuals(rows, fitted)).ravel(), hold * z])

    found = least_squares(
        misfit, np.zeros_like(centre), loss="soft_l1", max_nfev=50, xtol=1e-5, ftol=1e-5
    )
    values = centre + spread * found.x
    jacobian = np.asarray(found.jac, dtype=np.float64) / float(hold)
    precision: FloatArray = jacobian.T @ jacobian
    covariance = np.asarray(np.linalg.inv(precision), dtype=np.float64)
    return _Fitted(values[:p], values[p:].reshape(f, n_engines)), covariance * np.outer(
        spread, spread
    )


def _waits(rows: _Rows, fitted: _Fitted) -> NDArray[np.bool_]:
    """Deployments in which memory may keep requests waiting."""
    return rows.concurrency > WAITING_SHARE * rows.times(fitted).cache_limit


def _constants(
    engine: str,
    terms: tuple[str, ...],
    values: FloatArray,
    covariance: FloatArray,
    *,
    n: int,
    source: str,
) -> Constants:
    return Constants(
        predictor="llm",
        device=ANY_DEVICE,
        dtype="*",
        mode=engine,
        terms=terms,
        values=values,
        covariance=covariance,
        residual_sd=0.0,
        n=n,
        source=source,
    )


def _error(
    metric: str,
    residual: FloatArray,
    waiting: NDArray[np.bool_],
    family: NDArray[np.str_],
    *,
    new_gpu_sd: float,
    source: str,
) -> Constants:
    """The sd of one metric with all requests running, and with some waiting for memory.

    A quantile of Student's t with as many degrees of freedom as families can differ in, over the
    normal's, stands for how few families there are.
    """
    few = len(set(family)) - 1
    inflation = float(stats.t.ppf(0.9, few) / stats.norm.ppf(0.9))
    _, inverse, counts = np.unique(family, return_inverse=True, return_counts=True)
    weight = 1.0 / counts[inverse]
    sds = np.array(
        [
            inflation * _heavy_sd(residual[chosen], weight[chosen])
            for chosen in (each if each.any() else ~each for each in (~waiting, waiting))
        ]
    )
    return Constants(
        predictor=f"llm.{metric}",
        device=ANY_DEVICE,
        dtype="*",
        mode="*",
        terms=("running_sd", "waiting_sd", "new_gpu_sd"),
        values=np.array([*sds, new_gpu_sd]),
        covariance=np.diag([*(sds**2 / few), new_gpu_sd**2]),
        residual_sd=inflation * _heavy_sd(residual, weight),
        n=residual.size,
        source=source,
    )


def _excess_sd(elsewhere: FloatArray, known: FloatArray) -> float:
    """How much more is unexplained on a type of GPU that the fit has not seen."""
    even = np.ones(elsewhere.size)
    return float(np.sqrt(max(0.0, _heavy_sd(elsewhere, even) ** 2 - _heavy_sd(known, even) ** 2)))


def _heavy_sd(residual: FloatArray, weight: FloatArray) -> float:
    """The sd of a normal whose 80 and 95 % intervals are, on average, as wide as the data's.

    A root of the mean square would let few outliers widen every interval.
    """
    order = np.argsort(np.abs(residual))
    share = np.cumsum(weight[order]) / weight.sum()
    widths = np.interp([0.8, 0.95], share, np.abs(residual)[order])
    return float(np.mean(widths / stats.norm.ppf([0.9, 0.975])))
