from pathlib import Path
from typing import Any

import pytest

from falcon_ray.errors import InputError
from falcon_ray.knowledge.llm.architecture import LlmArchitecture, Precision

LLAMA_8B: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "torch_dtype": "bfloat16",
}
DEEPSEEK_V3: dict[str, Any] = {
    "num_hidden_layers": 61,
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "vocab_size": 129280,
    "n_routed_experts": 256,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 2048,
    "n_shared_experts": 1,
    "first_k_dense_replace": 3,
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
    "quantization_config": {"quant_method": "fp8", "fmt": "e4m3"},
}
GPT_OSS: dict[str, Any] = {
    "num_hidden_layers": 36,
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 201088,
    "num_local_experts": 128,
    "experts_per_token": 4,
    "sliding_window": 128,
    "layer_types": ["sliding_attention", "full_attention"] * 18,
    "quantization_config": {"quant_method": "mxfp4"},
}


def test_a_dense_model_is_counted_to_the_parameter() -> None:
    model = LlmArchitecture.from_config(LLAMA_8B, name="llama")
    # Heads of 4096 / 32 = 128; query and output of 32 heads, key and value of 8.
    assert model.attention_parameters == 2 * 4096 * 128 * (32 + 8)
    assert model.dense_parameters == 3 * 4096 * 14336
    assert model.cache_elements == 2 * 8 * 128
    # 32 (41,943,040 + 176,160,768) + 2 x 128,256 x 4,096
    assert model.total_parameters == 8_029_995_008
    assert (model.n_dense_layers, model.n_expert_layers, model.n_sliding_layers) == (32, 0, 0)
    assert model.precision is Precision.BF16


def test_latent_attention_caches_one_latent_for_all_heads() -> None:
    model = LlmArchitecture.from_config(DEEPSEEK_V3, name="deepseek")
    assert model.is_latent
    assert model.cache_elements == 512 + 64
    assert model.cache_heads == 1
    assert (model.query_key_dim, model.value_dim) == (576, 512)
    assert (model.prompt_query_key_dim, model.prompt_value_dim) == (192, 128)
    assert (model.n_dense_layers, model.n_expert_layers) == (3, 58)
    assert model.shared_parameters == model.expert_parameters == 3 * 7168 * 2048
    assert model.total_parameters == pytest.approx(671e9, rel=2e-3)  # as published
    assert model.precision is Precision.FP8


def test_layers_that_slide_are_taken_from_their_list() -> None:
    model = LlmArchitecture.from_config(GPT_OSS, name="gpt-oss")
    assert (model.n_sliding_layers, model.window) == (18, 128)
    assert (model.n_experts, model.experts_per_token) == (128, 4)
    assert model.expert_parameters == 3 * 2880 * 2880
    assert model.total_parameters == pytest.approx(117e9, rel=5e-3)  # as published
    assert model.precision is Precision.FP4


@pytest.mark.parametrize(
    ("keys", "n_sliding"),
    [
        ({"sliding_window": 4096}, 32),
        ({"sliding_window": 4096, "use_sliding_window": False}, 0),
        ({"sliding_window": None}, 0),
        ({"sliding_window": 4096, "model_type": "gemma2"}, 16),  # every second one
        ({"sliding_window": 1024, "sliding_window_pattern": 6}, 27),  # 32 // 6 = 5 are full
        ({"sliding_window": 4096, "max_window_layers": 28}, 4),
    ],
)
def test_models_say_in_many_ways_which_layers_slide(keys: dict[str, Any], n_sliding: int) -> None:
    assert LlmArchitecture.from_config({**LLAMA_8B, **keys}).n_sliding_layers == n_sliding


def test_experts_are_told_apart_from_dense_layers() -> None:
    mixtral = LlmArchitecture.from_config(
        {**LLAMA_8B, "num_local_experts": 8, "num_experts_per_tok": 2}
    )
    assert mixtral.expert_parameters == 3 * 4096 * 14336
    assert mixtral.n_dense_layers == 0
    every_other = LlmArchitecture.from_config(
        {
            **LLAMA_8B,
            "num_experts": 64,
            "num_experts_per_tok": 4,
            "moe_intermediate_size": 1408,
            "shared_expert_intermediate_size": 5632,
            "decoder_sparse_step": 2,
            "mlp_only_layers": [1],
        }
    )
    assert every_other.n_dense_layers == 17  # layers 0, 2, ..., 30 and layer 1
    assert every_other.expert_parameters == 3 * 4096 * 1408
    assert every_other.shared_parameters == 3 * 4096 * 5632


def test_the_text_part_of_a_multimodal_model_counts() -> None:
    nested = {"model_type": "gemma3", "text_config": {**LLAMA_8B, "model_type": "gemma3_text"}}
    assert LlmArchitecture.from_config(nested).total_parameters == 8_029_995_008


@pytest.mark.parametrize(
    "key", ["num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size"]
)
def test_a_missing_key_is_named(key: str) -> None:
    config = {name: value for name, value in LLAMA_8B.items() if name != key}
    with pytest.raises(InputError, match=f"config of llama has no {key}"):
        LlmArchitecture.from_config(config, name="llama")


def test_an_expert_model_must_say_how_many_a_token_visits() -> None:
    with pytest.raises(InputError, match="no num_experts_per_tok or experts_per_token"):
        LlmArchitecture.from_config({**LLAMA_8B, "num_local_experts": 8})


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"hidden_size": "big"}, "hidden_size in the config of m must be a whole number"),
        ({"hidden_size": True}, "hidden_size in the config of m must be a whole number"),
        ({"hidden_size": -1}, "hidden_size in the config of m is negative"),
        ({"num_hidden_layers": 0}, "must be positive"),
        ({"torch_dtype": "int3"}, "dtype of m must be one of"),
        ({"quantization_config": {"quant_method": "magic"}}, "names none of fp8"),
        ({"num_experts": 2, "num_experts_per_tok": 3}, "3 of 2 experts"),
    ],
)
def test_what_cannot_be_is_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LlmArchitecture.from_config({**LLAMA_8B, **keys}, name="m")


def test_a_file_that_is_no_config_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with pytest.raises(InputError, match="cannot read"):
        LlmArchitecture.from_file(path)
    path.write_text("[1]")
    with pytest.raises(InputError, match="holds no JSON object"):
        LlmArchitecture.from_file(path)
