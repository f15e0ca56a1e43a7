"""The key operators of a served language model as ideal times: what each would take at peak rates.

Decode steps read weights and cache, multiply, and communicate; prefills mostly multiply. How far
an engine is from the ideal, and what it adds by itself, is fitted elsewhere. The module covers
one node: tensor parallelism, experts spread over its GPUs or divided, attention divided by heads
or by requests. It knows neither pipelines nor speculative decoding nor disaggregated prefill.
"""

from dataclasses import dataclass

import numpy as np

from falcon_ray.knowledge.llm.architecture import LlmArchitecture, Precision
from falcon_ray.knowledge.llm.deployments import PRECISION_NAMES, LlmDeployments
from falcon_ray.space.configuration import FloatArray

_WEIGHT_BYTES = {Precision.BF16: 2.0, Precision.FP8: 1.0, Precision.FP4: 0.5625}
# Four bits carry a scale of one byte for sixteen weights (NVFP4).
_HALF_BYTES = 2.0  # of activations, and of the output matrix, which is not quantised
# Kernels that one layer launches, counted in its blocks as engines fuse them. Attention:
# normalise, project, rotate and cache, attend, project. Latent attention beside that: normalise
# the latents, project the query up, absorb the key's projection, and the value's. Dense:
# normalise, gate and up, activate, down. Experts: normalise, score, choose and sort, gate and up,
# activate, down and sum. Shared experts: gate and up, activate, down.
_ATTENTION_KERNELS = 5
_LATENT_KERNELS = 4
_DENSE_KERNELS = 4
_EXPERT_KERNELS = 6
_SHARED_KERNELS = 3
_MOVES_PER_LAYER = 10  # activations of the residual's width read or written around the matrices


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LlmTerms:
    """Ideal seconds and bytes of n deployments; every array has shape (n,).

    Of those "of one request", a decode step takes one for each request that runs on the GPU.

    Attributes:
        weights_s: Reading all weights but those of routed experts, in one decode step.
        expert_weights_s: Reading all routed experts, of which a step touches a part.
        missed: Share of the experts that one token does not visit, 1 - k/E; t tokens that choose
            evenly and by themselves miss that to the power of t.
        cache_s: Reading the cache of one request.
        linear_s: Multiplying the token of one request by weights.
        attention_s: Multiplying the token of one request by its cache.
        exchange_s: Moving activations of one request between GPUs.
        kernels: Launched in one step.
        all_reduces: Waited for in one step.
        four_bit: 1 where weights have four bits, else 0.
        prefill_linear_s: Multiplying one prompt by weights, but for routed experts.
        prefill_experts_s: Multiplying one prompt by the experts that its tokens are sent to.
        prefill_attention_s: Attention of one prompt to itself.
        prefill_exchange_s: Moving one prompt's activations between GPUs.
        prefill_move_s: Reading and writing one prompt's activations around the matrices.
        load_s: Reading all weights once, as a prefill does.
        ranks: Parts that the requests are divided into: 1 with attention divided by heads.
        weight_bytes: On one GPU.
        cache_bytes: Of one request at its mean length, on one GPU.
        memory_bytes: Of one GPU.
    """

    weights_s: FloatArray
    expert_weights_s: FloatArray
    missed: FloatArray
    cache_s: FloatArray
    linear_s: FloatArray
    attention_s: FloatArray
    exchange_s: FloatArray
    kernels: FloatArray
    all_reduces: FloatArray
    four_bit: FloatArray
    prefill_linear_s: FloatArray
    prefill_experts_s: FloatArray
    prefill_attention_s: FloatArray
    prefill_exchange_s: FloatArray
    prefill_move_s: FloatArray
    load_s: FloatArray
    ranks: FloatArray
    weight_bytes: FloatArray
    cache_bytes: FloatArray
    memory_bytes: FloatArray


