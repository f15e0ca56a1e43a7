"""An estimate of a language model from its `config.json`: engines, GPUs, precisions, load.

The terms of the time between two tokens (weights read, cache read, arithmetic, communication)
stand where other models have operators.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from falcon_ray.errors import InputError
from falcon_ray.knowledge.curves.resource_curve import CurveSubject, curve_over
from falcon_ray.knowledge.device import Device
from falcon_ray.knowledge.llm.architecture import LlmArchitecture
from falcon_ray.knowledge.llm.deployments import LlmDeployments, LlmGpu
from falcon_ray.knowledge.llm.predictor import LlmPrediction, LlmPredictor, llm_gpus
from falcon_ray.knowledge.profile.profile import Profile
from falcon_ray.report.estimate import (
    INTERVAL_PERCENT,
    Estimate,
    Expected,
    ExpectedConfiguration,
    ExpectedOperator,
    OperatorPart,
)
from falcon_ray.runtime.estimate_request import THIS_CPU, EstimateRequest
from falcon_ray.runtime.known_profile import describe_sources
from falcon_ray.runtime.ray_session import GIB
from falcon_ray.runtime.search_setup import search_space
from falcon_ray.space.catalogue import Catalogue, InstanceStatus, did_you_mean
from falcon_ray.space.configuration import Configuration, ConfigurationSpace, FloatArray
from falcon_ray.space.cost import Pricing
from falcon_ray.space.objective import SECONDS_PER_HOUR

CONFIG_SUFFIX = ".json"
_CONCURRENCIES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_LIKELY = 0.5


def estimate_llm(request: EstimateRequest, profile: Profile) -> Estimate:
    """What is expected of serving a language model, without a trial.

    A latency budget bounds the expected time of a whole answer.

    Args:
        request: Its `model` is the path of the file.
        profile: What is known about serving language models.

    Raises:
        InputError: The file describes no model that is understood, or nothing is known about
            serving language models.
    """
    architecture = LlmArchitecture.from_file(Path(request.model))
    constants = profile.constants()
    predictor = LlmPredictor(constants)
    catalogue = Catalogue.packaged()
    names = _gpu_names(request, catalogue)
    gpus = llm_gpus([Device.of_gpu(catalogue.gpu(name)) for name in names], constants)
    space = _space(request, catalogue, names, predictor.engines)
    predicted = predictor.predict(architecture, _deployments(space, request, gpus))
    usd_per_hour = Pricing(
        tuple(each for name in names for each in catalogue.instances_with(name))
    ).usd_per_hour(space.candidates)
    rate = np.exp(predicted.log_throughput_rps)
    answer_ms = np.exp(predicted.log_ttft_ms) + (request.osl - 1) * np.exp(predicted.log_tpot_ms)
    scores = rate * SECONDS_PER_HOUR / usd_per_hour
    scores[predicted.probability_fits <= _LIKELY] = 0.0
    if request.latency_budget_ms is not None:
        scores[answer_ms > request.latency_budget_ms] = 0.0
    order = [int(i) for i in np.argsort(-scores, kind="stable") if scores[i] > 0]
    rows = {i: _expected(space, predicted, usd_per_hour, i) for i in order[: request.top]}
    by_device: dict[str, ExpectedConfiguration] = {}
    for i in order:
        name = space.candidates[i].text("gpu_type", "")
        if name not in by_device:
            by_device[name] = _expected(space, predicted, usd_per_hour, i)
    operators = None
    if order:
        operators = _terms(predictor, architecture, space.candidates[order[0]], request, gpus)
    return Estimate(
        target=request.model,
        model=(
            f"{architecture.total_parameters / 1e9:,.1f} B parameters, prompts of {request.isl} "
            f"and answers of {request.osl} tokens"
        ),
        n_candidates=len(space),
        best_by_device=tuple(by_device.values()),
        top=tuple(rows.values()),
        operators=operators,
        unfit=_unfit_lines(space, predicted),
        warnings=predicted.warnings,
        knowledge=describe_sources(profile),
    )


def _gpu_names(request: EstimateRequest, catalogue: Catalogue) -> list[str]:
    """GPU types to compare, those with 16-bit arithmetic that can be rented by default."""
    if THIS_CPU in request.devices:
        raise InputError("language models are estimated on GPUs; leave out the device cpu")
    if request.devices:
        return [catalogue.gpu(name).gpu_type for name in request.devices]
    active = [
        each.gpu_type
        for each in catalogue.instances
        if each.gpu_type is not None and each.status is InstanceStatus.ACTIVE
    ]
    return [name for name in dict.fromkeys(active) if catalogue.gpu(name).fp16_tflops]


def _space(
    request: EstimateRequest, catalogue: Catalogue, names: list[str], engines: tuple[str, ...]
) -> ConfigurationSpace:
    most = {
        name: max((each.n_gpus for each in catalogue.instances_with(name)), default=0)
        for name in names
    }
    rented = [name for name in names if most[name]]
    if not rented:
        raise InputError(
            f"no instance with {', '.join(names)} has a price; add a row to "
            "falcon_ray/data/instances.csv"
        )
    known = ("gpu_type", "n_gpus", "precision", "engine", "concurrency")
    for name, values in (request.search_space or {}).items():
        if name not in known:
            raise InputError(
                f"nothing is known of what {name!r} does{did_you_mean(name, known)}; an estimate "
                f"of a language model understands {', '.join(known)}"
            )
        for value in values if name == "engine" else ():
            if value not in engines:
                raise InputError(
                    f"nobody measured the engine {value!r}; known are {', '.join(engines)}"
                )
    largest = max(most.values())
    default = ConfigurationSpace.of(
        {
            "gpu_type": rented,
            "n_gpus": [2**i for i in range(largest.bit_length())],
            "precision": ("bf16", "fp8"),
            "engine": engines,
            "concurrency": _CONCURRENCIES,
        },
        [
            f"gpu_type != '{name}' or n_gpus <= {most[name]}"
            for name in rented
            if most[name] < largest
        ]
        + [
            f"gpu_type != '{name}' or precision != 'fp8'"
            for name in rented
            if catalogue.gpu(name).fp8_tflops is None
        ],
    )
    return search_space(
        default, values=request.search_space or {}, constraints=request.space_constraints
    )


def _deployments(
    space: ConfigurationSpace, request: EstimateRequest, gpus: Mapping[str, LlmGpu]
) -> LlmDeployments:
    columns: dict[str, Any] = {"expert_parallel": 1, "attention_dp": 0}
    for i, each in enumerate(space.dimensions):
        values = np.array(each.values, dtype=object)
        columns[each.name] = values[space.codes[:, i]]
    columns["backend"] = columns.pop("engine")
    return LlmDeployments.of_columns(columns | {"isl": request.isl, "osl": request.osl}, gpus)


def _expected(
    space: ConfigurationSpace, predicted: LlmPrediction, usd_per_hour: FloatArray, i: int
) -> ExpectedConfiguration:
    candidate = space.candidates[i]
    rate = _interval(predicted.log_throughput_rps[i], predicted.throughput_sd[i])
    return ExpectedConfiguration(
        configuration=candidate,
        device=candidate.text("gpu_type", ""),
        usd_per_hour=float(usd_per_hour[i]),
        requests_per_dollar=rate.times(SECONDS_PER_HOUR / float(usd_per_hour[i])),
        metrics={
            "throughput_rps": rate,
            "ttft_ms": _interval(predicted.log_ttft_ms[i], predicted.ttft_sd[i]),
            "tpot_ms": _interval(predicted.log_tpot_ms[i], predicted.tpot_sd[i]),
        },
        memory_gib=float(predicted.memory_bytes[i]) / GIB,
        probability_fits=float(predicted.probability_fits[i]),
    )


def _interval(log_mean: np.float64, sd: np.float64) -> Expected:
    """Errors of this predictor are normal, by whose quantile its intervals were measured."""
    quantile = float(special.ndtri(0.5 + INTERVAL_PERCENT / 200))
    return Expected.of_log(float(log_mean), quantile * float(sd))


def _terms(
    predictor: LlmPredictor,
    architecture: LlmArchitecture,
    best: Configuration,
    request: EstimateRequest,
    gpus: Mapping[str, LlmGpu],
) -> OperatorPart:
    """The terms of the time between two tokens, with their curves over concurrency."""
    axis = ConfigurationSpace.of(
        {name: (value,) for name, value in best.items()} | {"concurrency": _CONCURRENCIES}
    )
    predicted = predictor.predict(architecture, _deployments(axis, request, gpus))
    concurrency = np.array(_CONCURRENCIES, dtype=np.float64)
    here = int(np.argmin(np.abs(concurrency - best.number("concurrency", 1))))
    total = sum(float(each[here]) for each in predicted.terms.values())
    device = best.text("gpu_type", "")
    operators = [
        ExpectedOperator(
            name=name.replace("_", " "),
            detail="",
            calls=1,
            share=float(seconds[here]) / total,
            curves=(
                curve_over(
                    "concurrency",
                    concurrency,
                    seconds,
                    subject=CurveSubject(
                        operator=name, device=device, dtype=best.text("precision", "bf16")
                    ),
                    work=concurrency,
                ),
            ),
        )
        for name, seconds in predicted.terms.items()
        if (seconds > 0).all()
    ]
    return OperatorPart(
        point=f"{best} (time between two tokens)",
        operators=tuple(sorted(operators, key=lambda each: -each.share)),
        n_others=0,
        others_share=0.0,
        host_share=0.0,
        basis="a roofline calibrated on other models",
    )


def _unfit_lines(space: ConfigurationSpace, predicted: LlmPrediction) -> tuple[str, ...]:
    """How many GPUs of a type are too few for the weights and one request."""
    too_few: dict[tuple[str, str], int] = {}
    for i in np.flatnonzero(predicted.probability_starts <= _LIKELY):
        candidate = space.candidates[int(i)]
        key = (candidate.text("gpu_type", ""), candidate.text("precision", ""))
        too_few[key] = max(too_few.get(key, 0), candidate.count("n_gpus", 1))
    return tuple(
        f"{device}, {precision}: on {n_gpus} GPU{'s' if n_gpus > 1 else ''} or fewer"
        for (device, precision), n_gpus in sorted(too_few.items())
    )
