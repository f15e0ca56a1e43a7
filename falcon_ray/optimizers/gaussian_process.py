"""A Gaussian process over the candidates for the logarithms of several metrics at once.

Residuals of serving metrics are multiplicative, so the process models natural logarithms: one
noise level then fits every GPU. Metrics are modelled together, because what makes one of them
differ from what was expected moves the others, and because a trial may show one and not another.
It knows correlations and numbers. It knows neither what the metrics measure nor what makes one
candidate better than another.

Notation, over n candidates and M metrics of which k values were observed (Rasmussen & Williams,
"Gaussian Processes for Machine Learning", 2006, chapter 2):

    m(x)    mean before any observation: what an expert predicts
    y       observed logs, shape (k,):  y = m(x) + offset + f(x) + noise
            offset ~ N(0, o^2)            the same for all candidates of a metric
            f      ~ GP(0, s(x) s(x') r(x, x'))  s is the expert's own residual error
            noise  ~ N(0, 0.05^2)         independent in every trial, larger for an outlier
    B       correlation of offsets and of deviations between metrics, shape (M, M): the intrinsic
            model of coregionalisation (Goovaerts, 1997, section 4.2.2)
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from scipy.optimize import minimize

from falcon_ray.optimizers.coordinates import Coordinates, IndexArray
from falcon_ray.space.configuration import FloatArray

NOISE_SD = 0.05
MIN_OBSERVATIONS_TO_FIT = 8
"""Fitting hyperparameters to fewer trials is what breaks plain Gaussian-process search."""
HYPERPARAMETER_SD = np.array([0.5, 0.5, 0.5])
"""Log-normal prior sd of the factors on f's sd, the length scale and the noise sd."""
OUTLIER_Z = 3.0
"""A value that the others leave so many sds away counts less: its noise grows until it is not."""
_JITTER = 1e-9
_REWEIGHTINGS = 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evidence:
    """Values that were observed.

    Attributes:
        rows: Candidate of each value, shape (k,); repeats are allowed.
        metric: Position of its metric, shape (k,).
        logs: Natural log of it, shape (k,).
    """

    rows: IndexArray
    metric: IndexArray
    logs: FloatArray

    def of(self, candidates: IndexArray) -> "Evidence":
        """What was observed of some candidates, in the same order."""
        kept = np.isin(self.rows, candidates)
        return Evidence(rows=self.rows[kept], metric=self.metric[kept], logs=self.logs[kept])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Expectation:
    """What is expected before any observation.

    Attributes:
        mean: Expected logs, shape (M, n).
        offset_sd: Shape (M,).
        residual_sd: Shape (M, n) or (M, 1).
        correlation: Between metrics, B, shape (M, M).
    """

    mean: FloatArray
    offset_sd: FloatArray
    residual_sd: FloatArray
    correlation: FloatArray

    def sds(self, metric: IndexArray, rows: IndexArray) -> FloatArray:
        """s(x) of values, shape of `rows`."""
        if self.residual_sd.shape[1] == 1:
            return self.residual_sd[metric, 0]
        return self.residual_sd[metric, rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperparameters:
    """Factors on what is expected of the errors; 1 until enough was observed."""

    residual: float = 1.0
    length_scale: float = 1.0
    noise: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Posterior:
    """What is believed of M log metrics of r candidates.

    Attributes:
        mean: Shape (M, r).
        covariance: Between the metrics of one candidate, without noise, shape (r, M, M).
    """

    mean: FloatArray
    covariance: FloatArray

    @property
    def sd(self) -> FloatArray:
        """Standard deviations, shape (M, r)."""
        variance = np.diagonal(self.covariance, axis1=1, axis2=2).T
        return np.sqrt(np.maximum(variance, 0.0))


class LogProcess:
    """The process, given what was observed.

    Args:
        coordinates: Of the n candidates.
        expected: Before any observation.
        evidence: What was observed; may be empty.
        pending: Candidates whose trials still run, shape (p,): each is believed to show its
            posterior mean in every metric (the kriging believer of Ginsbourger et al., 2010,
            section 4.2), which leaves means as they are and lowers errors around it.
        hyperparameters: From `fitted`, or the defaults.
    """

    def __init__(
        self,
        coordinates: Coordinates,
        expected: Expectation,
        evidence: Evidence,
        *,
        pending: IndexArray,
        hyperparameters: Hyperparameters | None = None,
    ) -> None:
        self._coordinates = coordinates
        self._expected = expected
        self._evidence = evidence
        self._factors = hyperparameters or Hyperparameters()
        k = evidence.rows.size
        self._residuals = evidence.logs - expected.mean[evidence.metric, evidence.rows]
        covariance = self._covariance(
            evidence.rows, evidence.metric, evidence.rows, evidence.metric
        )
        noise = np.full(k, (NOISE_SD * self._factors.noise) ** 2 + _JITTER)
        noise = _widened_at_outliers(covariance, noise, self._residuals)
        self._lower = linalg.cholesky(covariance + np.diag(noise), lower=True) if k else covariance
        self._weights = _solved(self._lower, self._residuals)
        self._believed, self._lower_believed = self._with_pending(pending, covariance, noise)

    @property
    def log_marginal_likelihood(self) -> float:
        """Of the observed logs under what was expected; ibid., eq. 2.30."""
        k = self._residuals.size
        if k == 0:
            return 0.0
        determinant = 2 * np.log(np.diag(self._lower)).sum()
        misfit = float(self._residuals @ self._weights)
        return -0.5 * (misfit + float(determinant) + k * float(np.log(2 * np.pi)))

    def at(self, rows: IndexArray) -> Posterior:
        """The posterior of candidates, shape (r,); ibid., eq. 2.25 and 2.26."""
        n_metrics, r = self._expected.mean.shape[0], rows.size
        all_rows = np.tile(rows, n_metrics)
        metric = _repeated(n_metrics, r)
        mean = self._expected.mean[:, rows].copy()
        prior = self._prior_covariance(rows)
        believed = self._believed
        if believed.rows.size == 0:
            return Posterior(mean, prior)
        cross = self._covariance(all_rows, metric, believed.rows, believed.metric)
        k = self._residuals.size
        if k:
            mean += (cross[:, :k] @ self._weights).reshape(n_metrics, r)
        explained = linalg.solve_triangular(
            self._lower_believed, cross.T, lower=True, check_finite=False
        ).reshape(-1, n_metrics, r)
        return Posterior(mean, prior - np.einsum("kar,kbr->rab", explained, explained))

    def draw(self, rows: IndexArray, normals: FloatArray) -> FloatArray:
        """Joint samples of all metrics of candidates.

        Args:
            rows: Shape (r,); the whole covariance between them is formed.
            normals: Standard normal, shape (s, M r).

        Returns:
            Logs, shape (s, M, r).
        """
        n_metrics, r = self._expected.mean.shape[0], rows.size
        all_rows = np.tile(rows, n_metrics)
        metric = _repeated(n_metrics, r)
        covariance = self._covariance(all_rows, metric, all_rows, metric)
        believed = self._believed
        if believed.rows.size:
            cross = self._covariance(all_rows, metric, believed.rows, believed.metric)
            explained = linalg.solve_triangular(self._lower_believed, cross.T, lower=True)
            covariance = covariance - explained.T @ explained
        values, vectors = np.linalg.eigh(covariance)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        mean = self.at(rows).mean.ravel()
        return (mean + normals @ root.T).reshape(-1, n_metrics, r)

    def _prior_covariance(self, rows: IndexArray) -> FloatArray:
        """Between the metrics of one candidate, shape (r, M, M)."""
        expected = self._expected
        n_metrics = expected.mean.shape[0]
        sd = np.stack([expected.sds(np.full(rows.size, i), rows) for i in range(n_metrics)], axis=1)
        sd = sd * self._factors.residual
        offset = np.outer(expected.offset_sd, expected.offset_sd)
        return expected.correlation * (offset + sd[:, :, None] * sd[:, None, :])

    def _covariance(
        self, a: IndexArray, a_metric: IndexArray, b: IndexArray, b_metric: IndexArray
    ) -> FloatArray:
        """Of values, without noise, shape (a, b)."""
        expected = self._expected
        between = expected.correlation[np.ix_(a_metric, b_metric)]
        offset = np.outer(expected.offset_sd[a_metric], expected.offset_sd[b_metric])
        sds = np.outer(expected.sds(a_metric, a), expected.sds(b_metric, b))
        rows_a, place_a = np.unique(a, return_inverse=True)
        rows_b, place_b = np.unique(b, return_inverse=True)
        near = self._coordinates.correlation(
            rows_a, rows_b, length_scale=self._factors.length_scale
        )[np.ix_(place_a, place_b)]
        return between * (offset + self._factors.residual**2 * sds * near)

    def _with_pending(
        self, pending: IndexArray, covariance: FloatArray, noise: FloatArray
    ) -> tuple[Evidence, NDArray[np.float64]]:
        if pending.size == 0:
            return self._evidence, self._lower
        n_metrics = self._expected.mean.shape[0]
        rows = np.concatenate([self._evidence.rows, np.tile(pending, n_metrics)])
        metric = np.concatenate([self._evidence.metric, _repeated(n_metrics, pending.size)])
        k = covariance.shape[0]
        full = self._covariance(rows, metric, rows, metric)
        own = np.full(rows.size - k, (NOISE_SD * self._factors.noise) ** 2 + _JITTER)
        full[np.diag_indices_from(full)] += np.concatenate([noise, own])
        # The sd does not depend on the values, so zeros stand in for what is believed.
        believed = Evidence(rows=rows, metric=metric, logs=np.zeros(rows.size))
        return believed, linalg.cholesky(full, lower=True)


def fitted(coordinates: Coordinates, expected: Expectation, evidence: Evidence) -> Hyperparameters:
    """The most probable factors, given eight trials or more; the defaults given fewer.

    Log-normal priors around 1 hold what few observations leave open (maximum a posteriori).
    """
    if np.unique(evidence.rows).size < MIN_OBSERVATIONS_TO_FIT:
        return Hyperparameters()
    nothing = np.array([], dtype=np.intp)

    def minus_log_posterior(z: FloatArray) -> float:
        factors = np.exp(HYPERPARAMETER_SD * z)
        process = LogProcess(
            coordinates,
            expected,
            evidence,
            pending=nothing,
            hyperparameters=_hyperparameters(factors),
        )
        return 0.5 * float(z @ z) - process.log_marginal_likelihood

    found = minimize(
        minus_log_posterior,
        np.zeros(3),
        method="L-BFGS-B",
        bounds=[(-3.0, 3.0)] * 3,
        options={"maxiter": 15},
    )
    return _hyperparameters(np.exp(HYPERPARAMETER_SD * found.x))


def _repeated(n_metrics: int, r: int) -> IndexArray:
    """0 r times, 1 r times, and so on."""
    return np.arange(n_metrics * r, dtype=np.intp) // r


def _hyperparameters(factors: FloatArray) -> Hyperparameters:
    residual, length_scale, noise = (float(each) for each in factors)
    return replace(Hyperparameters(), residual=residual, length_scale=length_scale, noise=noise)


def _solved(lower: FloatArray, values: FloatArray) -> FloatArray:
    if values.size == 0:
        return values
    return linalg.cho_solve((lower, True), values, check_finite=False)


def _widened_at_outliers(
    covariance: FloatArray, noise: FloatArray, residuals: FloatArray
) -> FloatArray:
    """Noise variances, larger where the other values leave one more than three sds away.

    By leave-one-out predictions (ibid., eq. 5.12), reweighted twice.
    """
    if residuals.size < 3:
        return noise
    for _ in range(_REWEIGHTINGS):
        inverse = np.linalg.inv(covariance + np.diag(noise))
        variance = 1 / np.diag(inverse)
        error = (inverse @ residuals) * variance
        excess = error**2 - OUTLIER_Z**2 * variance
        worst = int(np.argmax(excess / variance))
        if excess[worst] <= 0:
            break
        noise = noise.copy()
        noise[worst] += error[worst] ** 2 / OUTLIER_Z**2
    return noise
