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
from falcon_ray.space.configuration import ConfigurationSpace, FloatArray
from falcon_ray.space.objective import Objective
from falcon_ray.space.observation import Observation, TrialStatus

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
        self, space: ConfigurationSpace, objective: Objective, usd_per_hour: FloatArray
    ) -> None:
        prices = np.array(usd_per_hour, dtype=np.float64)
        if prices.shape != (len(space),):
            raise InputError(
                f"usd_per_hour needs one price for each of the {len(space)} candidates, "
                f"got the shape {prices.shape}"
            )
        for candidate, price in zip(space.candidates, prices, strict=True):
            if not (np.isfinite(price) and price > 0):
                raise InputError(
                    f"usd_per_hour must be positive and finite, got {price} for {candidate}"
                )
        prices.flags.writeable = False
        self.space = space
        self.objective = objective
        self.usd_per_hour = prices
        self._observations: list[tuple[int, Observation]] = []
        self._pending: dict[int, None] = {}
        self._available: MaskArray = np.ones(len(space), dtype=np.bool_)

    def observe(self, observation: Observation) -> None:
        """Enter a trial that ended; its configuration is pending no longer.

        Raises:
            InputError: The configuration is no candidate of the space.
        """
        index = self.space.index.get(observation.configuration)
        if index is None:
            raise InputError(
                f"{observation.configuration} is no candidate of this space; "
                "observe only trials of the space that the optimizer was made for"
            )
        self._observations.append((index, observation))
        self._pending.pop(index, None)
        self._available[index] = False

    def expect(self, index: int) -> None:
        """Enter a suggestion: the candidate at `index` is pending until it is observed."""
        self._pending[index] = None
        self._available[index] = False

    @property
    def available(self) -> IndexArray:
        """The candidates that were neither suggested nor observed, ascending."""
        return np.flatnonzero(self._available)

    @property
    def known(self) -> IndexArray:
        """The candidates that were suggested or observed, ascending."""
        return np.flatnonzero(~self._available)

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

    def best(self) -> tuple[Observation, float] | None:
        """The observation with the highest measured score, the first among equals, and it.

        None when nothing feasible was measured.
        """
        found: tuple[Observation, float] | None = None
        for index, observation in self._observations:
            if observation.measurement is None:
                continue
            score = self.objective.score_measurement(
                observation.measurement, usd_per_hour=float(self.usd_per_hour[index])
            )
            if score is not None and (found is None or score > found[1]):
                found = observation, score
        return found

    def rng(self, seed: int) -> np.random.Generator:
        """The random numbers of the next suggestion, fixed by the seed and the step.

        The step is the number of candidates that are known: after a replay it is what it was.
        """
        return np.random.default_rng([seed, int(np.count_nonzero(~self._available))])
