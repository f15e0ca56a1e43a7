"""Which candidates will run at all, judged by their needs and by the trials that did and did not.

Memory has a law: who needs more of it than another that did not fit will not fit either. What else
keeps a trial from running has none, and is learnt from neighbours. The module does not know where
needs of memory come from.

Notation: n candidates, r of them asked for.
"""

from dataclasses import dataclass

import numpy as np
from scipy import linalg
from scipy.special import log_ndtr, ndtr

from falcon_ray.optimizers.coordinates import Coordinates, IndexArray
from falcon_ray.optimizers.remembering import spread
from falcon_ray.space.configuration import ConfigurationSpace, FloatArray
from falcon_ray.space.dimension import Scale

LABEL = 2.0
"""What a trial that ran shows of the latent margin; an infeasible one shows minus as much."""
PRIOR_MARGIN = 1.3
OFFSET_SD = 0.5
SIGNAL_SD = 1.5
NOISE_SD = 0.5

MEMORY_OFFSET_SD = 0.35
"""Prior sd of the log of how far needs of memory are off for this model as a whole."""
MEMORY_SD = 0.2
"""Sd of the log of the rest."""
GROWING = frozenset({"batch_size", "concurrency"})
"""Dimensions along which nothing but the need of memory grows, everything else equal."""
_OFFSETS: FloatArray = MEMORY_OFFSET_SD * np.linspace(-4, 4, 81, dtype=np.float64)
_LEAST = 1e-3
MAX_VERDICTS = 256
"""Of trials that ran, and of those that did not, from which neighbours learn, at most."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verdicts:
    """How trials ended, as positions of candidates; repeats are allowed.

    Attributes:
        ran: Those that were measured.
        out_of_memory: Those whose memory did not suffice.
        other: Those that did not run for another reason.
    """

    ran: IndexArray
    out_of_memory: IndexArray
    other: IndexArray


class Feasibility:
    """Probabilities of running.

    Args:
        space: The n candidates.
        coordinates: Of them.
        log_memory_share: Log of the memory that a candidate needs over what it may use, shape
            (n,); None where nothing is known.
    """

    def __init__(
        self,
        space: ConfigurationSpace,
        coordinates: Coordinates,
        log_memory_share: FloatArray | None,
    ) -> None:
        self._space = space
        self._coordinates = coordinates
        self._share = log_memory_share

    def probability(self, rows: IndexArray, verdicts: Verdicts) -> FloatArray:
        """Probability that a trial of each candidate runs, shape (r,), in (0, 1]."""
        probability = self._fits(rows, verdicts)
        learnt = verdicts.other
        if self._share is None:
            learnt = np.concatenate([learnt, verdicts.out_of_memory])
        probability = probability * probability_of_running(
            self._coordinates, rows, verdicts.ran, learnt
        )
        return np.where(self._is_ruled_out(rows, verdicts.out_of_memory), _LEAST, probability)

    def _fits(self, rows: IndexArray, verdicts: Verdicts) -> FloatArray:
        """Probability that memory suffices: the posterior of where the threshold lies.

        Needs are off by one factor for the whole model, known up to 0.35 in log, and by 0.2 from
        candidate to candidate; every trial that ran or did not moves the former.
        """
        if self._share is None:
            return np.ones(rows.size)
        ran, out = self._share[verdicts.ran], self._share[verdicts.out_of_memory]
        log_weight = -0.5 * (_OFFSETS / MEMORY_OFFSET_SD) ** 2
        log_weight = log_weight + log_ndtr(-(ran + _OFFSETS[:, None]) / MEMORY_SD).sum(axis=1)
        log_weight = log_weight + log_ndtr((out + _OFFSETS[:, None]) / MEMORY_SD).sum(axis=1)
        weight = np.exp(log_weight - log_weight.max())
        weight: FloatArray = np.asarray(weight / weight.sum(), dtype=np.float64)
        # A smooth function of one number: a table of it serves a million candidates.
        share = self._share[rows]
        grid = np.linspace(-4.0, 4.0, 401, dtype=np.float64)
        shifted: FloatArray = np.array([grid + each for each in _OFFSETS], dtype=np.float64)
        fits = np.asarray(ndtr(-shifted / MEMORY_SD), dtype=np.float64)
        table: FloatArray = np.asarray(weight @ fits, dtype=np.float64)
        found: FloatArray = np.interp(share, grid, table)
        return np.clip(found, _LEAST, 1.0)

    def _is_ruled_out(self, rows: IndexArray, out_of_memory: IndexArray) -> np.ndarray:
        """Whether a candidate does more at a time of what did not fit before, shape (r,)."""
        codes, found = self._space.codes, np.zeros(rows.size, dtype=np.bool_)
        growing = [
            each.name in GROWING and each.scale is not Scale.CATEGORICAL
            for each in self._space.dimensions
        ]
        if not any(growing):
            return found
        grows = np.array(growing)
        fixed, amounts = codes[rows][:, ~grows], codes[rows][:, grows]
        for row in np.unique(out_of_memory):
            same = (fixed == codes[row][~grows]).all(axis=1)
            found |= same & (amounts >= codes[row][grows]).all(axis=1)
        return found


def probability_of_running(
    coordinates: Coordinates, rows: IndexArray, ran: IndexArray, infeasible: IndexArray
) -> FloatArray:
    """Probability that a trial runs, from a Gaussian process on a latent margin.

    Least-squares classification: the verdicts are regressed on as labels, and the posterior of
    the margin is squashed by the probit (Rasmussen & Williams, 2006, section 6.5 and eq. 3.82).
    Unlike an average over neighbours it carries a boundary on beyond the trials. The constants
    were chosen on llm_large_space.parquet, where a fifth of the candidates is out of memory.

    Args:
        coordinates: Of all candidates.
        rows: Candidates that are asked for, shape (r,).
        ran: Candidates of the trials that were measured, shape (k,).
        infeasible: Candidates of the trials that were INFEASIBLE, shape (l,).

    Returns:
        Shape (r,), in (0, 1); exactly 1 while no trial was infeasible.
    """
    if infeasible.size == 0:
        return np.ones(rows.size)
    ran = spread(coordinates, ran, at_most=MAX_VERDICTS)
    infeasible = spread(coordinates, infeasible, at_most=MAX_VERDICTS)
    seen = np.concatenate([ran, infeasible])
    labels = np.concatenate([np.full(ran.size, LABEL), np.full(infeasible.size, -LABEL)])
    prior = OFFSET_SD**2 + SIGNAL_SD**2
    own = OFFSET_SD**2 + SIGNAL_SD**2 * coordinates.correlation(seen, seen)
    lower = linalg.cholesky(own + NOISE_SD**2 * np.eye(seen.size), lower=True)
    cross = OFFSET_SD**2 + SIGNAL_SD**2 * coordinates.correlation(seen, rows)
    explained = linalg.solve_triangular(lower, cross, lower=True)
    margin = PRIOR_MARGIN + explained.T @ linalg.solve_triangular(
        lower, labels - PRIOR_MARGIN, lower=True
    )
    variance = np.maximum(prior - (explained**2).sum(axis=0), 0.0)
    return np.asarray(ndtr(margin / np.sqrt(1 + variance)), dtype=np.float64)
