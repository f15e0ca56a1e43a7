"""Monte Carlo tree search over configurations, with Bayesian evaluation of the leaves.

The tree is cut before the first trial, by the resource curves of the model's key operators. Every
suggestion walks it from the root by UCT, on what is believed after the trials so far, and takes
from the leaf that it reaches the candidate whose trial is worth most. Of a large space a few
candidates of every leaf are valued, and thousands of the leaf that is visited: what a suggestion
costs does not grow with the space.

It does not know who runs the trials, nor what makes a configuration fast.

Notation: n candidates, r of them looked at.
"""

from collections.abc import Sequence
from enum import Enum

import numpy as np

from falcon_ray.errors import InputError
from falcon_ray.knowledge.mixture import ExpertMixture
from falcon_ray.optimizers.coordinates import IndexArray
from falcon_ray.optimizers.curve_cuts import CurveCuts
from falcon_ray.optimizers.evaluation import N_JOINT, Evaluation, Incumbent, Look
from falcon_ray.optimizers.history import History
from falcon_ray.optimizers.optimizer import Suggestion
from falcon_ray.optimizers.readiness import Readiness, preference
from falcon_ray.optimizers.space_filling import most_central, most_distant
from falcon_ray.optimizers.stopping import Outlook
from falcon_ray.optimizers.tree import Node, build_tree
from falcon_ray.optimizers.uct import Partition
from falcon_ray.space.configuration import Configuration, ConfigurationSpace, FloatArray
from falcon_ray.space.objective import SearchObjective
from falcon_ray.space.observation import Observation

MAX_LOOKED_AT = 4096
"""Candidates that one suggestion values, and again in one leaf, at most."""


class Parallel(Enum):
    """How a suggestion takes trials into account that have not ended."""

    BELIEVER = "believer"
    """As if they had shown what is believed of them: for batches."""
    THOMPSON = "thompson"
    """By a draw from what is believed, each its own: for workers that come and go."""