def llm_terms(architecture: LlmArchitecture, deployments: LlmDeployments) -> LlmTerms:
    """Ideal times and sizes of every deployment."""
    model, rows = architecture, deployments
    n, divided = rows.n_gpus, rows.attention_dp
    parts = np.where(divided, 1.0, n)  # that one rank's attention is divided into
    stored = [PRECISION_NAMES[name] or model.precision for name in rows.precisions]
    # Checkpoints of four bits leave the attention around experts alone.
    attending = [
        Precision.BF16 if model.n_experts and each is Precision.FP4 else each for each in stored
    ]
    weight_bytes = np.array([_WEIGHT_BYTES[each] for each in stored])[rows.precision]
    attention_bytes = np.array([_WEIGHT_BYTES[each] for each in attending])[rows.precision]
    cache_bytes = _cache_bytes(rows, stored)
    rate = _rates(rows, stored)
    attention_rate = _rates(rows, attending)
    half_rate = _rates(rows, [Precision.BF16] * len(stored))
    bandwidth = rows.gpu_facts([gpu.bandwidth_bytes_per_s for gpu in rows.gpus])
    link = rows.gpu_facts([gpu.link_bytes_per_s for gpu in rows.gpus])

    layers, expert_layers = model.n_layers, model.n_expert_layers
    attention = layers * model.attention_parameters
    dense = model.n_dense_layers * model.dense_parameters
    shared = expert_layers * model.shared_parameters
    routed = expert_layers * model.expert_parameters
    head_bytes = model.head_parameters * _HALF_BYTES / n
    plain_bytes = attention * attention_bytes / parts + (dense + shared) * weight_bytes / n
    expert_bytes = model.n_experts * routed * weight_bytes / n
    all_bytes = plain_bytes + expert_bytes + 2 * head_bytes

    context = rows.isl + rows.osl / 2
    cached = model.cache_elements * cache_bytes / np.minimum(parts, model.cache_heads)
    token_flops = 2 * (dense + shared + model.experts_per_token * routed) / n
    widths = 2 * model.n_heads * (model.query_key_dim + model.value_dim) / parts
    prompt_widths = 2 * model.n_heads * (model.prompt_query_key_dim + model.prompt_value_dim)
    exchanged = 2 * layers * model.hidden_size * _HALF_BYTES * (n - 1) / n / link
    return LlmTerms(
        weights_s=(plain_bytes + head_bytes) / bandwidth,
        expert_weights_s=expert_bytes / bandwidth,
        missed=np.full_like(n, 1 - model.experts_per_token / max(1, model.n_experts)),
        cache_s=cached * _attended(model, context) / bandwidth,
        linear_s=2 * attention / parts / attention_rate
        + token_flops / rate
        + 2 * model.head_parameters / n / half_rate,
        attention_s=widths * _attended(model, context) / half_rate,
        exchange_s=exchanged,
        kernels=np.full_like(n, _kernels(model)),
        all_reduces=np.where(n > 1, 2.0 * layers, 0.0),
        four_bit=np.array([float(each is Precision.FP4) for each in stored])[rows.precision],
        prefill_linear_s=rows.isl
        * (2 * attention / parts / attention_rate + 2 * (dense + shared) / n / rate),
        prefill_experts_s=rows.isl * 2 * model.experts_per_token * routed / n / rate,
        prefill_attention_s=prompt_widths
        / parts
        * rows.isl
        * _attended(model, rows.isl / 2)
        / half_rate,
        prefill_exchange_s=2 * rows.isl * exchanged,
        prefill_move_s=_MOVES_PER_LAYER
        * layers
        * model.hidden_size
        * _HALF_BYTES
        * rows.isl
        / bandwidth,
        load_s=all_bytes / bandwidth,
        ranks=np.where(divided, n, 1.0),
        weight_bytes=all_bytes,
        cache_bytes=cached * layers * context,
        memory_bytes=rows.gpu_facts([gpu.memory_bytes for gpu in rows.gpus]),
    )


def _attended(model: LlmArchitecture, tokens: FloatArray) -> FloatArray:
    """Tokens attended to, summed over layers; sliding ones stop at their window."""
    full = model.n_layers - model.n_sliding_layers
    return full * tokens + model.n_sliding_layers * np.minimum(tokens, model.window or 1)


def _cache_bytes(rows: LlmDeployments, stored: list[Precision]) -> FloatArray:
    """Of one element, shape (n,): 8 bits where the GPU computes in the weights' precision.

    Weight-only quantisation leaves everything else in 16 bits.
    """
    table = np.array(
        [
            [
                1.0 if each is not Precision.BF16 and each in gpu.flops_per_s else _HALF_BYTES
                for each in stored
            ]
            for gpu in rows.gpus
        ]
    )
    return table[rows.gpu, rows.precision]


def _rates(rows: LlmDeployments, precisions: list[Precision]) -> FloatArray:
    """FLOP/s of each deployment's GPU with weights of its precision, shape (n,)."""
    table = np.array([[gpu.rate(each) for each in precisions] for gpu in rows.gpus])
    return table[rows.gpu, rows.precision]


def _kernels(model: LlmArchitecture) -> float:
    """Kernels that one decode step launches."""
    latent = _LATENT_KERNELS if model.is_latent else 0
    shared = _SHARED_KERNELS if model.shared_parameters else 0
    return float(
        model.n_layers * (_ATTENTION_KERNELS + latent)
        + model.n_dense_layers * _DENSE_KERNELS
        + model.n_expert_layers * (_EXPERT_KERNELS + shared)
    )
