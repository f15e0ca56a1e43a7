from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest

from falcon_ray.errors import InputError
from falcon_ray.knowledge.constants import ANY_DEVICE, Constants
from falcon_ray.knowledge.device import Device, DeviceKind
from falcon_ray.knowledge.llm.architecture import LlmArchitecture, Precision
from falcon_ray.knowledge.llm.deployments import LlmDeployments, LlmGpu
from falcon_ray.knowledge.llm.model import ENGINE, POOLED
from falcon_ray.knowledge.llm.predictor import LlmPrediction, LlmPredictor, llm_gpus

MODEL = LlmArchitecture.from_config(
    {
        "num_hidden_layers": 32,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
    }
)
GPU = LlmGpu(
    name="G",
    memory_bytes=80e9,
    bandwidth_bytes_per_s=2e12,
    flops_per_s={Precision.BF16: 1e15},
    link_bytes_per_s=1e11,
)
NEW_GPU = replace(GPU, name="new")
# Ideal efficiencies and no overhead but what a test sets.
NOTHING = 1e-30
PERFECT = {name: NOTHING if name.endswith("_s") else 1.0 for name in POOLED} | {
    "sharpness": 50.0,
    "reserve_bytes": 1e9,
    "burst": NOTHING,
    "interference": NOTHING,
    "first_token_steps": NOTHING,
    "prefill_load": NOTHING,
}


def constants(
    predictor: str, terms: dict[str, float], *, device: str = ANY_DEVICE, mode: str = "*"
) -> Constants:
    return Constants(
        predictor=predictor,
        device=device,
        dtype="*",
        mode=mode,
        terms=tuple(terms),
        values=np.array(list(terms.values()), dtype=np.float64),
        covariance=np.zeros((len(terms), len(terms))),
        residual_sd=0.0,
        n=1,
        source="test",
    )


def fitted(
    pooled: Mapping[str, float] = MappingProxyType({}),
    engine: Mapping[str, float] = MappingProxyType({}),
) -> list[Constants]:
    values = {**PERFECT, **pooled}
    factors = {**dict.fromkeys(ENGINE, 1.0), **engine}
    sds = {"running_sd": 0.3, "waiting_sd": 0.5, "new_gpu_sd": 0.4}
    return [
        constants("llm", {name: float(np.log(values[name])) for name in POOLED}),
        constants("llm", {name: float(np.log(factors[name])) for name in ENGINE}, mode="measured"),
        *(constants(f"llm.{metric}", sds) for metric in ("tpot", "ttft", "throughput")),
        constants("llm.seen", {}, device="G"),
    ]


def predict(
    columns: Mapping[str, object] = MappingProxyType({}), rows: list[Constants] | None = None
) -> LlmPrediction:
    defaults = {
        "gpu_type": "G",
        "precision": "bf16",
        "backend": "measured",
        "n_gpus": 1,
        "expert_parallel": 1,
        "attention_dp": 0,
        "concurrency": 4,
        "isl": 1000,
        "osl": 200,
    }
    deployments = LlmDeployments.of_columns({**defaults, **columns}, {"G": GPU, "new": NEW_GPU})
    return LlmPredictor(fitted() if rows is None else rows).predict(MODEL, deployments)


def test_one_request_waits_for_weights_and_cache() -> None:
    found = predict({"concurrency": 1})
    head = 128256 * 4096
    weights_s = 2 * (MODEL.total_parameters - head) / 2e12  # two bytes, without the embedding
    linear_s = 2 * (MODEL.total_parameters - head) / 1e15
    cache_s = 32 * 2048 * 2 * 1100 / 2e12
    attention_s = 2 * 32 * (128 + 128) * 32 * 1100 / 1e15
    expected_s = np.hypot(weights_s, linear_s) + np.hypot(cache_s, attention_s)
    assert np.exp(found.log_tpot_ms) == pytest.approx(1e3 * expected_s)


def test_terms_add_up_to_the_time_between_two_tokens() -> None:
    found = predict(
        {"n_gpus": [1, 2, 8], "concurrency": [1, 32, 400]},
        fitted({"kernel_s": 5e-6, "step_s": 1e-3, "interference": 1.0}),
    )
    assert sum(found.terms.values()) * 1e3 == pytest.approx(np.exp(found.log_tpot_ms))
    assert min(part.min() for part in found.terms.values()) >= 0


def test_the_rate_is_littles_law() -> None:
    found = predict({"concurrency": [1, 8, 500]}, fitted({"first_token_s": 0.1}))
    request_s = (np.exp(found.log_ttft_ms) + 199 * np.exp(found.log_tpot_ms)) / 1e3
    assert np.exp(found.log_throughput_rps) == pytest.approx([1, 8, 500] / request_s)


def test_kernels_cost_their_launch() -> None:
    # 32 layers of 5 kernels of attention and 4 of feed-forward
    found = predict(rows=fitted({"kernel_s": 1e-5}))
    assert found.terms["kernels"] == pytest.approx(32 * 9 * 1e-5)


def test_prefills_of_the_others_hold_up_an_answer() -> None:
    found = predict(rows=fitted({"interference": 1.0}))
    ideal = predict()
    prompt_ms = np.exp(ideal.log_ttft_ms)
    # Of the four, those that are being decoded; here all but a few per cent of the time.
    assert np.exp(found.log_tpot_ms) - np.exp(ideal.log_tpot_ms) == pytest.approx(
        4 * prompt_ms / 200, rel=0.1
    )


