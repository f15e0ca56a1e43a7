"""A mixture of experts: what each of them believes after the trials so far, and who is right.

Every expert has its own Gaussian process on the residuals of its own predictions. Their weights
are the ones that they came with, times their marginal likelihoods raised to a power below one:
residuals of neighbouring configurations are less independent than the process believes. The
module does not know where experts come from, nor what is done with their beliefs.

Notation: n candidates, r of them asked for, M modelled metrics, E experts, s samples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from falcon_ray.errors import InputError
from falcon_ray.knowledge.mixture import ExpectedMetric, Expert, ExpertMixture
from falcon_ray.optimizers.coordinates import Coordinates, IndexArray
from falcon_ray.optimizers.gaussian_process import (
    Evidence,
    Expectation,
    Hyperparameters,
    LogProcess,
    Posterior,
    fitted,
)
from falcon_ray.optimizers.history import History
from falcon_ray.optimizers.remembering import MAX_FITTED, MAX_REMEMBERED, n_fitted, remembered
from falcon_ray.space.configuration import FloatArray
from falcon_ray.space.objective import SearchObjective

CONSTANT = "constant"
CONSTANT_WEIGHT = 0.1
"""Of the expert that expects no differences, when others are there to be wrong."""
CONSTANT_SD = 1.0
"""Sd of differences between candidates where nothing is expected of them."""
CONSTANT_OFFSET_SD = 0.5
LIKELIHOOD_POWER = 0.5
MAX_RESIDUAL_SD = 0.5
"""Of an informed expert: the mean of a log-normal score with a larger sd is that of its tail, and
would draw the search to whatever is known least. Chosen on both tables of language models."""
METRIC_CORRELATION = 0.5
"""Assumed between the errors of two latencies, and of two rates; of one of each, minus as much."""
MAX_BOUNDS = 64
"""Trials too slow to measure that beliefs are made of: the latest."""
LEAST_WEIGHT = 0.01
"""Experts below it are not asked."""


@dataclass(frozen=True, slots=True, eq=False)
class Belief:
    """What one expert believes of some candidates.

    Attributes:
        name: Of the expert.
        weight: Posterior; those of all experts add up to 1.
        posterior: Of the log metrics of the r candidates.
    """

    name: str
    weight: float
    posterior: Posterior


class Experts:
    """The experts of one search.

    Args:
        mixture: What is expected; None where nothing is, which leaves a constant.
        objective: Says which metrics are modelled.
        usd_per_hour: Price of each candidate, shape (n,).
        coordinates: Of the candidates.

    Raises:
        InputError: An expert does not speak of these candidates, or not of a modelled metric.
    """

    def __init__(
        self,
        mixture: ExpertMixture | None,
        objective: SearchObjective,
        usd_per_hour: FloatArray,
        coordinates: Coordinates,
    ) -> None:
        self._objective = objective
        self._coordinates = coordinates
        self._metrics = objective.modelled_metrics
        self._correlation = metric_correlation(self._metrics)
        given = () if mixture is None else mixture.experts
        if mixture is not None and mixture.n != len(coordinates):
            raise InputError(
                f"the prior speaks of {mixture.n} candidates, the space has {len(coordinates)}"
            )
        self.is_informed = any(each.name != CONSTANT for each in given)
        chosen = _checked(given, self._metrics)
        if not any(each.name == CONSTANT for each in chosen):
            chosen.append(_constant(chosen, objective, usd_per_hour))
        total = sum(each.weight for each in chosen)
        self._names = tuple(each.name for each in chosen)
        self._log_weights = np.log([each.weight / total for each in chosen])
        self._expected = [self._expectation(each) for each in chosen]
        self._fitted: tuple[int, list[Hyperparameters]] = (0, [])
        self._processes: list[LogProcess] = []
        self._remembered: IndexArray = np.array([], dtype=np.intp)
        self._weights = np.exp(self._log_weights)
        self._level: dict[str, float] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Of all experts, in their order."""
        return self._names

    @property
    def weights(self) -> FloatArray:
        """Posterior weights as of the last `learn`, shape (E,), adding up to 1."""
        return self._weights

    def learn(self, history: History, *, believed: IndexArray | None = None) -> None:
        """Take in what was observed, and what is believed of trials that still run.

        Args:
            history: Of the search.
            believed: Pending candidates that count as having shown their posterior means, shape
                (p,); all pending ones where they are left out.
        """
        everything = self._evidence(history)
        rows, scores = history.scored()
        has_evidence = np.isin(rows, everything.rows)
        rows, scores = rows[has_evidence], scores[has_evidence]
        self._remembered = remembered(self._coordinates, rows, scores, at_most=MAX_REMEMBERED)
        evidence = everything.of(self._remembered)
        expected = [self._levelled(i, evidence) for i in range(len(self._names))]
        bounds = self._bounds(history)
        n_trials = n_fitted(rows.size)
        if self._fitted[0] != n_trials:
            # To the first trials only, so that a replay fits what the first run did.
            of_these = remembered(
                self._coordinates, rows[:n_trials], scores[:n_trials], at_most=MAX_FITTED
            )
            shown = everything.of(of_these)
            factors = [
                fitted(self._coordinates, self._levelled(i, shown), shown)
                for i in range(len(self._names))
            ]
            self._fitted = n_trials, factors
        factors = self._fitted[1] or [Hyperparameters()] * len(expected)
        self._processes = [
            LogProcess(
                self._coordinates,
                each,
                self._with_bounds(each, evidence, bounds),
                pending=history.pending if believed is None else believed,
                hyperparameters=factor,
            )
            for each, factor in zip(expected, factors, strict=True)
        ]
        likelihoods = np.array([each.log_marginal_likelihood for each in self._processes])
        log_weights = self._log_weights + LIKELIHOOD_POWER * likelihoods
        weights = np.exp(log_weights - log_weights.max())
        self._weights = weights / weights.sum()

    def remembers(self, rows: IndexArray) -> NDArray[np.bool_]:
        """Whether beliefs are made of the trials of candidates, shape of `rows`.

        Of others only what is expected of them by now is believed, and not what they showed.
        """
        return np.isin(rows, self._remembered)

    def believe(self, rows: IndexArray) -> tuple[Belief, ...]:
        """Beliefs about candidates, shape (r,), of every expert that counts."""
        return tuple(
            Belief(name, float(weight), process.at(rows))
            for name, weight, process in zip(
                self._names, self._weights, self._processes, strict=True
            )
            if weight >= LEAST_WEIGHT
        )

    def draw(self, rows: IndexArray, rng: np.random.Generator, n: int) -> FloatArray:
        """Joint samples of all metrics: an expert is drawn by weight, then what it believes.

        Returns:
            Logs, shape (n, M, r).
        """
        chosen = rng.choice(len(self._names), size=n, p=self._weights)
        samples = np.zeros((n, len(self._metrics), rows.size))
        for expert, process in enumerate(self._processes):
            own = np.flatnonzero(chosen == expert)
            if own.size == 0:
                continue
            normals = rng.standard_normal((own.size, len(self._metrics) * rows.size))
            samples[own] = process.draw(rows, normals)
        return samples

    def _evidence(self, history: History) -> Evidence:
        rows: list[IndexArray] = []
        logs: list[FloatArray] = []
        metric: list[IndexArray] = []
        for i, name in enumerate(self._metrics):
            observed, values = history.log_metric(name)
            rows.append(observed)
            logs.append(values)
            metric.append(np.full(observed.size, i, dtype=np.intp))
        return Evidence(
            rows=np.concatenate(rows), metric=np.concatenate(metric), logs=np.concatenate(logs)
        )

    def _bounds(self, history: History) -> Evidence:
        """Rates that are only known to be no higher; empty where no rate is modelled."""
        rows, logs = history.bounded_rates()
        rows, logs = rows[-MAX_BOUNDS:], logs[-MAX_BOUNDS:]
        rates = [i for i, name in enumerate(self._metrics) if name.endswith("_rps")]
        if not rates:
            rows, logs = rows[:0], logs[:0]
        metric = np.full(rows.size, rates[0] if rates else 0, dtype=np.intp)
        return Evidence(rows=rows, metric=metric, logs=logs)

    def _with_bounds(self, expected: Expectation, evidence: Evidence, bounds: Evidence) -> Evidence:
        """What was observed, and of bounds those that the rest does not keep, taken for values.

        Censored values imputed at their bounds, as in the simplest scheme of Hutter et al. (2013,
        section 3): a rate that is believed to be lower than its bound anyway says nothing.
        """
        if bounds.rows.size == 0:
            return evidence
        nothing = np.array([], dtype=np.intp)
        rest = LogProcess(self._coordinates, expected, evidence, pending=nothing)
        believed = rest.at(bounds.rows).mean[bounds.metric, np.arange(bounds.rows.size)]
        broken = believed > bounds.logs
        return Evidence(
            rows=np.concatenate([evidence.rows, bounds.rows[broken]]),
            metric=np.concatenate([evidence.metric, bounds.metric[broken]]),
            logs=np.concatenate([evidence.logs, bounds.logs[broken]]),
        )

    def _expectation(self, expert: Expert) -> Expectation:
        metrics = [expert.metrics[name] for name in self._metrics]
        sds = [np.asarray(each.residual_sd, dtype=np.float64) for each in metrics]
        n = len(self._coordinates)
        whole = any(each.ndim for each in sds)
        residual = np.stack([np.broadcast_to(each, (n if whole else 1,)) for each in sds])
        if expert.name != CONSTANT:
            residual = np.minimum(residual, MAX_RESIDUAL_SD)
        return Expectation(
            mean=np.stack([each.mean for each in metrics]),
            offset_sd=np.array([each.offset_sd for each in metrics]),
            residual_sd=residual,
            correlation=self._correlation,
        )

    def _levelled(self, expert: int, evidence: Evidence) -> Expectation:
        """A lone constant expects the level that was observed: it knows none of its own."""
        expected = self._expected[expert]
        if self.is_informed or evidence.rows.size == 0:
            return expected
        mean = expected.mean.copy()
        for i in range(len(self._metrics)):
            own = evidence.metric == i
            if own.any():
                mean[i] += (evidence.logs[own] - mean[i, evidence.rows[own]]).mean()
        return Expectation(
            mean=mean,
            offset_sd=expected.offset_sd,
            residual_sd=expected.residual_sd,
            correlation=expected.correlation,
        )


