"""Several opinions about serving a language model, each with the error that it makes.

"roofline" adds up ideal times with constants as they are expected without data, "calibrated" with
constants fitted to other families, "corrected" adds what those fits leave unexplained elsewhere,
and "constant" denies that candidates of one level differ but in the requests that share a GPU.
Errors and weights come from leaving out, one by one,
the families that were measured. The module knows neither prices nor service levels.

Notation: n deployments; metrics are "ttft_ms" and "tpot_ms"; logarithms are natural.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from falcon_ray.errors import InputError
from falcon_ray.knowledge.constants import Constants
from falcon_ray.knowledge.llm.architecture import LlmArchitecture
from falcon_ray.knowledge.llm.correction import LlmCorrection, correction_ratios
from falcon_ray.knowledge.llm.deployments import LlmDeployments
from falcon_ray.knowledge.llm.model import ENGINE, WAITING_SHARE, llm_times
from falcon_ray.knowledge.llm.posterior import CENTRES
from falcon_ray.knowledge.llm.predictor import LlmPrediction, LlmPredictor
from falcon_ray.knowledge.llm.terms import LlmTerms, llm_terms
from falcon_ray.knowledge.mixture import ExpectedMetric, Expert, ExpertMixture
from falcon_ray.space.configuration import FloatArray

METRICS = ("ttft_ms", "tpot_ms")
EXPERTS: tuple[str, ...] = ("roofline", "calibrated", "corrected", "constant")
_LOG_MS_PER_S = float(np.log(1e3))
_LEAST_SHARE = 1e-6
"""Of a request's time: a key operator that takes less is shown as taking this much."""
_MISSING = "the profile has no experts on serving language models; fit them by fit_llm_experts"


