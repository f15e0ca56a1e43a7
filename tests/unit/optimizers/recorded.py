"""Small recorded tasks whose best candidate can be read off, for tests of replays."""

from collections.abc import Iterable, Mapping

import numpy as np

from falcon_ray.optimizers.optimizer import Suggestion
from falcon_ray.optimizers.readiness import Readiness
from falcon_ray.optimizers.replay import ReplayTask
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.dimension import Value
from falcon_ray.space.listed import ListedSpace
from falcon_ray.space.objective import Objective
from falcon_ray.space.observation import Measurement, Observation, TrialStatus


def recorded(
    rates: Mapping[tuple[tuple[str, Value], ...], float | None],
    *,
    name: str = "task",
    family: str = "family",
    model: str = "model",
    usd_per_hour: float = 3600.0,
) -> ReplayTask:
    """A task from requests per second by configuration, None where memory ran out.

    At 3,600 USD an hour the score is the rate: rate * 3600 / 3600.
    """
    space = ListedSpace.of_rows([dict(each) for each in rates])
    observations = tuple(
        Observation(configuration=each, status=TrialStatus.INFEASIBLE, reason="out of memory")
        if rate is None
        else Observation(
            configuration=each,
            status=TrialStatus.MEASURED,
            measurement=Measurement(saturation_rps=rate),
        )
        for each, rate in zip(space.candidates, rates.values(), strict=True)
    )
    return ReplayTask(
        name=name,
        model=model,
        family=family,
        space=space,
        objective=Objective(),
        usd_per_hour=np.full(len(space), usd_per_hour),
        observations=observations,
    )


def by_batch(
    rates: Iterable[float | None],
    *,
    name: str = "task",
    family: str = "family",
    model: str = "model",
) -> ReplayTask:
    """A task whose candidates are the batch sizes 1, 2, 4, ..., with these rates."""
    named = {(("batch_size", 2**i),): rate for i, rate in enumerate(rates)}
    return recorded(named, name=name, family=family, model=model)


class Listed:
    """An `Optimizer` that suggests candidates in a given order and remembers what it was told."""

    def __init__(self, task: ReplayTask, order: Iterable[int]) -> None:
        self._task = task
        self._left = list(order)
        self.events: list[str] = []
        self.observed: list[Observation] = []

    def suggest(self, readiness: Readiness | None = None) -> Suggestion | None:
        del readiness
        if not self._left:
            return None
        index = self._left.pop(0)
        self.events.append(f"suggest {index}")
        return Suggestion(configuration=self._task.space.candidate(index), why="it is listed")

    def observe(self, observation: Observation) -> None:
        index = self._task.space.position(observation.configuration)
        self.events.append(f"observe {index}")
        self.observed.append(observation)

    def withdraw(self, configuration: Configuration) -> None:
        self.events.append(f"withdraw {self._task.space.position(configuration)}")

    def recommend(self) -> Observation | None:
        return None

    @property
    def exhausted(self) -> bool:
        return not self._left
