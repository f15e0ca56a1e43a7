"""A language model as the numbers that decide its speed: read from a Hugging Face `config.json`.

The module counts parameters and cache elements. It knows neither GPUs nor serving engines; it
covers decoders with grouped-query or latent attention, sliding windows, and experts.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeAlias, cast

from falcon_ray.errors import InputError

Config: TypeAlias = Mapping[str, Any]


class Precision(Enum):
    """What the weights of the linear layers are stored in."""

    BF16 = "bf16"
    """Sixteen bits; float16 counts as this."""
    FP8 = "fp8"
    FP4 = "fp4"
    """Four bits and the scales of small blocks: NVFP4, MXFP4, AWQ, GPTQ."""


# model_type of decoders whose feed-forward block has two matrices; all others have a gate too.
_GENERATING = ("CausalLM", "LMHead", "ConditionalGeneration")
_UNGATED = frozenset({"falcon", "gpt_neox", "gptj", "mpt", "nemotron", "opt", "phi", "starcoder2"})
_N_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
_EXPERTS_PER_TOKEN = ("num_experts_per_tok", "experts_per_token", "moe_topk")
_HALF_TYPES = ("bfloat16", "float16", "float32")  # engines serve float32 weights in 16 bits


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmArchitecture:
    """Counts of one decoder-only language model.

    Attributes:
        name: For people.
        n_layers: All of them.
        n_dense_layers: Layers whose feed-forward block is not made of experts.
        n_sliding_layers: Layers that attend to the last `window` tokens only.
        window: In tokens; 0 where no layer slides.
        hidden_size: Width of the residual stream.
        vocab_size: Rows of the output matrix.
        n_heads: Query heads.
        cache_heads: Heads that the cache is made of, across which GPUs can divide it; 1 with
            latent attention, whose cache every GPU holds whole.
        cache_elements: Kept per token and layer, keys and values together.
        query_key_dim: Width over which a query and a cached key are multiplied.
        value_dim: Width of what a cached value adds to the output of a head.
        prompt_query_key_dim: The same in a prefill, where latent attention is not absorbed.
        prompt_value_dim: Likewise.
        attention_parameters: Of one layer.
        dense_parameters: Of one dense feed-forward block.
        n_experts: Routed experts of one layer; 0 without experts.
        experts_per_token: Of those, how many each token visits.
        expert_parameters: Of one routed expert.
        shared_parameters: Of the experts of one layer that every token visits.
        precision: Of the published weights.

    Raises:
        InputError: A count is out of range.
    """

    name: str
    n_layers: int
    n_dense_layers: int
    n_sliding_layers: int
    window: int
    hidden_size: int
    vocab_size: int
    n_heads: int
    cache_heads: int
    cache_elements: int
    query_key_dim: int
    value_dim: int
    prompt_query_key_dim: int
    prompt_value_dim: int
    attention_parameters: int
    dense_parameters: int
    n_experts: int
    experts_per_token: int
    expert_parameters: int
    shared_parameters: int
    precision: Precision

    def __post_init__(self) -> None:
        positive = (self.n_layers, self.hidden_size, self.vocab_size, self.n_heads)
        if min(*positive, self.cache_heads, self.cache_elements, self.query_key_dim) < 1:
            raise InputError(f"sizes of {self.name} must be positive, got {self}")
        if not 0 <= self.experts_per_token <= self.n_experts:
            raise InputError(
                f"{self.name} sends each token to {self.experts_per_token} of {self.n_experts} "
                "experts, which cannot be; correct its config"
            )
        if max(self.n_dense_layers, self.n_sliding_layers) > self.n_layers:
            raise InputError(
                f"{self.name} has {self.n_layers} layers, but {self.n_dense_layers} dense and "
                f"{self.n_sliding_layers} sliding ones; correct its config"
            )

    @property
    def n_expert_layers(self) -> int:
        """Layers whose feed-forward block is made of experts."""
        return self.n_layers - self.n_dense_layers

    @property
    def is_latent(self) -> bool:
        """Whether the cache holds a latent that all heads share."""
        return self.query_key_dim != self.prompt_query_key_dim

    @property
    def head_parameters(self) -> int:
        """Of the output matrix; the embedding is looked up, not multiplied."""
        return self.vocab_size * self.hidden_size

    @property
    def total_parameters(self) -> int:
        """All that must be in memory, with the embedding counted apart from the output."""
        experts = self.n_experts * self.expert_parameters + self.shared_parameters
        return (
            self.n_layers * self.attention_parameters
            + self.n_dense_layers * self.dense_parameters
            + self.n_expert_layers * experts
            + 2 * self.head_parameters
        )

    @classmethod
    def from_file(cls, path: Path) -> "LlmArchitecture":
        """Read a `config.json`.

        Raises:
            InputError: The file cannot be read or lacks something.
        """
        try:
            config: object = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(
                f"cannot read {path} as JSON ({error}); name a model's config.json"
            ) from error
        if not isinstance(config, dict):
            raise InputError(f"{path} holds no JSON object; name a model's config.json")
        return cls.from_config(cast("Config", config), name=path.parent.name or str(path))

    @classmethod
    def from_config(cls, config: Config, *, name: str = "") -> "LlmArchitecture":
        """Read the keys that Hugging Face models carry, in all their spellings.

        Args:
            config: Contents of a `config.json`; of a multimodal model, its text part counts.
            name: For people; the config's own name by default.

        Raises:
            InputError: A key is missing or is no whole number; the message names it.
        """
        name = name or str(config.get("_name_or_path") or config.get("model_type") or "the model")
        _check_generates(config, name)
        text: object = config.get("text_config")
        if isinstance(text, dict):
            config = {**config, **cast("Config", text)}
        keys = _Keys(name=name, config=config)
        n_layers, hidden = keys.number("num_hidden_layers"), keys.number("hidden_size")
        n_heads = keys.number("num_attention_heads")
        matrices = 2 if config.get("model_type") in _UNGATED else 3
        n_experts = keys.number(*_N_EXPERTS, default=0)
        n_dense = n_layers
        expert = shared = 0
        if n_experts:
            width = keys.number("moe_intermediate_size", "intermediate_size")
            expert = matrices * hidden * width
            shared_width = keys.number(
                "shared_expert_intermediate_size",
                default=width * keys.number("n_shared_experts", default=0),
            )
            shared = matrices * hidden * shared_width
            n_dense = _n_dense_layers(keys, n_layers)
        dense = matrices * hidden * keys.number("intermediate_size") if n_dense else 0
        n_sliding, window = _sliding(keys, n_layers)
        attention = _latent_attention if config.get("kv_lora_rank") else _grouped_attention
        return cls(
            name=name,
            n_layers=n_layers,
            n_dense_layers=n_dense,
            n_sliding_layers=n_sliding,
            window=window,
            hidden_size=hidden,
            vocab_size=keys.number("vocab_size"),
            n_heads=n_heads,
            dense_parameters=dense,
            n_experts=n_experts,
            experts_per_token=keys.number(*_EXPERTS_PER_TOKEN) if n_experts else 0,
            expert_parameters=expert,
            shared_parameters=shared,
            precision=_precision(keys),
            **attention(keys, hidden, n_heads),
        )


@dataclass(frozen=True, slots=True)
class _Keys:
    """A config together with the name that its errors are told under."""

    name: str
    config: Config

    def number(self, *spellings: str, default: int | None = None) -> int:
        """The first of several keys that is set, as a whole number."""
        for key in spellings:
            value: object = self.config.get(key)
            if value is None:
                continue
            if (
                isinstance(value, bool)
                or not isinstance(value, (int, float))
                or value != int(value)
            ):
                raise InputError(
                    f"{key} in the config of {self.name} must be a whole number, got {value!r}"
                )
            if value < 0:
                raise InputError(f"{key} in the config of {self.name} is negative: {value}")
            return int(value)
        if default is None:
            wanted = " or ".join(spellings)
            raise InputError(
                f"the config of {self.name} has no {wanted}; give the config.json of a "
                "decoder-only language model"
            )
        return default


def _check_generates(config: Config, name: str) -> None:
    """Refuse what generates no tokens one by one.

    Raises:
        InputError: The config names its class, and that is none of a decoder.
    """
    named: object = config.get("architectures")
    classes = [str(each) for each in cast("list[object]", named)] if isinstance(named, list) else []
    if classes and not any(kind in each for each in classes for kind in _GENERATING):
        raise InputError(
            f"{name} is a {', '.join(classes)}, which generates no text; estimate it as a PyTorch "
            "model: falcon-ray estimate package.module:factory"
        )


def _grouped_attention(keys: _Keys, hidden: int, n_heads: int) -> dict[str, int]:
    """Grouped-query attention (Ainslie et al., 2023); multi-head is one group per head."""
    groups = keys.number("num_key_value_heads", default=n_heads)
    width = keys.number("head_dim", default=hidden // n_heads)
    return {
        "cache_heads": groups,
        "cache_elements": 2 * groups * width,
        "query_key_dim": width,
        "value_dim": width,
        "prompt_query_key_dim": width,
        "prompt_value_dim": width,
        "attention_parameters": 2 * hidden * width * (n_heads + groups),
    }


def _latent_attention(keys: _Keys, hidden: int, n_heads: int) -> dict[str, int]:
    """Multi-head latent attention with the up-projections absorbed (DeepSeek-AI, 2024, 2.1)."""
    latent, rope = keys.number("kv_lora_rank"), keys.number("qk_rope_head_dim")
    nope, value = keys.number("qk_nope_head_dim"), keys.number("v_head_dim")
    query = n_heads * (nope + rope)
    query_rank = keys.number("q_lora_rank", default=0)
    query_parameters = query_rank * (hidden + query) if query_rank else hidden * query
    return {
        "cache_heads": 1,
        "cache_elements": latent + rope,
        "query_key_dim": latent + rope,
        "value_dim": latent,
        "prompt_query_key_dim": nope + rope,
        "prompt_value_dim": value,
        "attention_parameters": query_parameters
        + hidden * (latent + rope)
        + latent * n_heads * (nope + value)
        + n_heads * value * hidden,
    }


def _n_dense_layers(keys: _Keys, n_layers: int) -> int:
    """Layers without experts, of a model that has some."""
    only: object = keys.config.get("mlp_only_layers")
    dense = set(cast("list[int]", only)) if isinstance(only, list) else set[int]()
    dense |= set(range(keys.number("first_k_dense_replace", default=0)))
    step = max(1, keys.number("decoder_sparse_step", default=1))
    dense |= {layer for layer in range(n_layers) if (layer + 1) % step}
    return len(dense & set(range(n_layers)))


def _sliding(keys: _Keys, n_layers: int) -> tuple[int, int]:
    """How many layers slide, and over how many tokens."""
    window = keys.number("sliding_window", default=0)
    if not window or keys.config.get("use_sliding_window") is False:
        return 0, 0
    kinds: object = keys.config.get("layer_types")
    if isinstance(kinds, list):
        sliding = cast("list[str]", kinds).count("sliding_attention")
        return sliding, window if sliding else 0
    pattern = keys.number("sliding_window_pattern", default=0)
    if keys.config.get("model_type") == "gemma2":  # alternates, and says so only in its code
        pattern = 2
    if pattern:
        return n_layers - n_layers // pattern, window
    first = keys.number("max_window_layers", default=0)
    return max(0, n_layers - first), window


def _precision(keys: _Keys) -> Precision:
    """What the published weights are stored in."""
    quantization: object = keys.config.get("quantization_config")
    if isinstance(quantization, dict):
        described = json.dumps(quantization).lower()
        if any(kind in described for kind in ("fp4", "awq", "gptq", '"bits": 4', '"num_bits": 4')):
            return Precision.FP4
        if "fp8" in described or '"num_bits": 8' in described or '"bits": 8' in described:
            return Precision.FP8
        raise InputError(
            f"the quantization_config of {keys.name} names none of fp8, fp4, awq, gptq; take it "
            "out of the config and name the precision yourself"
        )
    dtype: object = keys.config.get("dtype") or keys.config.get("torch_dtype") or "bfloat16"
    if dtype not in _HALF_TYPES:
        raise InputError(
            f"dtype of {keys.name} must be one of {', '.join(_HALF_TYPES)}, got {dtype!r}"
        )
    return Precision.BF16
