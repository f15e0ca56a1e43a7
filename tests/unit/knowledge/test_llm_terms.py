from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from falcon_ray.errors import InputError
from falcon_ray.knowledge.llm.architecture import LlmArchitecture, Precision
from falcon_ray.knowledge.llm.deployments import LlmDeployments, LlmGpu
from falcon_ray.knowledge.llm.terms import LlmTerms, llm_terms

GPU = LlmGpu(
    name="G",
    memory_bytes=80e9,
    bandwidth_bytes_per_s=1e12,
    flops_per_s={Precision.BF16: 1e15, Precision.FP8: 2e15},
    link_bytes_per_s=1e11,
)
SMALL: dict[str, Any] = {
    "num_hidden_layers": 2,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 10,
}
# Heads of 2: attention 2 x 8 x 2 x (4 + 2) = 192, feed-forward 3 x 8 x 16 = 384 a layer.
DENSE = LlmArchitecture.from_config(SMALL)
EXPERTS = LlmArchitecture.from_config(
    {**SMALL, "num_experts": 4, "num_experts_per_tok": 1, "moe_intermediate_size": 16}
)
LATENT = LlmArchitecture.from_config(
    {**SMALL, "kv_lora_rank": 6, "qk_rope_head_dim": 2, "qk_nope_head_dim": 2, "v_head_dim": 2}
)


def deployments(columns: Mapping[str, object]) -> LlmDeployments:
    defaults = {
        "gpu_type": "G",
        "precision": "bf16",
        "backend": "engine",
        "n_gpus": 1,
        "expert_parallel": 1,
        "attention_dp": 0,
        "concurrency": 1,
        "isl": 100,
        "osl": 20,
    }
    return LlmDeployments.of_columns({**defaults, **columns}, {"G": GPU})


def terms(model: LlmArchitecture, columns: Mapping[str, object] = MappingProxyType({})) -> LlmTerms:
    return llm_terms(model, deployments(columns))


def test_a_decode_step_reads_every_weight_but_the_embedding() -> None:
    found = terms(DENSE, {"precision": ["bf16", "fp8"]})
    head = 10 * 8 * 2  # 16 bits in any case
    assert found.weights_s * 1e12 == pytest.approx([2 * 576 * 2 + head, 2 * 576 * 1 + head])
    assert found.weight_bytes == pytest.approx([2 * 576 * 2 + 2 * head, 2 * 576 + 2 * head])


def test_default_precision_is_that_of_the_published_weights() -> None:
    published = LlmArchitecture.from_config(
        {**SMALL, "quantization_config": {"quant_method": "fp8"}}
    )
    found = terms(published, {"precision": ["default", "fp8", "bf16"]})
    assert found.weights_s[0] == found.weights_s[1] < found.weights_s[2]


def test_four_bits_leave_the_attention_around_experts_alone() -> None:
    found = terms(EXPERTS, {"precision": ["bf16", "fp4"]})
    assert found.weights_s[0] == found.weights_s[1]
    # 4.5 bits of 16: a scale of 8 bits for 16 weights
    assert found.expert_weights_s[1] / found.expert_weights_s[0] == pytest.approx(4.5 / 16)


def test_weights_of_a_precision_without_arithmetic_are_widened() -> None:
    assert GPU.rate(Precision.FP4) == GPU.rate(Precision.BF16)
    assert GPU.rate(Precision.FP8) == 2e15


def test_a_step_misses_experts_as_if_tokens_chose_by_themselves() -> None:
    found = terms(EXPERTS)
    # Four experts, one chosen: two tokens touch 1 - (3/4)^2 = 7/16 of them.
    assert 1 - found.missed[0] ** 2 == pytest.approx(7 / 16)
    assert found.expert_weights_s * 1e12 == pytest.approx(2 * 4 * 384 * 2)
    assert terms(DENSE).expert_weights_s == 0


