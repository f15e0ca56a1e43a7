"""Constants that predict how language models are served, fitted to measured deployments.

Error bars, and how firmly constants are held, come from families that a fit has not seen;
`llm_posterior` does the fits. The module does not know where the rows come from.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from falcon_ray.errors import InputError
from falcon_ray.knowledge.constants import ANY_DEVICE, Constants
from falcon_ray.knowledge.llm.architecture import LlmArchitecture
from falcon_ray.knowledge.llm.deployments import LlmGpu
from falcon_ray.knowledge.llm.measured import MeasuredLlms
from falcon_ray.knowledge.llm.model import ENGINE, POOLED, WAITING_SHARE
from falcon_ray.knowledge.llm.posterior import chosen_evidence, fit_llms, held_out_residuals
from falcon_ray.space.configuration import FloatArray


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
    measured = MeasuredLlms.of_table(rows, architectures, gpus)
    families = sorted(set(measured.family))
    if len(families) < 2:
        raise InputError(
            f"only the family {', '.join(families)} was measured; error bars of unseen models "
            "need at least two"
        )
    evidence, residuals = chosen_evidence(measured)
    fitted = fit_llms(measured, evidence)
    covariance = fitted.covariance
    elsewhere = held_out_residuals(measured, measured.gpu_type, evidence, start=fitted)
    known = fitted.residuals(measured)
    engines = measured.engines
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
    # Deployments in which memory may keep requests waiting.
    waiting = measured.concurrency > WAITING_SHARE * fitted.times(measured).cache_limit
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
    """The sd of one metric with all requests running, and with some waiting for memory."""
    few = len(set(family)) - 1
    _, inverse, counts = np.unique(family, return_inverse=True, return_counts=True)
    weight = 1.0 / counts[inverse]
    sds = np.array(
        [
            _predictive_sd(residual[chosen], weight[chosen], family[chosen])
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
        residual_sd=_predictive_sd(residual, weight, family),
        n=residual.size,
        source=source,
    )


def _predictive_sd(residual: FloatArray, weight: FloatArray, family: NDArray[np.str_]) -> float:
    """The sd of what a new family leaves unexplained, from that of families held out.

    What the rows of a family share is known from as many cases as there are families. That part
    is widened by a quantile of Student's t, with one degree of freedom less, over the normal's.
    """
    names = sorted(set(family))
    total = _heavy_sd(residual, weight)
    shared = np.mean([float(np.median(residual[family == name])) ** 2 for name in names])
    few = max(1, len(names) - 1)
    inflation = float(stats.t.ppf(0.9, few) / stats.norm.ppf(0.9))
    return float(np.sqrt(total**2 + (inflation**2 - 1) * min(float(shared), total**2)))


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
