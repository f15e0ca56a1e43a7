"""Which candidates will run at all, judged by the trials that did and did not.

It knows coordinates and verdicts. It does not know why a trial was infeasible, nor the rules
that some reasons imply (out of memory: a larger batch will not fit either).
"""

import numpy as np
from scipy.special import ndtr

from falcon_ray.optimizers.gaussian_process import fixed_posterior
from falcon_ray.optimizers.history import IndexArray
from falcon_ray.space.configuration import FloatArray

LABEL = 2.0
"""What a trial that ran shows of the latent margin; an infeasible one shows minus as much."""
PRIOR_MARGIN = 1.3
SIGNAL_SD = 1.5
NOISE_SD = 0.5


def probability_of_running(
    coordinates: FloatArray, ran: IndexArray, infeasible: IndexArray
) -> FloatArray:
    """Probability that a trial runs, from a Gaussian process on a latent margin.

    Least-squares classification: the verdicts are regressed on as labels, and the posterior of
    the margin is squashed by the probit (Rasmussen & Williams, 2006, section 6.5 and eq. 3.82).
    Unlike an average over neighbours it carries a boundary on beyond the trials. The constants
    were chosen on llm_large_space.parquet, where a fifth of the candidates is out of memory.

    Args:
        coordinates: All candidates, shape (n, d), from `kernel_coordinates`.
        ran: Rows of the trials that were measured, shape (k,).
        infeasible: Rows of the trials that were INFEASIBLE, shape (l,).

    Returns:
        Shape (n,), in (0, 1); exactly 1 while no trial was infeasible.
    """
    if infeasible.size == 0:
        return np.ones(len(coordinates))
    margin = fixed_posterior(
        coordinates,
        np.concatenate([ran, infeasible]),
        np.concatenate([np.full(ran.size, LABEL), np.full(infeasible.size, -LABEL)]),
        prior_mean=PRIOR_MARGIN,
        signal_sd=SIGNAL_SD,
        noise_sd=NOISE_SD,
    )
    return ndtr(margin.mean / np.sqrt(1 + margin.sd**2))