def log_value(
    beliefs: Sequence[Belief],
    objective: SearchObjective,
    usd_per_hour: FloatArray,
    *,
    with_limits: bool = True,
) -> FloatArray:
    """Log of the score that is expected of candidates, shape (r,), in closed form.

    Scores at the posterior medians, times the probability that each limit is kept, averaged over
    the experts.

    Args:
        beliefs: Of r candidates.
        objective: Its limits and values.
        usd_per_hour: Price of each, shape (r,).
        with_limits: Whether limits may be missed; not of candidates that were seen to keep them.
    """
    total = np.zeros(usd_per_hour.size)
    for belief in beliefs:
        metrics = by_name(objective, np.exp(belief.posterior.mean))
        kept = np.ones(usd_per_hour.size)
        sd = np.maximum(belief.posterior.sd, 1e-9)
        for i, name in enumerate(objective.modelled_metrics):
            if with_limits and name in objective.limits:
                room = np.log(objective.limits[name]) - belief.posterior.mean[i]
                kept = kept * np.asarray(ndtr(room / sd[i]), dtype=np.float64)
        total += belief.weight * objective.value(metrics, usd_per_hour) * kept
    return np.log(np.maximum(total, 1e-300))


def by_name(objective: SearchObjective, values: FloatArray) -> Mapping[str, FloatArray]:
    """Values of all modelled metrics, shape (M, ...), by the metrics' names."""
    return dict(zip(objective.modelled_metrics, values, strict=True))


