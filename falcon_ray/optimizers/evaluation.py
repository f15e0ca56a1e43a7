"""What a trial of each candidate is worth, as believed after the trials so far.

Brings together the books, the experts and what is known of feasibility, for those candidates that
somebody asks for. It does not know who asks, nor that there is a tree.

Notation: n candidates, r of them looked at, M modelled metrics.
"""

from dataclasses import dataclass

import numpy as np

from falcon_ray.knowledge.mixture import ExpertMixture
from falcon_ray.optimizers.acquisition import antithetic_normals, expected_gains
from falcon_ray.optimizers.coordinates import Coordinates, IndexArray
from falcon_ray.optimizers.experts import Belief, Experts, by_name, log_value
from falcon_ray.optimizers.feasibility import Feasibility, Verdicts
from falcon_ray.optimizers.gaussian_process import Posterior
from falcon_ray.optimizers.history import History
from falcon_ray.optimizers.readiness import Readiness, preference
from falcon_ray.optimizers.stopping import CLEAR_GAIN, Outlook
from falcon_ray.space.configuration import FloatArray
from falcon_ray.space.observation import Observation, TrialStatus

MAX_GAINS = 512
"""Candidates whose expected gain is sampled, at most."""
N_JOINT = 64
"""Candidates that are drawn jointly, at most."""
TIE_BREAK = 1e-8
"""Weight of the log of the price among equals, well above what rounding does to them."""
_HOPELESS = 20.0
_N_DRAWS = 256
_LEAST = 1e-300


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """Candidates that were looked at, with what is believed of them.

    Attributes:
        rows: The candidates, shape (r,).
        beliefs: One per expert that counts.
        running: Probability that a trial runs, shape (r,).
        log_value: Log of the score that is expected, those that do not run included, shape (r,).
    """

    rows: IndexArray
    beliefs: tuple[Belief, ...]
    running: FloatArray
    log_value: FloatArray

    def at(self, positions: IndexArray) -> "Look":
        """Some of them."""
        beliefs = tuple(
            Belief(
                each.name,
                each.weight,
                Posterior(each.posterior.mean[:, positions], each.posterior.covariance[positions]),
            )
            for each in self.beliefs
        )
        return Look(
            self.rows[positions], beliefs, self.running[positions], self.log_value[positions]
        )


@dataclass(frozen=True, slots=True)
class Incumbent:
    """The score to beat; 0 before the first one.

    Attributes:
        score: Of the best feasible trial, or of the best pending one.
        is_believed: Whether it is a pending one's, which is only believed.
    """

    score: float
    is_believed: bool


