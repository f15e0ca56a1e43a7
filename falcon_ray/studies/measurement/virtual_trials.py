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


@dataclass(slots=True)
class Heard:
    """Collects the requests that a recipe tells of."""

    _logs: list[RequestLog] = field(default_factory=list[RequestLog])

    def __call__(self, phase: str, offered_rps: float | None, log: RequestLog) -> None:  # noqa: ARG002
        """Take the requests of one phase."""
        if phase in SATURATED:
            self._logs.append(log)

    def saturated(self) -> RequestLog:
        """All requests of closed loop with full queues, warm-up included."""
        return RequestLog.concat(self._logs)


@dataclass(frozen=True, slots=True)
class TrialOutcome:
    """A trial that was measured, and the requests that it was measured by."""

    measurement: Measurement
    saturated: RequestLog


def virtual_trial(service: KnownService, plan: MeasurementPlan, *, seed: int) -> TrialOutcome:
    """Run one trial; everything random in it follows from the seed.

    Raises:
        InputError: It did not end with a measurement.
    """
    rng = np.random.default_rng(seed)
    clock, heard = VirtualClock(), Heard()
    load = SimulatedLoad(clock)
    recipe = TrialRecipe(
        backend=SimulatedBackend(service, rng),
        load=load,
        model_load=None,
        monitor=BlindMonitor(),
        plan=plan,
        clock=clock,
        on_phase=lambda _: None,
        on_requests=heard,
    )
    return outcome(recipe.run(CONFIGURATION), heard)


def outcome(observation: Observation, heard: Heard) -> TrialOutcome:
    """The measurement of a trial with its requests.

    Raises:
        InputError: There is none.
    """
    if observation.measurement is None:
        raise InputError(f"a trial of the known service ended without: {observation.reason}")
    return TrialOutcome(observation.measurement, heard.saturated())
