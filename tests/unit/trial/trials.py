"""Trials against the fakes, for the tests of the recipe."""

import math

from falcon_ray.space.configuration import Configuration
from falcon_ray.space.objective import Slo
from falcon_ray.space.observation import Measurement, Observation, TrialStatus
from falcon_ray.trial.plan import MeasurementPlan
from falcon_ray.trial.protocols import EndpointFacts
from falcon_ray.trial.recipe import TrialRecipe
from falcon_ray.trial.requests import RequestLog
from tests.fakes import FakeBackend, FakeEndpoint, FakeLoadGenerator, FakeMonitor, VirtualClock

ONE_ATTEMPT = MeasurementPlan(max_attempts=1)
CONFIGURATION = Configuration({"batch_size": 4})
# The fake service takes 40 ms for a batch of 4.
SATURATION_RPS = 100.0


class Trial:
    """One recipe with the fakes around it, deploying what is given."""

    def __init__(
        self,
        *attempts: FakeEndpoint | Exception,
        plan: MeasurementPlan | None = None,
        clock: VirtualClock | None = None,
        load_error: BaseException | None = None,
        load_error_after_s: float = 0.0,
        model_every_s: float | None = None,
        retry_within_s: float = math.inf,
    ) -> None:
        self.clock = clock or VirtualClock()
        self.backend = FakeBackend(self.clock, list(attempts) or [self.endpoint()])
        self.load = FakeLoadGenerator(
            self.clock,
            error=load_error,
            error_after_s=load_error_after_s,
            metrics={"tokens_per_s": 7.0},
        )
        self.model_load = (
            None
            if model_every_s is None
            else FakeLoadGenerator(self.clock, batches_every_s=(model_every_s,))
        )
        self.monitor = FakeMonitor()
        self.told = list[tuple[str, float | None, int]]()
        self.phases = list[str]()
        self.recipe = TrialRecipe(
            backend=self.backend,
            load=self.load,
            model_load=self.model_load,
            monitor=self.monitor,
            plan=plan or MeasurementPlan(),
            clock=self.clock,
            on_phase=self.phases.append,
            on_requests=self._tell,
            retry_within_s=retry_within_s,
        )

    def _tell(self, phase: str, offered_rps: float | None, log: RequestLog) -> None:
        self.told.append((phase, offered_rps, log.n))

    def endpoint(self) -> FakeEndpoint:
        return FakeEndpoint(clock=self.clock)

    def run(self, *, rate_to_beat_rps: float | None = None) -> Observation:
        return self.recipe.run(CONFIGURATION, rate_to_beat_rps=rate_to_beat_rps)

    def measure(self, *, rate_to_beat_rps: float | None = None) -> Measurement:
        observation = self.run(rate_to_beat_rps=rate_to_beat_rps)
        assert observation.status is TrialStatus.MEASURED, observation.reason
        assert observation.measurement is not None
        return observation.measurement


def served_by(
    endpoint: FakeEndpoint,
    plan: MeasurementPlan | None = None,
    *,
    model_every_s: float | None = None,
) -> Trial:
    """A trial of this endpoint, on the endpoint's own clock."""
    return Trial(endpoint, plan=plan, clock=endpoint.clock, model_every_s=model_every_s)


def endpoint(
    *,
    service_s: float = 0.04,
    fail_every: int = 0,
    open_loop_fails: bool = False,
    replaced_after_s: float = math.inf,
    said: EndpointFacts | None = None,
    hangs_after_s: float = math.inf,
) -> FakeEndpoint:
    return FakeEndpoint(
        clock=VirtualClock(),
        service_s=service_s,
        fail_every=fail_every,
        open_loop_fails=open_loop_fails,
        replaced_after_s=replaced_after_s,
        said=said or EndpointFacts(),
        hangs_after_s=hangs_after_s,
    )


def with_slo(budget_ms: float, percentile: float = 99.0) -> MeasurementPlan:
    return MeasurementPlan(slo=Slo(latency_budget_ms=budget_ms, latency_percentile=percentile))


def assert_gone(trial: Trial, *, deployments: int = 1) -> None:
    """Every deployment was torn down before the next one, and nobody watches it any more."""
    assert trial.backend.events == ["deploy", "teardown"] * deployments
    assert trial.monitor.events.count("watch") == trial.monitor.events.count("unwatch")
