"""What the calibrated terms of a served language model leave unexplained, learned from others.

A ridge regression of log errors on logs of physical ratios, and on which engine runs on which type
of GPU, with experts or without. It is a table of named numbers, so a profile can carry it. The
module does not know where errors come from, nor how much of a new model's error this explains:
`experts` leaves families out to find that.

Notation: n deployments; k coefficients; logarithms are natural.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from falcon_ray.errors import InputError
from falcon_ray.knowledge.constants import ANY_DEVICE, Constants
from falcon_ray.knowledge.llm.deployments import IntArray
from falcon_ray.knowledge.llm.measured import MeasuredLlms
from falcon_ray.knowledge.llm.terms import LlmTerms
from falcon_ray.space.configuration import FloatArray

RATIOS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "requests": (3.0, 1.5),
        "prefill": (-2.5, 1.2),
        "memory": (-0.7, 0.5),
        "prefill_load": (-1.5, 1.0),
        "first_token": (3.0, 1.0),
    }
)
"""Logs that errors may depend on, each with the centre and the scale that make it about 1: requests
on a rank, ideal seconds of a prefill, memory needed over available, prefills of all requests over
the time of an answer, first token over the time between two. The numbers are round and were set by
hand, with the measured tables in sight."""
_FARTHEST = 2.5
"""Scaled ratios beyond this count as this: a straight line is no guide far from the data."""
_EFFECT_SD = 0.1
"""How far apart engines, types of GPU and their combinations are expected at most."""
_FAMILY_SD = 0.4
"""How far a family as a whole may be off; that part is no correction."""
_ROWS_PER_FAMILY = 20.0
"""How many independent rows a family counts as: most of its errors are shared by many rows."""
_NOISE = 0.5
"""Log-error up to which a residual counts by its square, beyond by its size."""
_N_REWEIGHTINGS = 4


def correction_ratios(
    terms: LlmTerms,
    *,
    concurrency: FloatArray,
    osl: FloatArray,
    log_ttft_s: FloatArray,
    log_tpot_s: FloatArray,
    log_memory_share: FloatArray,
) -> FloatArray:
    """`RATIOS` of n deployments, scaled, shape (n, 5).

    Args:
        terms: Ideal times.
        concurrency: Requests under way, shape (n,).
        osl: Tokens of an answer, shape (n,).
        log_ttft_s: Predicted without correction, shape (n,).
        log_tpot_s: Likewise.
        log_memory_share: Log of memory needed over available, shape (n,).
    """
    requests = np.log(concurrency / terms.ranks)
    prefill = np.log(
        terms.prefill_linear_s
        + terms.prefill_experts_s
        + terms.prefill_attention_s
        + terms.prefill_exchange_s
        + terms.prefill_move_s
    )
    raw = np.stack(
        [
            requests,
            prefill,
            log_memory_share,
            prefill + requests - log_tpot_s - np.log(osl),
            log_ttft_s - log_tpot_s,
        ],
        axis=1,
    )
    centre, scale = np.array(list(RATIOS.values())).T
    return np.clip((raw - centre) / scale, -_FARTHEST, _FARTHEST)


@dataclass(frozen=True, slots=True, eq=False)
class LlmCorrection:
    """Coefficients of one metric's log error, by name.

    Attributes:
        coefficients: Of `RATIOS` by their names, and of effects by names such as "vllm",
            "H100", "vllm H100", "H100 experts", "vllm H100 experts". One that is missing is 0.
    """

    coefficients: Mapping[str, float]

    @classmethod
    def of_constants(cls, constants: Constants) -> "LlmCorrection":
        """Read the row of a profile."""
        return cls(dict(zip(constants.terms, constants.values.tolist(), strict=True)))

    def __call__(
        self,
        ratios: FloatArray,
        *,
        engines: Sequence[str],
        engine: IntArray,
        gpus: Sequence[str],
        gpu: IntArray,
        has_experts: bool,
    ) -> FloatArray:
        """What to add to the predicted log of n deployments of one model, shape (n,).

        Args:
            ratios: From `correction_ratios`, shape (n, 5).
            engines: Names of engines.
            engine: Index into `engines`, shape (n,).
            gpus: Names of types of GPU.
            gpu: Index into `gpus`, shape (n,).
            has_experts: Whether the model has some.
        """
        table = np.array(
            [
                [
                    sum(self.coefficients.get(name, 0.0) for name in _effects(a, b, has_experts))
                    for b in gpus
                ]
                for a in engines
            ]
        )
        slopes = np.array([self.coefficients.get(name, 0.0) for name in RATIOS])
        return ratios @ slopes + table[engine, gpu]


def fit_correction(
    rows: MeasuredLlms, ratios: FloatArray, residual: FloatArray, *, slope_sd: float
) -> tuple[tuple[str, ...], FloatArray, FloatArray]:
    """Maximum a posteriori under normal priors, by reweighted least squares.

    Families weigh the same, and each may be off as a whole by an amount that is not learned.

    Args:
        rows: Measured deployments.
        ratios: Of theirs, shape (n, 5).
        residual: Log of measured over predicted, shape (n,).
        slope_sd: How large the coefficients of the ratios are expected.

    Returns:
        Names, values of shape (k,), and their covariance, shape (k, k).
    """
    names, effects = _effect_columns(rows)
    families, family, counts = np.unique(rows.family, return_inverse=True, return_counts=True)
    shared = (family[:, None] == np.arange(families.size)).astype(np.float64)
    design = np.hstack([ratios, effects, shared])
    sds = np.concatenate(
        [
            np.full(len(RATIOS), slope_sd),
            np.full(len(names), min(_EFFECT_SD, slope_sd)),
            np.full(families.size, _FAMILY_SD),
        ]
    )
    plain = _ROWS_PER_FAMILY / counts[family] / _NOISE**2
    weight = plain
    covariance: FloatArray = np.diag(sds**2)
    values = np.zeros(sds.size)
    for _ in range(_N_REWEIGHTINGS):
        weighted = design * weight[:, None]
        precision = design.T @ weighted + np.diag(sds**-2)
        covariance = np.asarray(np.linalg.inv(precision), dtype=np.float64)
        values = covariance @ (weighted.T @ residual)
        weight = plain / np.hypot(1.0, (residual - design @ values) / _NOISE)
    k = len(RATIOS) + len(names)
    return (*RATIOS, *names), values[:k], covariance[:k, :k]


def corrected_residual(
    rows: MeasuredLlms,
    ratios: FloatArray,
    residual: FloatArray,
    names: Sequence[str],
    values: FloatArray,
) -> FloatArray:
    """What is left of the log errors of measured deployments, shape (n,)."""
    coefficients = dict(zip(names, values.tolist(), strict=True))
    known, effects = _effect_columns(rows)
    slopes = np.array([coefficients[name] for name in RATIOS])
    shifts = np.array([coefficients.get(name, 0.0) for name in known])
    return residual - ratios @ slopes - effects @ shifts


def correction_constants(
    metric: str,
    fitted: tuple[tuple[str, ...], FloatArray, FloatArray],
    *,
    n: int,
    source: str,
) -> Constants:
    """The row of a profile that `LlmCorrection.of_constants` reads.

    Raises:
        InputError: A number is not finite.
    """
    names, values, covariance = fitted
    if len(set(names)) != len(names):
        raise InputError(f"an engine or a GPU is named like a ratio: {sorted(names)}; rename it")
    return Constants(
        predictor="llm.correction",
        device=ANY_DEVICE,
        dtype="*",
        mode=metric,
        terms=names,
        values=values,
        covariance=covariance,
        residual_sd=0.0,
        n=n,
        source=source,
    )


def _effects(engine: str, gpu: str, has_experts: bool) -> tuple[str, ...]:
    """Names of the effects on one kind of deployment, from the general to the special."""
    plain = (engine, gpu, f"{engine} {gpu}")
    return (*plain, f"{gpu} experts", f"{engine} {gpu} experts") if has_experts else plain


def _effect_columns(rows: MeasuredLlms) -> tuple[tuple[str, ...], FloatArray]:
    """Names of the effects that occur, and where they do, shape (n, names)."""
    experts: NDArray[np.bool_] = rows.terms.expert_weights_s > 0
    kinds: dict[tuple[str, str, bool], list[int]] = {}
    for i, (engine, gpu, has) in enumerate(zip(rows.engine, rows.gpu_type, experts, strict=True)):
        kinds.setdefault((rows.engines[int(engine)], str(gpu), bool(has)), []).append(i)
    names = tuple(dict.fromkeys(name for kind in sorted(kinds) for name in _effects(*kind)))
    place = {name: j for j, name in enumerate(names)}
    columns = np.zeros((rows.osl.size, len(names)))
    for kind, members in kinds.items():
        columns[np.ix_(members, [place[name] for name in _effects(*kind)])] = 1.0
    return names, columns