def test_an_engine_that_prefills_first_lets_prompts_wait() -> None:
    rows = fitted({"burst": 0.5}, {"burst": 2.0})
    found = predict({"backend": ["measured", "other"], "concurrency": [4, 4]}, rows)
    prompt_ms = np.exp(predict().log_ttft_ms)
    # Of three others: 0.5 x 2 of their prefills each, or 0.5 with an average engine.
    assert np.exp(found.log_ttft_ms) == pytest.approx(prompt_ms * [1 + 1.0 * 3, 1 + 0.5 * 3])


def test_requests_that_resemble_each_other_share_experts() -> None:
    experts = LlmArchitecture.from_config(
        {
            "num_hidden_layers": 2,
            "hidden_size": 4096,
            "num_attention_heads": 32,
            "vocab_size": 1000,
            "num_experts": 4,
            "num_experts_per_tok": 1,
            "moe_intermediate_size": 4096,
        }
    )
    deployments = LlmDeployments.of_columns(
        {
            "gpu_type": "G",
            "precision": "bf16",
            "backend": "measured",
            "n_gpus": 1,
            "expert_parallel": 1,
            "attention_dp": 0,
            "concurrency": [1, 3],
            "isl": 1,
            "osl": 2000,
        },
        {"G": GPU},
    )
    own = LlmPredictor(fitted()).predict(experts, deployments).terms["experts"]
    shared = LlmPredictor(fitted({"spread": 0.5})).predict(experts, deployments).terms["experts"]
    assert own[0] == pytest.approx(shared[0])
    # Three tokens miss (3/4)^3 of the experts; those that count as 1 + 0.5 x 2 miss (3/4)^2.
    assert shared[1] / own[1] == pytest.approx((1 - 0.75**2) / (1 - 0.75**3), rel=0.01)


def test_requests_without_room_for_their_cache_wait() -> None:
    found = predict({"concurrency": [10, 2000]})
    # (80 - 1 - 17.1) GB hold about 430 caches of 144 MB: the rest waits for more than an answer.
    answer_ms = 199 * np.exp(found.log_tpot_ms)
    assert np.exp(found.log_ttft_ms[1]) > 3 * answer_ms[1]
    assert np.exp(found.log_ttft_ms[0]) < 0.1 * answer_ms[0]
    assert found.probability_fits == pytest.approx([1, 0], abs=1e-3)
    assert found.probability_starts == pytest.approx([1, 1], abs=1e-3)
    assert found.tpot_sd == pytest.approx([0.3, 0.5])


def test_memory_is_weights_cache_and_what_the_engine_keeps() -> None:
    found = predict({"concurrency": 10})
    weights = 2 * MODEL.total_parameters
    cache = 32 * 2048 * 2 * 1100
    assert found.memory_bytes == pytest.approx(weights + 10 * cache + 1e9)


def test_an_engine_scales_its_overhead_only() -> None:
    rows = fitted({"kernel_s": 1e-5}, {"overhead": 2.0})
    found = predict({"backend": ["measured", "other"]}, rows)
    assert found.terms["kernels"][0] == pytest.approx(2 * found.terms["kernels"][1])
    assert found.terms["weights"][0] == pytest.approx(found.terms["weights"][1])
    assert found.warnings == ("nobody measured the engine other; an average one stands in",)


def test_error_bars_are_wider_on_a_gpu_that_nobody_measured() -> None:
    found = predict({"gpu_type": ["G", "new"]})
    assert found.throughput_sd == pytest.approx([0.3, 0.5])  # hypot(0.3, 0.4)
    assert found.log_tpot_ms[0] == found.log_tpot_ms[1]
    assert found.warnings == ("nobody served a language model on new; error bars are wider there",)


def test_more_gpus_shorten_a_step_and_more_requests_lengthen_it() -> None:
    faster = predict({"n_gpus": [1, 2, 4, 8]}).log_tpot_ms
    slower = predict({"concurrency": [1, 8, 64, 256]}).log_tpot_ms
    assert (np.diff(faster) < 0).all()
    assert (np.diff(slower) > 0).all()


def test_without_constants_nothing_is_known() -> None:
    with pytest.raises(InputError, match="knows nothing about serving language models"):
        LlmPredictor([])


def test_a_constant_that_is_missing_is_named() -> None:
    rows = fitted()
    rows[0] = constants("llm", {"weights": 0.0})
    with pytest.raises(InputError, match="lack expert_weights"):
        LlmPredictor(rows)


def test_a_gpu_without_facts_of_its_link_gets_those_of_any() -> None:
    device = Device(
        name="G",
        kind=DeviceKind.GPU,
        peak_flops_per_s={"float32": 1e13, "float16": 1e14},
        bandwidth_bytes_per_s=1e12,
        memory_bytes=1e10,
        units=1,
        source="test",
    )
    known = constants("llm.gpu", {"link_bytes_per_s": 5e11, "fp4_flops_per_s": 4e14}, device="G")
    fallback = constants("llm.gpu", {"link_bytes_per_s": 3e10})
    own = llm_gpus([device], [known, fallback])["G"]
    assert (own.link_bytes_per_s, own.rate(Precision.FP4)) == (5e11, 4e14)
    other = llm_gpus([device], [fallback])["G"]
    assert (other.link_bytes_per_s, other.rate(Precision.FP4)) == (3e10, 1e14)
    with pytest.raises(InputError, match="does not know how G is linked"):
        llm_gpus([device], [])
