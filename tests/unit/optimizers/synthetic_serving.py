"""A made-up service with a known optimum, for tests of optimizers.

Its 120 configurations behave as real ones do in outline: throughput saturates with the batch,
cores help ever less, a price is paid per core. It says nothing about real hardware.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from falcon_ray.errors import InfeasibleCause
from falcon_ray.knowledge.mixture import ExpectedMetric, Expert, ExpertMixture
from falcon_ray.optimizers.optimizer import Optimizer
from falcon_ray.space.configuration import Configuration, ConfigurationSpace, FloatArray
from falcon_ray.space.objective import Objective, Slo
from falcon_ray.space.observation import Measurement, Observation, TrialStatus

SPACE = ConfigurationSpace.of(
    {
        "batch_size": [1, 2, 4, 8, 16, 32, 64, 128],
        "cpu_cores": [1, 2, 4, 8, 16],
        "dtype": ["float32", "bfloat16", "int8"],
    }
)
WITHOUT_SLO = Objective()
WITH_SLO = Objective(Slo(latency_budget_ms=6.0))

_SPEED = {"float32": 1.0, "bfloat16": 1.6, "int8": 1.3}


def usd_per_hour(space: ConfigurationSpace) -> FloatArray:
    """0.08 USD for the machine and 0.04 USD a core, shape (n,)."""
    return np.array([0.08 + 0.04 * each.count("cpu_cores", 1) for each in space.candidates])


def operator_times_ms(configuration: Configuration) -> dict[str, float]:
    """A fixed cost, a cost per item and one of cache misses; 12 % of them cannot be shared."""
    batch = configuration.count("batch_size", 1)
    speed = _SPEED.get(configuration.text("dtype", "float32"), 1.0)
    shared = 0.12 + 0.88 / configuration.count("cpu_cores", 1)
    return {
        "launches": 4 * shared,
        "linear": batch / speed * shared,
        "cache misses": 0.3 * (batch / 12) ** 2 / speed * shared,
    }


def service_time_ms(configuration: Configuration) -> float:
    """Of a full batch."""
    return sum(operator_times_ms(configuration).values())


def measured(configuration: Configuration, objective: Objective) -> Observation:
    """What a trial of the service would show; latency at light load is 1.2 service times."""
    service_ms = service_time_ms(configuration)
    saturation_rps = 1000 * configuration.count("batch_size", 1) / service_ms
    floor_ms = 1.2 * service_ms
    capacity_rps = None
    if objective.slo is not None and floor_ms <= objective.slo.latency_budget_ms:
        capacity_rps = saturation_rps * (1 - 0.5 * floor_ms / objective.slo.latency_budget_ms)
    return Observation(
        configuration=configuration,
        status=TrialStatus.MEASURED,
        measurement=Measurement(
            saturation_rps=saturation_rps,
            service_time_ms=service_ms,
            capacity_rps=capacity_rps,
            floor_latency_ms=None if objective.slo is None else floor_ms,
        ),
    )


def rate(configuration: Configuration, saturation_rps: float) -> Observation:
    """A trial that showed a throughput and nothing else."""
    return Observation(
        configuration=configuration,
        status=TrialStatus.MEASURED,
        measurement=Measurement(saturation_rps=saturation_rps),
    )


def infeasible(configuration: Configuration) -> Observation:
    """A trial that ran out of memory."""
    return Observation(
        configuration=configuration,
        status=TrialStatus.INFEASIBLE,
        reason="out of memory",
        cause=InfeasibleCause.MEMORY,
    )


def failed(configuration: Configuration) -> Observation:
    """A trial whose node was lost."""
    return Observation(
        configuration=configuration, status=TrialStatus.FAILED, reason="the node was lost"
    )


def scores(space: ConfigurationSpace, objective: Objective) -> FloatArray:
    """True requests per dollar of every candidate, 0 where the SLO is not met, shape (n,)."""
    prices = usd_per_hour(space)
    found: list[float] = []
    for candidate, price in zip(space.candidates, prices, strict=True):
        measurement = measured(candidate, objective).measurement
        assert measurement is not None
        score = objective.score_measurement(measurement, usd_per_hour=float(price))
        found.append(0.0 if score is None else score)
    return np.array(found)


def true_logs(space: ConfigurationSpace, objective: Objective) -> dict[str, FloatArray]:
    """Logs of what the service shows, shapes (n,); half its rate stands where the SLO breaks."""
    logs: dict[str, FloatArray] = {}
    for name in objective.modelled_metrics:
        values: list[float] = []
        for candidate in space.candidates:
            measurement = measured(candidate, objective).measurement
            assert measurement is not None
            values.append(measurement.metric(name) or measurement.saturation_rps / 2)
        logs[name] = np.log(values)
    return logs


def operator_seconds(space: ConfigurationSpace) -> dict[str, FloatArray]:
    """True seconds that a request takes of each operator, shapes (n,)."""
    rows = [
        {
            name: ms / 1e3 / each.count("batch_size", 1)
            for name, ms in operator_times_ms(each).items()
        }
        for each in space.candidates
    ]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def expert(
    logs: Mapping[str, FloatArray],
    *,
    name: str = "physics",
    weight: float = 1.0,
    offset_sd: float = 0.5,
    residual_sd: float = 0.25,
) -> Expert:
    """An expert that expects these logs, by metric, with the same errors for all."""
    metrics = {
        metric: ExpectedMetric(mean=mean, offset_sd=offset_sd, residual_sd=residual_sd)
        for metric, mean in logs.items()
    }
    return Expert(name=name, weight=weight, metrics=metrics)


def true_mixture(space: ConfigurationSpace, objective: Objective) -> ExpertMixture:
    """One expert, who is right, and the operators as they are."""
    return ExpertMixture(
        experts=(expert(true_logs(space, objective)),), operator_seconds=operator_seconds(space)
    )


def suggest(optimizer: Optimizer) -> Configuration:
    """The next suggestion of an optimizer that is not exhausted."""
    suggestion = optimizer.suggest()
    assert suggestion is not None
    return suggestion.configuration


def trials_to_within_5_percent(optimizer: Optimizer, objective: Objective) -> int:
    """How many trials until one scores at least 0.95 of the best candidate of `SPACE`."""
    truth = scores(SPACE, objective)
    for n_trials in range(1, len(SPACE) + 1):
        configuration = suggest(optimizer)
        if truth[SPACE.index[configuration]] >= 0.95 * truth.max():
            return n_trials
        optimizer.observe(measured(configuration, objective))
    raise AssertionError("the optimizer was exhausted without having tried the best candidate")


def replay(optimizer: Optimizer, observations: Iterable[Observation]) -> None:
    """Feed past observations to a new optimizer."""
    for observation in observations:
        optimizer.observe(observation)