class Evaluation:
    """Beliefs about the candidates of one search.

    Args:
        history: Of the search.
        prior: What is expected; None where nothing is.
        trial_cost: Relative cost of a trial of each candidate, shape (n,), or None.
        seed: Of the samples.
        believes_pending: Whether pending trials count as having shown what is believed of them.

    Raises:
        InputError: The prior does not fit the candidates or the objective.
    """

    def __init__(
        self,
        history: History,
        prior: ExpertMixture | None,
        *,
        trial_cost: FloatArray | None,
        seed: int,
        believes_pending: bool = True,
    ) -> None:
        self._history = history
        self._believes_pending = believes_pending
        self._trial_cost = trial_cost
        self._seed = seed
        seconds = None if prior is None else prior.operator_seconds
        memory = None if prior is None else prior.log_memory_share
        self.coordinates = Coordinates(history.space, seconds)
        self.experts = Experts(prior, history.objective, history.usd_per_hour, self.coordinates)
        self._feasibility = Feasibility(history.space, self.coordinates, memory)
        self.learn()

    def learn(self) -> None:
        """Take in what the history has."""
        pending = self._history.pending
        self.experts.learn(
            self._history, believed=pending if self._believes_pending else pending[:0]
        )

    @property
    def is_informed(self) -> bool:
        """Whether anything was expected, or a modelled metric measured."""
        history = self._history
        measured = (history.log_metric(name)[0] for name in history.objective.modelled_metrics)
        return self.experts.is_informed or any(each.size for each in measured)

    @property
    def verdicts(self) -> Verdicts:
        """How trials ended."""
        memory, other = self._history.infeasible()
        return Verdicts(
            ran=self._history.ended(TrialStatus.MEASURED), out_of_memory=memory, other=other
        )

    def running(self, rows: IndexArray) -> FloatArray:
        """Probability that a trial of each candidate runs, shape (r,)."""
        return self._feasibility.probability(rows, self.verdicts)

    def look(self, rows: IndexArray) -> Look:
        """What is believed of candidates, shape (r,)."""
        beliefs = self.experts.believe(rows)
        running = self.running(rows)
        value = log_value(beliefs, self._history.objective, self._history.usd_per_hour[rows])
        return Look(rows, beliefs, running, value + np.log(running))

    def incumbent(self) -> Incumbent:
        """The best score so far; a pending trial counts as what is believed of it."""
        history = self._history
        measured = self._best_believed()
        if history.pending.size == 0:
            return Incumbent(measured, is_believed=False)
        look = self.look(history.pending)
        likely = look.running > 0.5
        believed = float(np.where(likely, np.exp(look.log_value) / look.running, 0.0).max())
        return Incumbent(max(measured, believed), is_believed=believed > measured)

    def _best_believed(self) -> float:
        """What the best feasible trial is believed to score, 0 before the first.

        The highest of several noisy scores flatters itself, and nothing would improve on it.
        """
        rows, _ = self._history.feasible()
        rows = rows[self.experts.remembers(rows)]
        if rows.size == 0:
            return 0.0
        beliefs = self.experts.believe(rows)
        value = log_value(
            beliefs, self._history.objective, self._history.usd_per_hour[rows], with_limits=False
        )
        return float(np.exp(value.max()))

    def appeal(
        self, look: Look, incumbent: Incumbent, readiness: Readiness | None = None
    ) -> FloatArray:
        """Log of what a trial of each candidate is worth, shape (r,).

        Before the first success the score that is expected; then the expected gain over the
        incumbent. Gains are sampled for the candidates that may have one; the others come after
        all of those. With costs of trials, per cost. Of equals the cheaper one comes first: a
        second replica, say, that is expected to double rate and price alike. What could start at
        once has a bonus, see `INDIFFERENCE`; with costs of trials, starting nodes costs as well.
        """
        worth = look.log_value
        if incumbent.score > 0:
            hopeful = _by_hope(look)[:MAX_GAINS]
            gains = np.maximum(self._gains(look.at(hopeful), incumbent, widen=True), _LEAST)
            worth = look.log_value - look.log_value.max() + np.log(gains.max()) - _HOPELESS
            worth[hopeful] = np.maximum(np.log(gains), worth[hopeful])
        worth = worth - TIE_BREAK * np.log(self._history.usd_per_hour[look.rows])
        return worth + preference(readiness, look.rows, self._trial_cost)

    def gain(self, look: Look, position: int, incumbent: Incumbent) -> float:
        """Expected gain of one candidate over the incumbent, relative to it."""
        one = look.at(np.array([position]))
        return float(self._gains(one, incumbent)[0]) / incumbent.score

    def draw(self, look: Look, n: int) -> FloatArray:
        """Joint samples of the scores of candidates, 0 where one does not run or keep a limit.

        Returns:
            Shape (n, r).
        """
        history = self._history
        rng = history.rng(self._seed)
        logs = self.experts.draw(look.rows, rng, n)
        scores = history.objective.score(
            by_name(history.objective, np.exp(logs.transpose(1, 0, 2))),
            history.usd_per_hour[look.rows],
        )
        return scores * (rng.random(scores.shape) < look.running)

    def expected(self, look: Look, position: int) -> dict[str, tuple[float, float]]:
        """Median and relative sd of each metric of a candidate, of which anything is known."""
        history = self._history
        weights = np.array([each.weight for each in look.beliefs])
        weights = weights / weights.sum()
        found: dict[str, tuple[float, float]] = {}
        for i, name in enumerate(history.objective.modelled_metrics):
            if not (self.experts.is_informed or history.log_metric(name)[0].size):
                continue
            means = np.array([each.posterior.mean[i, position] for each in look.beliefs])
            sds = np.array([each.posterior.sd[i, position] for each in look.beliefs])
            mean = float(weights @ means)
            variance = float(weights @ (sds**2 + (means - mean) ** 2))
            found[name] = float(np.exp(mean)), variance**0.5
        return found

    def recommended(self) -> Observation | None:
        """The feasible trial that is believed to be the best; None when there is none."""
        rows, observations = self._history.feasible()
        kept = np.flatnonzero(self.experts.remembers(rows))
        if kept.size == 0:
            return None
        rows = rows[kept]
        beliefs = self.experts.believe(rows)
        value = log_value(
            beliefs, self._history.objective, self._history.usd_per_hour[rows], with_limits=False
        )
        return observations[int(kept[int(np.argmax(value))])]

    def outlook(self, look: Look) -> Outlook | None:
        """What is left to gain among candidates; None before the first feasible trial."""
        incumbent = Incumbent(self._best_believed(), is_believed=False)
        if incumbent.score <= 0:
            return None
        hopeful = look.at(_by_hope(look)[:MAX_GAINS])
        gains = self._gains(hopeful, incumbent)
        promising = hopeful.at(np.arange(min(N_JOINT, hopeful.rows.size)))
        scores = self.draw(promising, _N_DRAWS)
        better = scores.max(axis=1) > (1 + CLEAR_GAIN) * incumbent.score
        return Outlook(
            expected_gain=float(gains.max()) / incumbent.score,
            probability_of_better=float(better.mean()),
            n_measured=self._history.feasible()[0].size,
        )

    def _gains(self, look: Look, incumbent: Incumbent, *, widen: bool = False) -> FloatArray:
        history = self._history
        n_metrics = len(history.objective.modelled_metrics)
        return look.running * expected_gains(
            look.beliefs,
            history.objective,
            history.usd_per_hour[look.rows],
            best=incumbent.score,
            normals=antithetic_normals(n_metrics, history.rng(self._seed)),
            widen=widen,
        )


def _by_hope(look: Look) -> IndexArray:
    """Positions by the score that is hoped for, one sd above what is expected, highest first."""
    sds = [each.weight * each.posterior.sd.max(axis=0) for each in look.beliefs]
    return np.argsort(-(look.log_value + np.sum(sds, axis=0)), kind="stable")