def metric_correlation(metrics: Sequence[str]) -> FloatArray:
    """Assumed between the errors of metrics, shape (M, M).

    What slows a deployment raises its latencies and lowers its rates.
    """
    sign = np.array([1.0 if name.endswith("_rps") else -1.0 for name in metrics])
    correlation = METRIC_CORRELATION * np.outer(sign, sign)
    np.fill_diagonal(correlation, 1.0)
    return correlation


def _checked(experts: Sequence[Expert], metrics: Sequence[str]) -> list[Expert]:
    for expert in experts:
        for name in metrics:
            if name not in expert.metrics:
                known = ", ".join(expert.metrics) or "nothing"
                raise InputError(
                    f"the expert {expert.name!r} predicts {known}, but this objective models "
                    f"{', '.join(metrics)}; {name} is missing"
                )
    return list(experts)


def _constant(
    others: Sequence[Expert], objective: SearchObjective, usd_per_hour: FloatArray
) -> Expert:
    """An expert that expects no differences, at the level that the others expect on average."""
    total = sum(each.weight for each in others)
    metrics: dict[str, ExpectedMetric] = {}
    for name, shape in objective.uninformed_means(usd_per_hour).items():
        level = sum(
            each.weight / total * float((each.metrics[name].mean - shape).mean()) for each in others
        )
        metrics[name] = ExpectedMetric(
            mean=shape + level, offset_sd=CONSTANT_OFFSET_SD, residual_sd=CONSTANT_SD
        )
    weight = CONSTANT_WEIGHT / (1 - CONSTANT_WEIGHT) * total if others else 1.0
    return Expert(name=CONSTANT, weight=weight, metrics=metrics)
