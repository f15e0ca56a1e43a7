"""How the ideal times of a served language model add up to latencies, given an engine's habits.

Efficiencies and overheads are arguments, as logarithms; the module holds none. It describes a
closed loop: `concurrency` requests are always under way, and a prefill holds up the decode steps
of all others on its GPUs. Requests whose cache finds no memory wait.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from falcon_ray.knowledge.llm.terms import LlmTerms
from falcon_ray.space.configuration import FloatArray

POOLED = (
    "weights",
    "expert_weights",
    "four_bit",
    "cache",
    "linear",
    "attention",
    "exchange",
    "kernel_s",
    "all_reduce_s",
    "step_s",
    "request_s",
    "prefill_linear",
    "prefill_experts",
    "prefill_attention",
    "prefill_exchange",
    "prefill_move",
    "prefill_load",
    "interference",
    "burst",
    "first_token_steps",
    "first_token_s",
    "reserve_bytes",
    "sharpness",
    "spread",
)
"""Constants that all engines share: multiples of ideal time, seconds where a name ends so.

`four_bit` multiplies the reading of such weights; `interference` is the share of a prefill that
holds up others; `burst` the share of the prefills of all that a prompt waits for; `reserve_bytes`
is what the engine keeps of a GPU's memory; `sharpness` how abruptly memory becomes the limit;
`spread` how many tokens that choose their experts by themselves every further request is worth.
"""

ENGINE = ("overhead", "interference", "burst", "step", "first_token_s", "reserve_bytes")
"""Factors of one engine: on kernels, waits and host work; on the constants of the same names; on a
whole decode step."""
_SMALLEST_MEASURED_BYTES = 80e9
"""Memory of the smallest GPU that the constants were fitted to."""

WAITING_SHARE = 0.8
"""Of the requests that memory holds: from there on some may wait, and latencies are less sure."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LlmTimes:
    """What the model says of n deployments; all arrays have shape (n,).

    Attributes:
        tpot_s: Between two tokens of one answer.
        ttft_s: Until the first token, waiting included.
        request_s: Until the last one.
        running: Requests that are computed at a time; the rest waits for memory.
        cache_limit: How many fit at a time.
        parts: What `tpot_s` consists of, by name; they add up to it.
    """

    tpot_s: FloatArray
    ttft_s: FloatArray
    request_s: FloatArray
    running: FloatArray
    cache_limit: FloatArray
    parts: Mapping[str, FloatArray]


def llm_times(
    terms: LlmTerms,
    *,
    concurrency: FloatArray,
    osl: FloatArray,
    pooled: Mapping[str, float],
    engine: Mapping[str, FloatArray],
) -> LlmTimes:
    """Add up the terms.

    Args:
        terms: Of n deployments.
        concurrency: Shape (n,).
        osl: Tokens of an answer, shape (n,).
        pooled: Natural logarithm of each constant in `POOLED`.
        engine: Natural logarithm of each factor in `ENGINE`, shape (n,).
    """
    pool = {name: float(np.exp(pooled[name])) for name in POOLED}
    factor = {name: np.exp(engine[name]) for name in ENGINE}
    limit = _cache_limit(terms, pool["reserve_bytes"] * factor["reserve_bytes"])
    running = _soft_minimum(concurrency, limit, pool["sharpness"])
    prefill = (
        pool["prefill_linear"] * terms.prefill_linear_s
        + pool["prefill_experts"] * terms.prefill_experts_s
        + pool["prefill_attention"] * terms.prefill_attention_s
        + pool["prefill_exchange"] * terms.prefill_exchange_s
        + pool["prefill_move"] * terms.prefill_move_s
    )
    others = np.maximum(running / terms.ranks - 1, 0.0)
    prompt = (
        pool["first_token_s"] * factor["first_token_s"]
        + pool["prefill_load"] * terms.load_s
        + prefill * (1 + pool["burst"] * factor["burst"] * others)
    )
    # While one answer is written, every other request is prefilled once.
    held_up = pool["interference"] * factor["interference"] * prefill / osl

    def serve(decoding: FloatArray) -> tuple[dict[str, FloatArray], FloatArray, FloatArray]:
        parts = _decode_step(terms, decoding, pool, factor)
        first = prompt + pool["first_token_steps"] * _total(parts)
        parts["prefill"] = held_up * decoding / terms.ranks
        return parts, first, _total(parts)

    # Of the requests that run, those are decoded that have had their first token. How many those
    # are depends on how long a step takes, and the reverse: a second pass settles it.
    _, first, tpot = serve(running)
    answer = tpot * (osl - 1)
    parts, first, tpot = serve(np.maximum(running * answer / (first + answer), 1.0))
    answer = tpot * (osl - 1)
    # Little's law: those who wait are to those who run as the time they wait is to service.
    ttft = first + (concurrency / running - 1) * (first + answer)
    return LlmTimes(
        tpot_s=tpot,
        ttft_s=ttft,
        request_s=ttft + answer,
        running=running,
        cache_limit=limit,
        parts=parts,
    )