class MonteCarloTreeSearch:
    """Suggests serving configurations; an `Optimizer`.

    Args:
        space: The n candidates.
        objective: Which metrics to model, and how they turn into a score.
        usd_per_hour: Price of each candidate, all replicas together, shape (n,).
        seed: Not negative; equal seeds and observations give equal suggestions.
        prior: What is expected of the candidates; None where nothing is.
        tree: Whether to walk the tree; else every candidate is evaluated.
        parallel: How pending trials count.
        trial_cost: Relative cost of a trial of each candidate, shape (n,): with it the gain per
            cost is what counts, that of starting nodes included.

    Raises:
        InputError: Prices, costs or the prior do not fit the candidates.
    """

    def __init__(
        self,
        space: ConfigurationSpace,
        objective: SearchObjective,
        usd_per_hour: FloatArray,
        *,
        seed: int,
        prior: ExpertMixture | None = None,
        tree: bool = True,
        parallel: Parallel = Parallel.BELIEVER,
        trial_cost: FloatArray | None = None,
    ) -> None:
        costs = None if trial_cost is None else _checked_costs(trial_cost, len(space))
        self._history = History(space, objective, usd_per_hour)
        self._seed = seed
        self._parallel = parallel
        self._evaluation = Evaluation(
            self._history,
            prior,
            trial_cost=costs,
            seed=seed,
            believes_pending=parallel is Parallel.BELIEVER,
        )
        expected = self._value_of_all()
        cuts = None
        if tree and prior is not None and prior.operator_seconds:
            cuts = CurveCuts(
                space.dimensions, space.codes, self._history.usd_per_hour, prior.operator_seconds
            )
        self._partition = Partition(build_tree(space.codes, expected, cuts))
        self._ranked = {
            id(leaf): leaf.rows[np.argsort(-expected[leaf.rows], kind="stable")]
            for leaf in self._partition.leaves
        }

    @property
    def root(self) -> Node:
        """The tree, for people and tests."""
        return self._partition.root

    @property
    def expert_weights(self) -> dict[str, float]:
        """How much each expert is believed by now, by its name."""
        experts = self._evaluation.experts
        return dict(zip(experts.names, experts.weights.tolist(), strict=True))

    @property
    def exhausted(self) -> bool:
        """Whether every candidate was suggested or observed."""
        return self._history.exhausted

    def observe(self, observation: Observation) -> None:
        """Learn metrics from a measurement, where not to go from an INFEASIBLE trial."""
        self._history.observe(observation)

    def withdraw(self, configuration: Configuration) -> None:
        """Take a suggestion back whose trial never began."""
        self._history.withdraw(configuration)

    def suggest(self, readiness: Readiness | None = None) -> Suggestion | None:
        """The candidate whose trial is worth most in the leaf that UCT leads to.

        While nothing is expected and nothing measured: the most central candidate, then the one
        farthest from those tried, infeasible neighbourhoods shunned.

        Args:
            readiness: What could start now: those that can be had are chosen from, and of nearly
                equal ones one that is ready.

        Returns:
            None when every candidate was suggested or observed.

        Raises:
            InputError: The readiness speaks of another number of candidates.
        """
        history, evaluation, partition = self._history, self._evaluation, self._partition
        if history.exhausted:
            return None
        if not evaluation.is_informed:
            return self._explore(readiness)
        evaluation.learn()
        incumbent = evaluation.incumbent()
        look = evaluation.look(self._shortlist(readiness))
        appeal = evaluation.appeal(look, incumbent, readiness)
        path = partition.walk(
            partition.best_of_leaves(look.rows, appeal), partition.visits(history.known)
        )
        leaf = self._in_leaf(look, path[-1], readiness)
        if self._parallel is Parallel.THOMPSON and history.pending.size:
            at = self._drawn(leaf, readiness)
            return self._suggestion(leaf, at, "the best of a draw", path)
        at = int(np.argmax(evaluation.appeal(leaf, incumbent, readiness)))
        return self._suggestion(leaf, at, self._why(leaf, at, incumbent), path)

    def recommend(self) -> Observation | None:
        """The feasible trial that is believed to be the best; None when there is none.

        Among noisy measurements the best one flatters itself; the posterior does not.
        """
        self._evaluation.learn()
        return self._evaluation.recommended()

    def outlook(self) -> Outlook | None:
        """What is left to gain; None before the first feasible trial, or with nothing left."""
        if self._history.exhausted:
            return None
        self._evaluation.learn()
        return self._evaluation.outlook(self._evaluation.look(self._shortlist()))

    def _value_of_all(self) -> FloatArray:
        """Log of the score that is expected of every candidate before the first trial, (n,)."""
        n, step = len(self._history.space), 16 * MAX_LOOKED_AT
        chunks = (np.arange(start, min(start + step, n)) for start in range(0, n, step))
        return np.concatenate([self._evaluation.look(rows).log_value for rows in chunks])

    @property
    def _is_large(self) -> bool:
        return len(self._history.space) > MAX_LOOKED_AT

    def _shortlist(self, readiness: Readiness | None = None) -> IndexArray:
        """Candidates to value: all that are open, the likeliest of every leaf of a large space."""
        history = self._history
        is_open = history.open_to(readiness)
        if not self._is_large:
            return np.flatnonzero(is_open)
        share = max(2, MAX_LOOKED_AT // (2 * len(self._partition.leaves)))
        chosen: list[IndexArray] = []
        for leaf in self._partition.leaves:
            ranked = self._ranked[id(leaf)]
            # Without readiness no more than the steps so far are missing from the first ones.
            first = ranked if readiness is not None else ranked[: share + history.n_steps]
            chosen.append(first[is_open[first]][:share])
        # Some are drawn: the ranking is the prior's, and without one it is none.
        drawn = history.rng(self._seed).integers(len(history.space), size=MAX_LOOKED_AT // 4)
        chosen.append(drawn[is_open[drawn]])
        found = np.unique(np.concatenate(chosen))
        return found if found.size else np.flatnonzero(is_open)[:MAX_LOOKED_AT]

    def _in_leaf(self, look: Look, leaf: Node, readiness: Readiness | None) -> Look:
        """What is believed of the candidates of a leaf, of the likeliest of a large one.

        Half of those in a large one go by rank, half are drawn: ranks of a wrong prior mislead.
        """
        history = self._history
        if not self._is_large:
            inside = np.isin(look.rows, leaf.rows, assume_unique=True)
            return look.at(np.flatnonzero(inside))
        rows = self._ranked[id(leaf)]
        if readiness is not None:
            rows = rows[history.open_to(readiness)[rows]]
        if rows.size > MAX_LOOKED_AT:
            half = MAX_LOOKED_AT // 2
            drawn = history.rng(self._seed).choice(rows, size=half)
            rows = np.unique(np.concatenate([rows[: half + history.n_steps], drawn]))
        return self._evaluation.look(rows[history.is_available(rows)])

    def _drawn(self, leaf: Look, readiness: Readiness | None) -> int:
        """The best of one draw (Thompson, 1933) among the likeliest candidates of a leaf."""
        promising = np.argsort(-leaf.log_value, kind="stable")[: 4 * N_JOINT]
        scores = self._evaluation.draw(leaf.at(promising), 1)[0]
        scores = scores * np.exp(preference(readiness, leaf.rows[promising], None))
        # Where the draw keeps no limit anywhere, the candidate that is likeliest to.
        return int(promising[int(np.argmax(scores)) if scores.any() else 0])

    def _why(self, leaf: Look, at: int, incumbent: Incumbent) -> str:
        if incumbent.score <= 0:
            return "highest expected score; nothing feasible is measured yet"
        gain = self._evaluation.gain(leaf, at, incumbent)
        believed = "a believed " if incumbent.is_believed else ""
        return (
            f"expected improvement {_percent(gain)} over {believed}{incumbent.score:,.0f} "
            "requests/$"
        )

    def _suggestion(self, leaf: Look, at: int, why: str, path: Sequence[Node]) -> Suggestion:
        row = int(leaf.rows[at])
        expected = self._evaluation.expected(leaf, at)
        for name, (median, sd) in expected.items():
            why += f"; predicted {name} {_figures(median)} (sd {_percent(sd)})"
        why += _running_text(leaf.running[at])
        if path[-1].why:
            why += f"; {path[-1].why}"
        self._history.expect(row)
        return Suggestion(
            configuration=self._history.space.candidate(row),
            why=why,
            expected={name: median for name, (median, _) in expected.items()},
        )

    def _explore(self, readiness: Readiness | None) -> Suggestion:
        """A space-filling start; the very first trial is one that is ready, where any is."""
        history, coordinates = self._history, self._evaluation.coordinates
        rng = history.rng(self._seed)
        is_open = history.open_to(readiness)
        rows = np.flatnonzero(is_open)
        if readiness is not None and history.n_steps == 0 and (is_open & readiness.ready).any():
            rows = np.flatnonzero(is_open & readiness.ready)
        if rows.size > MAX_LOOKED_AT:
            rows = np.sort(rng.choice(rows, size=MAX_LOOKED_AT, replace=False))
        running = self._evaluation.running(rows)
        verdicts = self._evaluation.verdicts
        # A FAILED trial taught nothing: its neighbours are as unknown as before.
        tried = np.concatenate(
            [
                verdicts.ran,
                verdicts.out_of_memory,
                verdicts.other,
                history.bounded_rates()[0],
                history.pending,
            ]
        )
        if tried.size == 0:
            at = most_central(coordinates, rows, rng)
            why = "in the middle of the space: nothing is known yet"
        else:
            weights = running * np.exp(preference(readiness, rows, None))
            at = most_distant(coordinates, rows, tried=tried, weights=weights, rng=rng)
            why = f"far from the {tried.size:,} tried: nothing is measured yet"
        row = int(rows[at])
        history.expect(row)
        return Suggestion(
            configuration=history.space.candidate(row), why=why + _running_text(running[at])
        )


def _checked_costs(cost: FloatArray, n: int) -> FloatArray:
    cost = np.asarray(cost, dtype=np.float64)
    if cost.shape != (n,) or not (np.isfinite(cost) & (cost > 0)).all():
        raise InputError(
            f"trial_cost needs one positive number for each of the {n} candidates, got the shape "
            f"{cost.shape}"
        )
    return cost


def _percent(share: float) -> str:
    percent = 100 * share
    return f"{percent:,.0f} %" if percent >= 10 else f"{percent:.1f} %"


def _figures(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _running_text(probability: float) -> str:
    return "" if probability > 0.995 else f"; runs with probability {probability:.2f}"
