"""What engines make of ideal times: the most probable constants, given where they are expected.

Every constant is fitted on the logarithm and held near an order of magnitude, and an engine's
factors near those of all engines, because few families of models have been measured. How firmly is
`evidence`, an argument: `chosen_evidence` takes the one with which families that a fit has not
seen are predicted best. The module makes no error bars.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from falcon_ray.knowledge.llm.measured import MeasuredLlms
from falcon_ray.knowledge.llm.model import ENGINE, POOLED, LlmTimes, llm_times
from falcon_ray.space.configuration import FloatArray

CENTRES: Mapping[str, float] = MappingProxyType(
    {
        "weights": 1.3,
        "expert_weights": 1.3,
        "four_bit": 1.2,
        "cache": 1.3,
        "linear": 1.8,
        "attention": 1.8,
        "exchange": 1.3,
        "kernel_s": 5e-6,
        "all_reduce_s": 5e-6,
        "step_s": 4e-4,
        "request_s": 1e-5,
        "prefill_linear": 1.8,
        "prefill_experts": 1.8,
        "prefill_attention": 1.8,
        "prefill_exchange": 1.3,
        "prefill_move": 1.0,
        "prefill_load": 1.0,
        "interference": 1.0,
        "burst": 0.2,
        "first_token_steps": 1.0,
        "first_token_s": 2e-2,
        "reserve_bytes": 12 * 2.0**30,
        "sharpness": 6.0,
        "spread": 0.7,
    }
)
"""Where a constant is expected before any data: half to three quarters of a peak, some microseconds
for a launch. Data moves them; they decide where data is silent. They were set by hand, by people
who had seen measurements of all families, so they are no evidence: how much hangs on them is a
figure of the study. That experts of a prefill have a constant of their own, that requests share
experts (`spread`), that engines differ in `burst`, and in how many bits caches are kept, was
decided after a look at families left out, too."""
_SDS: Mapping[str, float] = MappingProxyType(
    {
        "four_bit": 0.1,
        "kernel_s": 1.0,
        "all_reduce_s": 1.0,
        "step_s": 1.0,
        "request_s": 1.0,
        "prefill_move": 1.0,
        "prefill_load": 1.0,
        "interference": 0.2,
        "burst": 1.0,
        "first_token_steps": 1.0,
        "first_token_s": 1.0,
        "reserve_bytes": 0.3,
        "sharpness": 0.3,
    }
)
"""Sd of the logarithm around the centre, where it is not `_SD`."""
_SD = 0.5
_ENGINE_SD: Mapping[str, float] = MappingProxyType(
    {
        "overhead": 0.15,
        "interference": 0.2,
        "burst": 0.3,
        "step": 0.05,
        "first_token_s": 1.0,
        "reserve_bytes": 0.2,
    }
)
"""How far the engines are expected apart."""
_NOISE = 0.3
"""Log-error up to which a residual counts by its square, beyond by its size: tails are heavy."""
EVIDENCES = (1.0, 3.0, 10.0)
"""How many independent rows a family may count as against the centres: what is special to a family
is shared by all of its rows, so it is few, but a family is one observation at least. Below one the
choice within three families is a poor guide: down to 0.1 it would take that, and order the
configurations of the fourth worse."""


@dataclass(frozen=True, slots=True, eq=False)
class LlmFit:
    """Logs of fitted constants.

    Attributes:
        pooled: Of `POOLED`, shape (p,).
        engine: Factors of `ENGINE` by engine, shape (f, engines).
        covariance: Of all of them, engines last and fastest, shape (p + f engines,) squared.
    """

    pooled: FloatArray
    engine: FloatArray
    covariance: FloatArray

    def times(self, rows: MeasuredLlms) -> LlmTimes:
        """What the fit says of measured deployments."""
        return _times(rows, self.pooled, self.engine)

    def residuals(self, rows: MeasuredLlms) -> FloatArray:
        """Log of measured over predicted, shape (3, n), in the order of `log_seconds`."""
        return _residuals(rows, self.pooled, self.engine)


def fit_llms(
    rows: MeasuredLlms,
    evidence: float,
    *,
    centres: Mapping[str, float] = CENTRES,
    start: LlmFit | None = None,
) -> LlmFit:
    """Maximum a posteriori, with the covariance of the logs by Gauss and Newton.

    Families weigh the same, however many rows they have.

    Args:
        rows: Measured deployments.
        evidence: How many independent rows a family counts as.
        centres: Where the constants of `POOLED` are expected.
        start: A fit to similar rows, from which the search goes faster than from the centres.
    """
    p, f, n_engines = len(POOLED), len(ENGINE), len(rows.engines)
    centre = np.concatenate([np.log([centres[name] for name in POOLED]), np.zeros(f * n_engines)])
    spread = np.array(
        [_SDS.get(name, _SD) for name in POOLED]
        + [_ENGINE_SD[name] for name in ENGINE for _ in range(n_engines)]
    )
    _, inverse, counts = np.unique(rows.family, return_inverse=True, return_counts=True)
    scale = np.sqrt(counts.mean() / counts[inverse]) / _NOISE
    hold = np.sqrt(counts.mean() / evidence)

    def misfit(z: FloatArray) -> FloatArray:
        values = centre + spread * z
        residuals = _residuals(rows, values[:p], values[p:].reshape(f, n_engines))
        return np.concatenate([(scale * residuals).ravel(), hold * z])

    first = np.zeros_like(centre)
    if start is not None:
        first = (np.concatenate([start.pooled, start.engine.ravel()]) - centre) / spread
    found = least_squares(misfit, first, loss="soft_l1", max_nfev=50, xtol=1e-4, ftol=1e-4)
    values = centre + spread * found.x
    jacobian = np.asarray(found.jac, dtype=np.float64) / float(hold)
    precision: FloatArray = jacobian.T @ jacobian
    covariance = np.asarray(np.linalg.inv(precision), dtype=np.float64)
    return LlmFit(
        values[:p], values[p:].reshape(f, n_engines), covariance * np.outer(spread, spread)
    )


def held_out_residuals(
    rows: MeasuredLlms,
    group: NDArray[np.str_],
    evidence: float,
    *,
    centres: Mapping[str, float] = CENTRES,
    start: LlmFit | None = None,
) -> FloatArray:
    """Residuals of every row by a fit that has not seen its group, shape (3, n).

    Where all rows are one group, they are 0.
    """
    residuals = np.zeros_like(rows.log_seconds)
    for name in sorted(set(group)):
        out = group == name
        if not out.all():
            known = fit_llms(rows.take(~out), evidence, centres=centres, start=start)
            residuals[:, out] = known.residuals(rows.take(out))
    return residuals


def chosen_evidence(rows: MeasuredLlms) -> tuple[float, FloatArray]:
    """The evidence of `EVIDENCES` that predicts families left out best, and its residuals.

    Best is the least mean absolute log-error of a whole request's time, the same weight for each
    family.

    Returns:
        The evidence, and what `held_out_residuals` says with it, shape (3, n).
    """
    best: tuple[float, float, FloatArray] | None = None
    for evidence in EVIDENCES:
        residuals = held_out_residuals(rows, rows.family, evidence)
        errors = [np.abs(residuals[2, rows.family == name]).mean() for name in set(rows.family)]
        error = float(np.mean(errors))
        if best is None or error < best[0]:
            best = (error, evidence, residuals)
    assert best is not None
    return best[1], best[2]


def _times(rows: MeasuredLlms, pooled: FloatArray, engine: FloatArray) -> LlmTimes:
    return llm_times(
        rows.terms,
        concurrency=rows.concurrency,
        osl=rows.osl,
        pooled=dict(zip(POOLED, pooled, strict=True)),
        engine={name: engine[i][rows.engine] for i, name in enumerate(ENGINE)},
    )


def _residuals(rows: MeasuredLlms, pooled: FloatArray, engine: FloatArray) -> FloatArray:
    times = _times(rows, pooled, engine)
    return rows.log_seconds - np.log(np.stack([times.tpot_s, times.ttft_s, times.request_s]))
