"""Whole trials of a known service in virtual time, by the recipe that real trials run.

It brings the recipe and the simulated service together. It does not know what becomes of the
observations.
"""

from dataclasses import dataclass, field

import numpy as np

from falcon_ray.errors import InputError
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.observation import Measurement, Observation
from falcon_ray.studies.measurement.simulated import (
    BlindMonitor,
    SimulatedBackend,
    SimulatedLoad,
    VirtualClock,
)
from falcon_ray.trial.known_service import KnownService
from falcon_ray.trial.plan import MeasurementPlan
from falcon_ray.trial.recipe import TrialRecipe
from falcon_ray.trial.requests import RequestLog

CONFIGURATION = Configuration({"variant": "known"})
SATURATED = ("warm_up", "saturation")
"""Phases of a trial in which every queue is full."""
OFFERED = "offered"
"""The phase of one load point."""


@dataclass(slots=True)
class Heard:
    """Collects the requests that a recipe tells of."""

    _logs: list[RequestLog] = field(default_factory=list[RequestLog])
    n_offered: int = 0
    offered_s: float = 0.0

    def __call__(self, phase: str, offered_rps: float | None, log: RequestLog) -> None:  # noqa: ARG002
        """Take the requests of one phase."""
        if phase == OFFERED:
            self.n_offered += 1
            self.offered_s += float(np.ptp(log.done_s)) if log.n else 0.0
        if phase in SATURATED:
            self._logs.append(log)

    def saturated(self) -> RequestLog:
        """All requests of closed loop with full queues, warm-up included."""
        return RequestLog.concat(self._logs)


@dataclass(frozen=True, slots=True)
class TrialOutcome:
    """A trial that was measured, and the requests that it was measured by.

    Attributes:
        measurement: What it said.
        saturated: Its requests with full queues, warm-up included.
        n_offered: Loads at a rate, repeated ones included.
        offered_s: How long they took together, from each one's first answer to its last.
        n_deployments: That it took.
    """

    measurement: Measurement
    saturated: RequestLog
    n_offered: int
    offered_s: float
    n_deployments: int


def virtual_trial(service: KnownService, plan: MeasurementPlan, *, seed: int) -> TrialOutcome:
    """Run one trial; everything random in it follows from the seed.

    Raises:
        InputError: It did not end with a measurement.
    """
    rng = np.random.default_rng(seed)
    clock, heard = VirtualClock(), Heard()
    load = SimulatedLoad(clock)
    backend = SimulatedBackend(service, rng)
    recipe = TrialRecipe(
        backend=backend,
        load=load,
        model_load=None,
        monitor=BlindMonitor(),
        plan=plan,
        clock=clock,
        on_phase=lambda _: None,
        on_requests=heard,
    )
    observation = recipe.run(CONFIGURATION)
    return outcome(observation, heard, n_deployments=backend.n_deployments)


def outcome(
    observation: Observation, heard: Heard, *, n_deployments: int | None = None
) -> TrialOutcome:
    """The measurement of a trial with its requests.

    Args:
        observation: How it ended.
        heard: What it sent.
        n_deployments: That were counted; None takes one for each of its attempts.

    Raises:
        InputError: There is none.
    """
    if observation.measurement is None:
        raise InputError(f"a trial of the known service ended without: {observation.reason}")
    return TrialOutcome(
        measurement=observation.measurement,
        saturated=heard.saturated(),
        n_offered=heard.n_offered,
        offered_s=heard.offered_s,
        n_deployments=observation.attempts if n_deployments is None else n_deployments,
    )
