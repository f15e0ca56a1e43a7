"""Random search: the yardstick that every other optimizer has to beat.

It draws candidates uniformly without replacement, whatever is ready: a yardstick has no
preferences. It knows nothing of prices or metrics, except to say at the end which measurement was
the best.
"""

import numpy as np

from falcon_ray.optimizers.history import History
from falcon_ray.optimizers.optimizer import Suggestion
from falcon_ray.optimizers.readiness import Readiness
from falcon_ray.space.configuration import Configuration, ConfigurationSpace, FloatArray
from falcon_ray.space.objective import SearchObjective
from falcon_ray.space.observation import Observation


class RandomSearch:
    """Suggests candidates uniformly at random, each at most once; an `Optimizer`.

    Args:
        space: The n candidates.
        objective: Ranks measurements for `recommend`.
        usd_per_hour: Price of each candidate, all replicas together, shape (n,).
        seed: Not negative; equal seeds and observations give equal suggestions.
    """

    def __init__(
        self,
        space: ConfigurationSpace,
        objective: SearchObjective,
        usd_per_hour: FloatArray,
        *,
        seed: int,
    ) -> None:
        self._history = History(space, objective, usd_per_hour)
        self._seed = seed

    def suggest(self, readiness: Readiness | None = None) -> Suggestion | None:
        """A uniformly random candidate among those that can be had; None when none is left."""
        available = np.flatnonzero(self._history.open_to(readiness))
        if available.size == 0:
            return None
        index = int(self._history.rng(self._seed).choice(available))
        self._history.expect(index)
        return Suggestion(
            configuration=self._history.space.candidate(index),
            why=f"drawn uniformly from the {available.size:,} untried candidates",
        )

    def observe(self, observation: Observation) -> None:
        """Take note of a trial; its configuration is not suggested again."""
        self._history.observe(observation)

    def withdraw(self, configuration: Configuration) -> None:
        """Take a suggestion back whose trial never began."""
        self._history.withdraw(configuration)

    def recommend(self) -> Observation | None:
        """The best raw measurement that is feasible; None when there is none."""
        best = self._history.best()
        return None if best is None else best[0]

    @property
    def exhausted(self) -> bool:
        """Whether every candidate was suggested or observed."""
        return self._history.exhausted
