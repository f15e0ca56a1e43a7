"""Several predictions of one latency as one: a precision-weighted mean in log space.

The module knows means, error bars and how much errors have in common. It does not know where a
prediction comes from.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from falcon_ray.space.configuration import FloatArray

SHARED_ERROR = 0.5
"""Correlation of the errors of two predictors: what is odd about a model misleads both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyEstimate:
    """Log seconds of one forward pass at b batch sizes, by one predictor or by several.

    Attributes:
        log_seconds: Natural log, shape (b,).
        sd: Of it, shape (b,).
        operator_seconds: All calls of each operator together, one array (b, k) per element of
            the `FamilyCalls` that were asked for.
        host_seconds: Of all launches together, which no share of a GPU slows.
        basis: What the prediction stands on, in words.
        warnings: Where that is thin, one line each.
    """

    log_seconds: FloatArray
    sd: FloatArray
    operator_seconds: tuple[FloatArray, ...]
    basis: str
    host_seconds: float = 0.0
    warnings: tuple[str, ...] = ()


def combined(estimates: Sequence[LatencyEstimate]) -> LatencyEstimate:
    """The precision-weighted mean of several estimates of the same latencies.

    Its sd takes the errors for correlated by `SHARED_ERROR`: two predictors that agree do not
    make each other much surer. The operators are those of the surest estimate, scaled to the
    combined total.

    Args:
        estimates: At least one.

    Raises:
        ValueError: There is none.
    """
    if not estimates:
        raise ValueError("there is no estimate to combine; ask for what the profile knows first")
    if len(estimates) == 1:
        return estimates[0]
    sds = np.stack([each.sd for each in estimates])
    weights = sds**-2 / (sds**-2).sum(axis=0)
    logs = np.stack([each.log_seconds for each in estimates])
    mean = (weights * logs).sum(axis=0)
    weighted = weights * sds
    own, total = (weighted**2).sum(axis=0), weighted.sum(axis=0) ** 2
    sd = np.sqrt((1 - SHARED_ERROR) * own + SHARED_ERROR * total)
    surest = estimates[int(np.argmin(sds.mean(axis=1)))]
    factor = np.exp(mean - surest.log_seconds)[:, None]
    return LatencyEstimate(
        log_seconds=mean,
        sd=sd,
        operator_seconds=tuple(factor * each for each in surest.operator_seconds),
        basis=" and ".join(dict.fromkeys(each.basis for each in estimates)),
        host_seconds=surest.host_seconds,
        warnings=tuple(dict.fromkeys(line for each in estimates for line in each.warnings)),
    )


def scaled(estimate: LatencyEstimate, *, log_factor: float, extra_sd: float) -> LatencyEstimate:
    """The same latencies in a setting that is slower by a factor known up to an error.

    Launches are not slower there.
    """
    total = np.exp(estimate.log_seconds)
    host = np.minimum(estimate.host_seconds, total)
    return LatencyEstimate(
        log_seconds=np.log((total - host) * np.exp(log_factor) + host),
        sd=np.hypot(estimate.sd, extra_sd),
        operator_seconds=tuple(np.exp(log_factor) * each for each in estimate.operator_seconds),
        basis=estimate.basis,
        host_seconds=estimate.host_seconds,
        warnings=estimate.warnings,
    )


def between(
    low: LatencyEstimate, high: LatencyEstimate, *, position: float, extra_sd: float
) -> LatencyEstimate:
    """Log-linear inter- or extrapolation between two settings.

    Args:
        low: At position 0.
        high: At position 1.
        position: Where; outside [0, 1] it extrapolates.
        extra_sd: What that adds to the error.
    """

    def mixed(a: FloatArray, b: FloatArray) -> FloatArray:
        return (1 - position) * a + position * b

    return LatencyEstimate(
        log_seconds=mixed(low.log_seconds, high.log_seconds),
        sd=np.hypot(np.maximum(low.sd, high.sd), extra_sd),
        operator_seconds=tuple(
            np.exp(mixed(np.log(a), np.log(b)))
            for a, b in zip(low.operator_seconds, high.operator_seconds, strict=True)
        ),
        basis=low.basis,
        warnings=tuple(dict.fromkeys((*low.warnings, *high.warnings))),
    )
