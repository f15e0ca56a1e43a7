"""What one more trial is worth: how far its score may rise above the best one so far.

An acquisition function knows beliefs and the objective. It knows neither the model behind
the beliefs nor which candidates may still be tried.

Notation: r candidates, s samples, M modelled metrics.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr

from falcon_ray.optimizers.experts import Belief, by_name
from falcon_ray.optimizers.gaussian_process import Posterior
from falcon_ray.space.configuration import FloatArray
from falcon_ray.space.objective import SearchObjective

N_SAMPLES = 96
WIDENINGS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""When no sample improves anywhere, the posteriors are widened by these factors in turn."""


def expected_improvement(mean: FloatArray, std: FloatArray, best: float) -> FloatArray:
    """Expected improvement over `best`; Jones et al. (1998), eq. 15. Scores are maximised.

    Args:
        mean: Posterior means, shape (n,).
        std: Posterior standard deviations, shape (n,), non-negative.
        best: Best observed score, same unit as `mean`.

    Returns:
        Shape (n,), never negative; where `std` is zero, the plain gain max(mean - best, 0).
    """
    gain = mean - best
    certain = std <= 0
    with np.errstate(over="ignore"):  # an infinite z has the right limits below
        z = gain / np.where(certain, 1.0, std)
        density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    improvement = gain * ndtr(z) + std * density
    return np.maximum(np.where(certain, gain, improvement), 0.0)


def antithetic_normals(n_metrics: int, rng: np.random.Generator) -> FloatArray:
    """Standard normal samples in pairs z, -z, so that they average to exactly 0.

    Hammersley & Morton (1956). All candidates share them: differences between candidates then
    come from their posteriors, not from the luck of the draw.

    Returns:
        Shape (96, M).
    """
    half = rng.standard_normal((N_SAMPLES // 2, n_metrics))
    return np.concatenate([half, -half])


def score_samples(
    posterior: Posterior,
    objective: SearchObjective,
    usd_per_hour: FloatArray,
    normals: FloatArray,
) -> FloatArray:
    """Draw all modelled metrics jointly and score each draw, zero where it breaks a limit.

    Score and feasibility come from the same draw, in which metrics go together as the posterior
    says.

    Args:
        posterior: Of the log metrics of r candidates.
        objective: Turns metrics into scores.
        usd_per_hour: Price of each candidate, shape (r,).
        normals: Standard normal samples, shape (s, M), a column per metric in order.

    Returns:
        Scores, shape (s, r), never negative.
    """
    root = lower_roots(posterior.covariance)
    logs = posterior.mean.T + np.einsum("rab,sb->sra", root, normals)
    return objective.score(by_name(objective, np.exp(logs.transpose(2, 0, 1))), usd_per_hour)


def lower_roots(covariance: FloatArray) -> FloatArray:
    """Cholesky roots of many small covariances that may be singular, shape (r, M, M)."""
    root = np.zeros_like(covariance)
    for i in range(covariance.shape[1]):
        for j in range(i + 1):
            rest = covariance[:, i, j] - (root[:, i, :j] * root[:, j, :j]).sum(axis=1)
            if i == j:
                root[:, i, i] = np.sqrt(np.maximum(rest, 0.0))
            else:
                pivot = root[:, j, j]
                root[:, i, j] = np.where(pivot > 0, rest / np.where(pivot > 0, pivot, 1.0), 0.0)
    return root


def constrained_expected_improvement(scores: FloatArray, best: float) -> FloatArray:
    """Mean gain over `best` among sampled scores, where an infeasible sample scores 0.

    The Monte Carlo estimate of the constrained expected improvement (Schonlau et al., 1998,
    section 4; Gardner et al., 2014, eq. 6), from joint draws instead of a product.

    Args:
        scores: Shape (s, n), from `score_samples`.
        best: Best feasible score so far; with 0, before the first one, the result is the
            expected score: value times feasibility.

    Returns:
        Shape (n,), never negative.
    """
    return np.maximum(scores - best, 0.0).mean(axis=0)


def expected_gains(
    beliefs: Sequence[Belief],
    objective: SearchObjective,
    usd_per_hour: FloatArray,
    *,
    best: float,
    normals: FloatArray,
    widen: bool = False,
) -> FloatArray:
    """Constrained expected improvement under a mixture: that of every expert, by weight.

    Args:
        beliefs: Of r candidates.
        objective: Turns metrics into scores.
        usd_per_hour: Price of each candidate, shape (r,).
        best: Best feasible score so far, 0 before the first one.
        normals: Standard normal samples, shape (s, M).
        widen: Whether wider beliefs stand in where no sample improves anywhere: enough to rank
            candidates by, and no expectation.

    Returns:
        Shape (r,), never negative.
    """
    gains = np.zeros(usd_per_hour.size)
    for widening in WIDENINGS if widen else WIDENINGS[:1]:
        for belief in beliefs:
            scores = score_samples(belief.posterior, objective, usd_per_hour, widening * normals)
            gains += belief.weight * constrained_expected_improvement(scores, best)
        if gains.any():
            break
    return gains
