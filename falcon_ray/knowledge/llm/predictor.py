"""What serving a language model will be like, before the first trial: latencies, rate, memory.

Terms computed from the architecture and from facts of GPUs, calibrated by constants that were
fitted to other models. The module holds no such constant: without them it knows nothing. Prices
and service levels are not its matter.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from falcon_ray.errors import InputError
from falcon_ray.knowledge.constants import ANY_DEVICE, Constants
from falcon_ray.knowledge.device import Device
from falcon_ray.knowledge.llm.architecture import LlmArchitecture
from falcon_ray.knowledge.llm.deployments import LlmDeployments, LlmGpu
from falcon_ray.knowledge.llm.model import (
    ENGINE,
    POOLED,
    WAITING_SHARE,
    LlmTimes,
    llm_times,
    scaled_reserve,
)
from falcon_ray.knowledge.llm.terms import llm_terms
from falcon_ray.knowledge.memory import probability_of_fitting
from falcon_ray.space.configuration import FloatArray

_METRICS = ("tpot", "ttft", "throughput")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LlmPrediction:
    """What is expected of n deployments; all arrays have shape (n,), logarithms are natural.

    Attributes:
        log_ttft_ms: Mean log of the time to the first token, waiting included.
        ttft_sd: Of it.
        log_tpot_ms: Mean log of the time between two tokens of an answer.
        tpot_sd: Of it.
        log_throughput_rps: Mean log of the requests per second of the closed loop.
        throughput_sd: Of it.
        memory_bytes: On one GPU, if the cache of all requests under way is held at once.
        probability_fits: That it can be.
        probability_starts: That the weights and the cache of one request fit.
        terms: What the time between two tokens consists of, in seconds, by name: the key
            operators. They add up to it.
        warnings: Where the knowledge is thin, one line each.
    """

    log_ttft_ms: FloatArray
    ttft_sd: FloatArray
    log_tpot_ms: FloatArray
    tpot_sd: FloatArray
    log_throughput_rps: FloatArray
    throughput_sd: FloatArray
    memory_bytes: FloatArray
    probability_fits: FloatArray
    probability_starts: FloatArray
    terms: Mapping[str, FloatArray]
    warnings: tuple[str, ...] = ()


class LlmPredictor:
    """Predicts from fitted constants; see `llm_fit.fit_llm_constants`.

    Raises:
        InputError: The constants hold nothing, or not everything, about language models.
    """

    def __init__(self, constants: Iterable[Constants]) -> None:
        own = [each for each in constants if each.predictor.split(".")[0] == "llm"]
        shared = [each for each in own if each.predictor == "llm" and each.mode == "*"]
        errors = {each.predictor.removeprefix("llm."): each for each in own}
        if not shared or any(name not in errors for name in _METRICS):
            raise InputError(
                "the profile knows nothing about serving language models; import one that does, "
                "or fit it by scripts/fit_profile"
            )
        self._pooled = {name: _required(shared[0], name) for name in POOLED}
        self._engines = {
            each.mode: {name: _required(each, name) for name in ENGINE}
            for each in own
            if each.predictor == "llm" and each.mode != "*"
        }
        self._errors = {name: errors[name] for name in _METRICS}
        self._seen = {each.device for each in own if each.predictor == "llm.seen"}

    @property
    def engines(self) -> tuple[str, ...]:
        """Serving engines that were measured."""
        return tuple(sorted(self._engines))

    def predict(self, architecture: LlmArchitecture, deployments: LlmDeployments) -> LlmPrediction:
        """Latencies, rate and memory of n deployments of one model, vectorised."""
        rows = deployments
        terms = llm_terms(architecture, rows)
        # An engine that nobody measured behaves like the average of those that were.
        factors = {
            name: np.array([self._engines.get(each, {}).get(name, 0.0) for each in rows.backends])[
                rows.backend
            ]
            for name in ENGINE
        }
        times = llm_times(
            terms,
            concurrency=rows.concurrency,
            osl=rows.osl,
            pooled=self._pooled,
            engine=factors,
        )
        reserve = scaled_reserve(
            terms, np.exp(self._pooled["reserve_bytes"] + factors["reserve_bytes"])
        )
        fixed = terms.weight_bytes + reserve
        needed = fixed + rows.concurrency * terms.cache_bytes / terms.ranks
        least = fixed + terms.cache_bytes
        sds = self._sds(rows, times)
        return LlmPrediction(
            log_ttft_ms=np.log(1e3 * times.ttft_s),
            ttft_sd=sds["ttft"],
            log_tpot_ms=np.log(1e3 * times.tpot_s),
            tpot_sd=sds["tpot"],
            log_throughput_rps=np.log(rows.concurrency / times.request_s),
            throughput_sd=sds["throughput"],
            memory_bytes=needed,
            probability_fits=probability_of_fitting(needed, terms.memory_bytes),
            probability_starts=probability_of_fitting(least, terms.memory_bytes),
            terms=times.parts,
            warnings=self._warnings(rows),
        )

    def _warnings(self, rows: LlmDeployments) -> tuple[str, ...]:
        engines = [each for each in rows.backends if each not in self._engines]
        gpus = [gpu.name for gpu in rows.gpus if gpu.name not in self._seen]
        found: list[str] = []
        if engines:
            names = ", ".join(engines)
            found.append(f"nobody measured the engine {names}; an average one stands in")
        if gpus:
            found.append(
                f"nobody served a language model on {', '.join(gpus)}; error bars are wider there"
            )
        return tuple(found)

    def _sds(self, rows: LlmDeployments, times: LlmTimes) -> dict[str, FloatArray]:
        """Error bars by metric, shape (n,).

        They are wider where requests may wait for memory, and on a GPU that nobody measured.
        """
        waiting = rows.concurrency > WAITING_SHARE * times.cache_limit
        new = rows.gpu_facts([float(gpu.name not in self._seen) for gpu in rows.gpus])
        return {
            name: np.hypot(
                np.where(waiting, _required(each, "waiting_sd"), _required(each, "running_sd")),
                new * _required(each, "new_gpu_sd"),
            )
            for name, each in self._errors.items()
        }


def llm_gpus(devices: Iterable[Device], facts: Iterable[Constants]) -> dict[str, LlmGpu]:
    """The devices with what a profile knows of their links and four-bit rates, by name.

    Args:
        devices: GPUs.
        facts: Rows of a profile; those of predictor "llm.gpu" count, with the terms
            "link_bytes_per_s" and, where the hardware has such arithmetic, "fp4_flops_per_s".
            A GPU that has none gets those of `ANY_DEVICE`.

    Raises:
        InputError: A GPU has no row, and there is none for any device.
    """
    rows = {each.device: each for each in facts if each.predictor == "llm.gpu"}
    gpus: dict[str, LlmGpu] = {}
    for device in devices:
        row = rows.get(device.name, rows.get(ANY_DEVICE))
        if row is None:
            raise InputError(
                f"the profile does not know how {device.name} is linked to other GPUs; import "
                "one that does, or fit it by scripts/fit_profile"
            )
        gpus[device.name] = LlmGpu.of_device(
            device,
            link_bytes_per_s=_required(row, "link_bytes_per_s"),
            fp4_flops_per_s=row.value("fp4_flops_per_s"),
        )
    return gpus


def _required(constants: Constants, term: str) -> float:
    """A constant that must have been fitted."""
    value = constants.value(term)
    if value is None:
        raise InputError(
            f"the profile's constants of {constants.predictor} ({constants.mode}) lack {term}; "
            "fit them again by scripts/fit_profile"
        )
    return value