def test_the_cache_is_read_at_its_mean_length() -> None:
    # 2 layers x 2 x 2 heads x 2 elements x 2 bytes, of 100 + 20 / 2 tokens
    assert terms(DENSE).cache_s * 1e12 == pytest.approx(2 * 8 * 2 * 110)
    # Weights of 8 bits go with a cache of 8 bits.
    assert terms(DENSE, {"precision": "fp8"}).cache_s * 1e12 == pytest.approx(2 * 8 * 110)


def test_weight_only_quantisation_leaves_the_cache_in_16_bits() -> None:
    # The GPU has no arithmetic of 4 bits.
    found = terms(DENSE, {"precision": ["bf16", "fp4"]})
    assert found.cache_s[0] == found.cache_s[1]


def test_a_prefill_multiplies_each_token_by_the_experts_it_is_sent_to() -> None:
    found = terms(EXPERTS, {"n_gpus": [1, 2]})
    # 2 layers x 1 expert of 384 parameters x 2 operations x 100 tokens
    assert found.prefill_experts_s * 1e15 == pytest.approx([2 * 384 * 2 * 100, 2 * 384 * 100])
    assert found.prefill_linear_s * 1e15 == pytest.approx([2 * 192 * 2 * 100, 2 * 192 * 100])
    assert terms(DENSE).prefill_experts_s == 0


def test_the_cache_is_divided_by_heads_only_as_far_as_there_are_some() -> None:
    grouped = terms(DENSE, {"n_gpus": [1, 2, 4]}).cache_s
    assert grouped[0] / grouped == pytest.approx([1, 2, 2])  # two heads of keys
    latent = terms(LATENT, {"n_gpus": [1, 2, 4]}).cache_s
    assert latent[0] / latent == pytest.approx([1, 1, 1])


def test_a_sliding_layer_attends_to_its_window_only() -> None:
    sliding = LlmArchitecture.from_config(
        {
            **SMALL,
            "sliding_window": 10,
            "layer_types": ["sliding_attention", "full_attention"],
        }
    )
    # (10 + 110) of (110 + 110) tokens
    assert terms(sliding).cache_s / terms(DENSE).cache_s == pytest.approx(120 / 220)


def test_attention_divided_by_requests_keeps_its_weights_on_every_gpu() -> None:
    found = terms(DENSE, {"n_gpus": 2, "attention_dp": [0, 1]})
    assert found.ranks == pytest.approx([1, 2])
    # Half of the 2 x 192 attention weights of 2 bytes are not read elsewhere.
    assert (found.weights_s[1] - found.weights_s[0]) * 1e12 == pytest.approx(192 * 2)


def test_one_gpu_exchanges_nothing() -> None:
    found = terms(DENSE, {"n_gpus": [1, 2]})
    assert found.exchange_s[0] == 0
    # Twice a layer, 8 elements of 2 bytes, (n - 1) / n of them over the link
    assert found.exchange_s[1] * 1e11 == pytest.approx(2 * 2 * 8 * 2 / 2)
    assert found.all_reduces == pytest.approx([0, 4])


def test_a_prompt_multiplies_every_token_by_the_layers() -> None:
    # 2 x 576 parameters, two operations each, 100 tokens
    assert terms(DENSE).prefill_linear_s * 1e15 == pytest.approx(2 * 2 * 576 * 100)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"precision": "fp3"}, "precision 'fp3' is none of"),
        ({"gpu_type": "X"}, "nothing is known of GPU X; known are G"),
        ({"n_gpus": 0}, "must all be 1 or more"),
        ({"isl": np.nan}, "must all be 1 or more"),
        ({"n_gpus": [1, 2], "osl": [1, 2, 3]}, "must have one length"),
    ],
)
def test_columns_that_cannot_be_are_refused(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        deployments(columns)


def test_a_missing_column_is_named() -> None:
    with pytest.raises(InputError, match="lack precision, backend"):
        LlmDeployments.of_columns(
            dict.fromkeys(
                (
                    "gpu_type",
                    "n_gpus",
                    "expert_parallel",
                    "attention_dp",
                    "concurrency",
                    "isl",
                    "osl",
                ),
                1,
            ),
            {},
        )