def _decode_step(
    terms: LlmTerms,
    decoding: FloatArray,
    pool: Mapping[str, float],
    factor: Mapping[str, FloatArray],
) -> dict[str, FloatArray]:
    """What one step for `decoding` requests takes, in parts that add up; all of shape (n,)."""
    on_rank = decoding / terms.ranks
    narrow = np.where(terms.four_bit > 0, pool["four_bit"], 1.0)
    # Expected share of distinct experts; requests that resemble each other count less than one.
    touched = 1 - terms.missed ** (1 + pool["spread"] * (decoding - 1))
    matrices = _roofline(
        {
            "weights": pool["weights"] * narrow * terms.weights_s,
            "experts": pool["expert_weights"] * narrow * touched * terms.expert_weights_s,
        },
        {"linear": pool["linear"] * on_rank * terms.linear_s},
    )
    attention = _roofline(
        {"cache": pool["cache"] * on_rank * terms.cache_s},
        {"attention": pool["attention"] * on_rank * terms.attention_s},
    )
    parts = {
        **matrices,
        **attention,
        "exchange": pool["exchange"] * decoding * terms.exchange_s,
        "kernels": pool["kernel_s"] * factor["overhead"] * terms.kernels,
        "all_reduces": pool["all_reduce_s"] * factor["overhead"] * terms.all_reduces,
        "host": factor["overhead"] * (pool["step_s"] + pool["request_s"] * decoding),
    }
    return {name: factor["step"] * part for name, part in parts.items()}


def _roofline(
    reading: Mapping[str, FloatArray], computing: Mapping[str, FloatArray]
) -> dict[str, FloatArray]:
    """Overlap two sides: the root of the sum of their squares, divided among the parts.

    A rounded maximum: kernels near the ridge of the roofline (Williams et al., 2009) reach neither
    peak. Each side gets the share that its square has, so the parts add up.
    """
    read, computed = sum(reading.values()), sum(computing.values())
    norm = np.hypot(read, computed)
    parts: dict[str, FloatArray] = {}
    for side, total in ((reading, read), (computing, computed)):
        parts |= {name: part * (total / norm) for name, part in side.items()}
    return parts


def _total(parts: Mapping[str, FloatArray]) -> FloatArray:
    first, *others = parts.values()
    total = first.copy()
    for part in others:
        total += part
    return total


def scaled_reserve(terms: LlmTerms, reserve_bytes: FloatArray) -> FloatArray:
    """What an engine keeps for itself on each GPU, shape (n,).

    It was measured on GPUs of 80 GB and more; engines keep a share of smaller ones.
    """
    return reserve_bytes * np.minimum(terms.memory_bytes / _SMALLEST_MEASURED_BYTES, 1.0)


def _cache_limit(terms: LlmTerms, reserve_bytes: FloatArray) -> FloatArray:
    """How many requests find room for their cache, shape (n,); positive even where none does."""
    soft = 0.01 * terms.memory_bytes
    free = terms.memory_bytes - scaled_reserve(terms, reserve_bytes) - terms.weight_bytes
    return soft * np.logaddexp(0.0, free / soft) * terms.ranks / terms.cache_bytes


def _soft_minimum(wanted: FloatArray, limit: FloatArray, sharpness: float) -> FloatArray:
    """A rounded minimum, at least 1."""
    excess = sharpness * (np.log(wanted) - np.log(np.maximum(limit, 1e-9)))
    return np.maximum(wanted * np.exp(-np.logaddexp(0.0, excess) / sharpness), 1.0)
