"""What one more trial is worth: how far its score may rise above the best one so far.

An acquisition function knows posteriors and the objective. It knows neither the model behind
the posteriors nor which candidates may still be tried.

Notation: n candidates, s samples, m modelled metrics.
"""

from collections.abc import Mapping

import numpy as np
from scipy.special import ndtr

from falcon_ray.optimizers.gaussian_process import Posterior
from falcon_ray.space.configuration import FloatArray
from falcon_ray.space.objective import Objective

N_SAMPLES = 96


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
        Shape (96, m).
    """
    half = rng.standard_normal((N_SAMPLES // 2, n_metrics))
    return np.concatenate([half, -half])


def score_samples(
    posteriors: Mapping[str, Posterior],
    objective: Objective,
    usd_per_hour: FloatArray,
    normals: FloatArray,
) -> FloatArray:
    """Draw all modelled metrics jointly and score each draw, zero where it breaks the SLO.

    Score and feasibility come from the same draw, so nothing is assumed of how they go
    together beyond independent metrics.

    Args:
        posteriors: One per modelled metric, over the same n candidates.
        objective: Turns metrics into scores.
        usd_per_hour: Price of each candidate, shape (n,).
        normals: Standard normal samples, shape (s, m), a column per metric in order.

    Returns:
        Scores, shape (s, n), never negative.
    """
    metrics = {
        name: np.exp(posterior.mean + posterior.sd * normals[:, column, np.newaxis])
        for column, (name, posterior) in enumerate(posteriors.items())
    }
    return objective.score(metrics, usd_per_hour)


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