class LlmExperts:
    """Makes the mixture of any model's deployments from rows of `fit_llm_experts`.

    Raises:
        InputError: Rows are missing.
    """

    def __init__(self, constants: Iterable[Constants]) -> None:
        rows = list(constants)
        self._predictor = LlmPredictor(rows)
        self._errors = {
            (each.mode, metric): each
            for each in rows
            for metric in METRICS
            if each.predictor == f"llm.expert.{metric}"
        }
        weights = {each.mode: each for each in rows if each.predictor == "llm.expert"}
        corrections = {each.mode: each for each in rows if each.predictor == "llm.correction"}
        if (
            set(weights) != set(EXPERTS)
            or len(self._errors) != len(EXPERTS) * len(METRICS)
            or set(corrections) != set(METRICS)
        ):
            raise InputError(_MISSING)
        self._weights = {name: _required(row, "weight") for name, row in weights.items()}
        self._corrections = {
            metric: LlmCorrection.of_constants(row) for metric, row in corrections.items()
        }
        self._seen = {each.device for each in rows if each.predictor == "llm.seen"}
        self._new_gpu_sd = {
            metric: _required(each, "new_gpu_sd")
            for each in rows
            for metric in METRICS
            if each.predictor == f"llm.{metric.removesuffix('_ms')}"
        }

    def mixture(self, architecture: LlmArchitecture, deployments: LlmDeployments) -> ExpertMixture:
        """What is expected of n deployments of one model.

        Memory is that of weights, the engine's own and the cache of all requests under way.
        The seconds of the key operators add up to those of one request over the concurrency.
        """
        terms = llm_terms(architecture, deployments)
        prediction = self._predictor.predict(architecture, deployments)
        log_memory_share = np.log(prediction.memory_bytes / terms.memory_bytes)
        means = self._means(architecture, deployments, terms, prediction, log_memory_share)
        waiting = waits_for_memory(
            terms, concurrency=deployments.concurrency, memory_bytes=prediction.memory_bytes
        )
        new = deployments.gpu_facts([float(gpu.name not in self._seen) for gpu in deployments.gpus])
        experts: list[Expert] = []
        for name in EXPERTS:
            metrics: dict[str, ExpectedMetric] = {}
            for metric in METRICS:
                row = self._errors[name, metric]
                running_sd, waiting_sd = _required(row, "running_sd"), _required(row, "waiting_sd")
                metrics[metric] = ExpectedMetric(
                    mean=means[name][metric],
                    offset_sd=_required(row, "offset_sd"),
                    residual_sd=np.hypot(
                        np.where(waiting, waiting_sd, running_sd), new * self._new_gpu_sd[metric]
                    ),
                )
            experts.append(Expert(name=name, weight=self._weights[name], metrics=metrics))
        return ExpertMixture(
            experts=tuple(experts),
            log_memory_share=log_memory_share,
            operator_seconds=operator_seconds(prediction, deployments),
        )

    def _means(
        self,
        architecture: LlmArchitecture,
        rows: LlmDeployments,
        terms: LlmTerms,
        prediction: LlmPrediction,
        log_memory_share: FloatArray,
    ) -> dict[str, dict[str, FloatArray]]:
        """Expected logs by expert and metric, shapes (n,)."""
        n = rows.n_gpus.size
        raw = llm_times(
            terms,
            concurrency=rows.concurrency,
            osl=rows.osl,
            pooled={name: float(np.log(value)) for name, value in CENTRES.items()},
            engine={name: np.zeros(n) for name in ENGINE},
        )
        calibrated = {"ttft_ms": prediction.log_ttft_ms, "tpot_ms": prediction.log_tpot_ms}
        ratios = correction_ratios(
            terms,
            concurrency=rows.concurrency,
            osl=rows.osl,
            log_ttft_s=prediction.log_ttft_ms - _LOG_MS_PER_S,
            log_tpot_s=prediction.log_tpot_ms - _LOG_MS_PER_S,
            log_memory_share=log_memory_share,
        )
        corrected = {
            metric: calibrated[metric]
            + correct(
                ratios,
                engines=rows.backends,
                engine=rows.backend,
                gpus=[gpu.name for gpu in rows.gpus],
                gpu=rows.gpu,
                has_experts=architecture.n_experts > 0,
            )
            for metric, correct in self._corrections.items()
        }
        load = np.log(rows.concurrency / rows.n_gpus)
        slopes = {
            metric: _required(self._errors["constant", metric], "slope") for metric in METRICS
        }
        constant = {
            metric: calibrated[metric].mean() + slope * (load - load.mean())
            for metric, slope in slopes.items()
        }
        return {
            "roofline": {
                "ttft_ms": np.log(raw.ttft_s) + _LOG_MS_PER_S,
                "tpot_ms": np.log(raw.tpot_s) + _LOG_MS_PER_S,
            },
            "calibrated": calibrated,
            "corrected": corrected,
            "constant": constant,
        }


def waits_for_memory(
    terms: LlmTerms, *, concurrency: FloatArray, memory_bytes: FloatArray
) -> NDArray[np.bool_]:
    """Where requests may wait until others give memory back, shape (n,).

    Args:
        terms: Of n deployments.
        concurrency: Requests under way, shape (n,).
        memory_bytes: That all of them need at once on one GPU, shape (n,).
    """
    cache = concurrency * terms.cache_bytes / terms.ranks
    free = terms.memory_bytes - (memory_bytes - cache)
    return cache > WAITING_SHARE * free


def operator_seconds(
    prediction: LlmPrediction, deployments: LlmDeployments
) -> Mapping[str, FloatArray]:
    """Seconds that one request takes of each key operator, over the concurrency, shapes (n,).

    All of the wait for the first token counts as "prefill". One over the sum is the rate of the
    closed loop. Operators that take no time anywhere are left out.
    """
    rows = deployments
    per_token = {name: part * (rows.osl - 1) for name, part in prediction.terms.items()}
    first = np.exp(prediction.log_ttft_ms - _LOG_MS_PER_S)
    per_token["prefill"] = per_token.get("prefill", np.zeros_like(first)) + first
    least = _LEAST_SHARE / np.exp(prediction.log_throughput_rps)
    return {
        name: np.maximum(seconds / rows.concurrency, least)
        for name, seconds in per_token.items()
        if seconds.any()
    }


def _required(constants: Constants, term: str) -> float:
    value = constants.value(term)
    if value is None:
        raise InputError(f"{_MISSING} again: {constants.predictor} lacks {term}")
    return value
