"""Bayesian optimisation on the candidates: model the metrics, try where the score may rise most.

One Gaussian process per modelled metric, constrained expected improvement over what is left to
try. The optimizer knows metrics by name only. It does not know where a prior prediction comes
from, and it never looks at what a dimension is called.
"""

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np

from falcon_ray.errors import InputError
from falcon_ray.optimizers.acquisition import (
    antithetic_normals,
    constrained_expected_improvement,
    score_samples,
)
from falcon_ray.optimizers.feasibility import probability_of_running
from falcon_ray.optimizers.gaussian_process import (
    SIGNAL_SD,
    Posterior,
    kernel_coordinates,
    log_posterior,
)
from falcon_ray.optimizers.history import History, IndexArray
from falcon_ray.optimizers.optimizer import Suggestion
from falcon_ray.optimizers.space_filling import most_central, most_distant
from falcon_ray.space.configuration import ConfigurationSpace, FloatArray
from falcon_ray.space.objective import Objective
from falcon_ray.space.observation import Observation, TrialStatus

PriorMeans: TypeAlias = Mapping[str, FloatArray]
"""Predicted natural log of each modelled metric, over all candidates, shapes (n,)."""

RESIDUAL_SD = 0.25
"""Prior sd of how deviations from a prior's predictions differ between candidates, beside the
offset that they share."""
WIDENINGS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""When no sample improves anywhere, the posteriors are widened by these factors in turn."""

_LEAST_FITS = 1e-3


class BayesianOptimizer:
    """Suggests the candidate with the highest constrained expected improvement; an `Optimizer`.

    Without a prior every candidate is expected to buy equally many requests per dollar, that
    is, rates are expected in proportion to prices. Expecting equal rates instead would draw the
    search to the cheapest candidates, which in large spaces are those that do not run.

    Args:
        space: The n candidates.
        objective: Which metrics to model, and how they turn into a score.
        usd_per_hour: Price of each candidate, all replicas together, shape (n,).
        seed: Not negative; equal seeds and observations give equal suggestions.
        prior: Predictions for all metrics in `objective.modelled_metrics`; others are ignored.
        fits: Predicted probability that each candidate's memory suffices, shape (n,); 1
            everywhere where it is left out.

    Raises:
        InputError: Prices or predictions are missing, or do not fit the candidates.
    """

    def __init__(
        self,
        space: ConfigurationSpace,
        objective: Objective,
        usd_per_hour: FloatArray,
        *,
        seed: int,
        prior: PriorMeans | None = None,
        fits: FloatArray | None = None,
    ) -> None:
        self._history = History(space, objective, usd_per_hour)
        self._seed = seed
        self._coordinates = kernel_coordinates(space)
        self._prior = None if prior is None else _checked(prior, space, objective)
        self._fits = np.ones(len(space)) if fits is None else _checked_fits(fits, space)

    def suggest(self) -> Suggestion | None:
        """The candidate with the most to gain; None when every one was suggested or observed.

        While there is neither a prior nor a measurement to model: the most central candidate,
        then the one farthest from those tried, infeasible neighbourhoods shunned.
        """
        history = self._history
        if history.exhausted:
            return None
        running = self._fits * probability_of_running(
            self._coordinates,
            history.ended(TrialStatus.MEASURED),
            history.ended(TrialStatus.INFEASIBLE),
        )
        logs = {name: history.log_metric(name) for name in history.objective.modelled_metrics}
        if self._prior is None and not any(values.size for _, values in logs.values()):
            return self._explore(running)
        return self._improve(logs, running)

    def observe(self, observation: Observation) -> None:
        """Learn metrics from a measurement, where not to go from an INFEASIBLE trial."""
        self._history.observe(observation)

    def recommend(self) -> Observation | None:
        """The best raw measurement that is feasible; None when there is none.

        Among noisy measurements the best one flatters itself; the posterior mean does not, and
        is a later refinement.
        """
        best = self._history.best()
        return None if best is None else best[0]

    @property
    def exhausted(self) -> bool:
        """Whether every candidate was suggested or observed."""
        return self._history.exhausted

    def _explore(self, running: FloatArray) -> Suggestion:
        """A space-filling start; `running` is the probability of running, shape (n,)."""
        history = self._history
        rng = history.rng(self._seed)
        # A FAILED trial taught nothing: its neighbours are as unknown as before.
        tried = np.concatenate(
            [
                history.ended(TrialStatus.MEASURED),
                history.ended(TrialStatus.INFEASIBLE),
                history.pending,
            ]
        )
        if tried.size == 0:
            index = most_central(self._coordinates, history.available, rng)
            why = "in the middle of the space: nothing is known yet"
        else:
            index = most_distant(
                self._coordinates, history.available, tried=tried, weights=running, rng=rng
            )
            why = f"far from the {tried.size:,} tried: nothing is measured yet"
        history.expect(index)
        return Suggestion(
            configuration=history.space.candidates[index],
            why=why + _running_text(running[index]),
        )

    def _improve(
        self, logs: Mapping[str, tuple[IndexArray, FloatArray]], running: FloatArray
    ) -> Suggestion:
        """The highest expected improvement; `logs` by metric, `running` of shape (n,)."""
        history = self._history
        posteriors = {
            name: self._posterior(name, observed, values)
            for name, (observed, values) in logs.items()
        }
        measured = history.best()
        best = 0.0 if measured is None else measured[1]
        believed = self._believed_score(posteriors)
        incumbent = max(best, believed)
        gains, index = self._gains(posteriors, running, incumbent)

        predicted = {
            name: posterior
            for name, posterior in posteriors.items()
            if self._prior is not None or logs[name][1].size
        }
        if incumbent > 0:
            why = (
                f"expected improvement {_percent(gains[index] / incumbent)} over "
                f"{'a believed ' if believed > best else ''}{incumbent:,.0f} requests/$"
            )
        else:
            why = "highest expected score; nothing feasible is measured yet"
        for name, posterior in predicted.items():
            why += (
                f"; predicted {name} {_figures(np.exp(posterior.mean[index]))} "
                f"(sd {_percent(posterior.sd[index])})"
            )
        history.expect(index)
        return Suggestion(
            configuration=history.space.candidates[index],
            why=why + _running_text(running[index]),
            expected={
                name: float(np.exp(posterior.mean[index])) for name, posterior in predicted.items()
            },
        )

    def _posterior(self, metric: str, observed: IndexArray, logs: FloatArray) -> Posterior:
        """Posterior of one log metric from its observations, both of shape (k,)."""
        if self._prior is not None:
            mean, signal_sd = self._prior[metric], RESIDUAL_SD
        else:
            mean, signal_sd = np.zeros(len(self._coordinates)), SIGNAL_SD
            if metric == self._history.objective.rate_metric:
                mean = np.log(self._history.usd_per_hour)
            if observed.size:
                mean = mean + (logs - mean[observed]).mean()
        return log_posterior(
            self._coordinates,
            observed,
            logs,
            pending=self._history.pending,
            prior_mean=mean,
            signal_sd=signal_sd,
        )

    def _believed_score(self, posteriors: Mapping[str, Posterior]) -> float:
        """The best score among the pending trials if each shows its posterior mean, or 0."""
        pending = self._history.pending
        if pending.size == 0:
            return 0.0
        metrics = {name: np.exp(each.mean[pending]) for name, each in posteriors.items()}
        prices = self._history.usd_per_hour[pending]
        return float(self._history.objective.score(metrics, prices).max())

    def _gains(
        self, posteriors: Mapping[str, Posterior], running: FloatArray, incumbent: float
    ) -> tuple[FloatArray, int]:
        """Expected gain of every candidate, shape (n,), and the available one to try."""
        history = self._history
        available = history.available
        normals = antithetic_normals(len(posteriors), history.rng(self._seed))
        gains = np.zeros(len(self._coordinates))
        for widening in WIDENINGS:
            scores = score_samples(
                posteriors, history.objective, history.usd_per_hour, widening * normals
            )
            gains = running * constrained_expected_improvement(scores, incumbent)
            if gains[available].any():
                break
        return gains, int(available[np.argmax(gains[available])])


def _checked(
    prior: PriorMeans, space: ConfigurationSpace, objective: Objective
) -> dict[str, FloatArray]:
    """The predictions of the modelled metrics, each of shape (n,) and finite."""
    checked: dict[str, FloatArray] = {}
    for name in objective.modelled_metrics:
        if name not in prior:
            raise InputError(
                f"the prior predicts {', '.join(prior) or 'nothing'}, but this objective "
                f"models {', '.join(objective.modelled_metrics)}; {name} is missing"
            )
        means = np.array(prior[name], dtype=np.float64)
        if means.shape != (len(space),) or not np.isfinite(means).all():
            raise InputError(
                f"the prior's {name} must be one finite logarithm for each of the "
                f"{len(space)} candidates, got the shape {means.shape} with "
                f"{np.count_nonzero(~np.isfinite(means))} not finite"
            )
        checked[name] = means
    return checked


def _checked_fits(fits: FloatArray, space: ConfigurationSpace) -> FloatArray:
    """The probabilities, of shape (n,), none of them quite 0: a prediction may be wrong."""
    if fits.shape != (len(space),) or not ((fits >= 0) & (fits <= 1)).all():
        raise InputError(
            f"fits must be one probability for each of the {len(space)} candidates, got the "
            f"shape {fits.shape}"
        )
    return np.maximum(fits, _LEAST_FITS)


def _percent(share: float) -> str:
    percent = 100 * share
    return f"{percent:,.0f} %" if percent >= 10 else f"{percent:.1f} %"


def _figures(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _running_text(probability: float) -> str:
    return "" if probability > 0.995 else f"; runs with probability {probability:.2f}"
