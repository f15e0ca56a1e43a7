"""What happened so far: which candidates were suggested, and how their trials ended.

Every optimizer owns one `History`. It keeps the books, names the best measurement, and counts
the steps from which random numbers derive, so that replayed observations continue as the
first run would have. It does not know how a suggestion is chosen.
"""

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from falcon_ray.errors import InputError
from falcon_ray.optimizers.readiness import Readiness, checked
from falcon_ray.space.configuration import Configuration, ConfigurationSpace, FloatArray
from falcon_ray.space.objective import SearchObjective
from falcon_ray.space.observation import InfeasibleCause, Observation, TrialStatus

IndexArray: TypeAlias = NDArray[np.intp]
MaskArray: TypeAlias = NDArray[np.bool_]


class History:
    """The books of one search over `space`, by position in `space.candidates`.

    Args:
        space: The n candidates.
        objective: Ranks measurements.
        usd_per_hour: Price of each candidate, all replicas together, shape (n,), positive.

    Raises:
        InputError: There is not one positive finite price for each candidate.
    """

    def __init__(
        self, space: ConfigurationSpace, objective: SearchObjective, usd_per_hour: FloatArray
    ) -> None:
        prices = np.array(usd_per_hour, dtype=np.float64)
        if prices.shape != (len(space),):
            raise InputError(
                f"usd_per_hour needs one price for each of the {len(space)} candidates, "
                f"got the shape {prices.shape}"
            )
        bad = np.flatnonzero(~(np.isfinite(prices) & (prices > 0)))
        if bad.size:
            raise InputError(
                f"usd_per_hour must be positive and finite, got {prices[bad[0]]} for "
                f"{space.candidate(int(bad[0]))}"
            )
        prices.flags.writeable = False
        self.space = space
        self.objective = objective
        self.usd_per_hour = prices
        self._observations: list[tuple[int, Observation]] = []
        self._scores: list[float | None] = []
        self._pending: dict[int, None] = {}
        self._available: MaskArray = np.ones(len(space), dtype=np.bool_)

    def observe(self, observation: Observation) -> None:
        """Enter a trial that ended; its configuration is pending no longer.

        Raises:
            InputError: The configuration is no candidate of the space.
        """
        index = self.space.position(observation.configuration)
        if index is None:
            raise InputError(
                f"{observation.configuration} is no candidate of this space; "
                "observe only trials of the space that the optimizer was made for"
            )
        self._observations.append((index, observation))
        self._scores.append(self._score(index, observation))
        self._pending.pop(index, None)
        # What the infrastructure broke once is not held against the candidate; twice is enough.
        again = observation.status is TrialStatus.FAILED and self._n_ended(index) == 1
        self._available[index] = again

    def _score(self, index: int, observation: Observation) -> float | None:
        if observation.measurement is None:
            return None
        return self.objective.score_measurement(
            observation.measurement, usd_per_hour=float(self.usd_per_hour[index])
        )

    def _n_ended(self, index: int) -> int:
        return sum(each == index for each, _ in self._observations)

    def expect(self, index: int) -> None:
        """Enter a suggestion: the candidate at `index` is pending until it is observed."""
        self._pending[index] = None
        self._available[index] = False

    def withdraw(self, configuration: Configuration) -> None:
        """Take a suggestion back: it is pending no longer, and available as it was before.

        Raises:
            InputError: The configuration is not pending.
        """
        index = self.space.position(configuration)
        if index is None or index not in self._pending:
            raise InputError(
                f"{configuration} is not pending; withdraw only what was suggested and did not end"
            )
        del self._pending[index]
        self._available[index] = True

    @property
    def available(self) -> IndexArray:
        """The candidates that may be suggested, ascending.

        Neither suggested nor observed before, or broken by the infrastructure in their only trial.
        """
        return np.flatnonzero(self._available)

    def open_to(self, readiness: Readiness | None) -> MaskArray:
        """Which candidates may be suggested now, shape (n,).

        The available ones that can be had; all available ones where none can, so that a search
        goes on to ask for them.

        Raises:
            InputError: The readiness speaks of another number of candidates.
        """
        checked(readiness, len(self.space))
        if readiness is None:
            return self._available
        can_be_had = self._available & readiness.attainable
        return can_be_had if can_be_had.any() else self._available

    def is_available(self, rows: IndexArray) -> MaskArray:
        """Whether candidates may be suggested, shape of `rows`."""
        return self._available[rows]

    @property
    def known(self) -> IndexArray:
        """The candidates that are pending or whose trials taught something, ascending."""
        taught = (i for i, each in self._observations if each.status is not TrialStatus.FAILED)
        seen = set(taught) | set(self._pending)
        return np.array(sorted(seen), dtype=np.intp)

    @property
    def pending(self) -> IndexArray:
        """The candidates that were suggested and not yet observed, in order of suggestion."""
        return np.array(list(self._pending), dtype=np.intp)

    @property
    def exhausted(self) -> bool:
        """Whether no candidate is available."""
        return not self._available.any()

    def ended(self, status: TrialStatus) -> IndexArray:
        """The candidates of the trials that ended with `status`, one entry per trial."""
        return np.array(
            [index for index, each in self._observations if each.status is status], dtype=np.intp
        )

    def log_metric(self, name: str) -> tuple[IndexArray, FloatArray]:
        """Natural logarithms of a metric, wherever it was measured, positive and finite.

        Returns:
            The candidates and the logarithms, both of shape (k,), one entry per trial.
        """
        indices: list[int] = []
        values: list[float] = []
        for index, observation in self._observations:
            if observation.measurement is None:
                continue
            value = observation.measurement.metric(name)
            if value is not None and 0 < value < math.inf:
                indices.append(index)
                values.append(value)
        return np.array(indices, dtype=np.intp), np.log(np.array(values, dtype=np.float64))

    def bounded_rates(self) -> tuple[IndexArray, FloatArray]:
        """The candidates of trials too slow to measure, and the log of what they do at most."""
        found = [
            (index, each.at_most_rps)
            for index, each in self._observations
            if each.at_most_rps is not None and each.at_most_rps > 0
        ]
        rows = np.array([index for index, _ in found], dtype=np.intp)
        return rows, np.log(np.array([bound for _, bound in found], dtype=np.float64))

    def infeasible(self) -> tuple[IndexArray, IndexArray]:
        """The candidates of INFEASIBLE trials: out of memory, and for other reasons.

        Trials too slow to measure ran: `bounded_rates` has them.
        """
        memory: list[int] = []
        other: list[int] = []
        for index, each in self._observations:
            if each.status is TrialStatus.INFEASIBLE and each.at_most_rps is None:
                (memory if _is_out_of_memory(each) else other).append(index)
        return np.array(memory, dtype=np.intp), np.array(other, dtype=np.intp)

    def feasible(self) -> tuple[IndexArray, tuple[Observation, ...]]:
        """The trials with a score, with the positions of their candidates, shape (k,)."""
        found = [
            (index, each)
            for (index, each), score in zip(self._observations, self._scores, strict=True)
            if score
        ]
        rows = np.array([index for index, _ in found], dtype=np.intp)
        return rows, tuple(each for _, each in found)

    def best(self) -> tuple[Observation, float] | None:
        """The observation with the highest measured score, the first among equals, and it.

        None when nothing feasible was measured.
        """
        found: tuple[Observation, float] | None = None
        for (_, observation), score in zip(self._observations, self._scores, strict=True):
            if score is not None and (found is None or score > found[1]):
                found = observation, score
        return found

    def scored(self) -> tuple[IndexArray, FloatArray]:
        """The candidates that were measured, in the order in which the first trial of each ended.

        Returns:
            The candidates, each once, and the highest score of each, 0 without one; shape (k,).
        """
        found: dict[int, float] = {}
        for (index, each), score in zip(self._observations, self._scores, strict=True):
            if each.status is TrialStatus.MEASURED:
                found[index] = max(found.get(index, 0.0), score or 0.0)
        return np.array(list(found), dtype=np.intp), np.array(list(found.values()), dtype=float)

    def rng(self, seed: int) -> np.random.Generator:
        """The random numbers of the next suggestion, fixed by the seed and the step.

        After a replay they are what they were.
        """
        return np.random.default_rng([seed, self.n_steps])

    @property
    def n_steps(self) -> int:
        """Trials that taught something or are pending: a replay leaves out those that FAILED."""
        return len(self._pending) + sum(
            each.status is not TrialStatus.FAILED for _, each in self._observations
        )


def _is_out_of_memory(observation: Observation) -> bool:
    return observation.cause is InfeasibleCause.MEMORY
