"""How long a suggestion takes, from a hundred candidates to a million, on one core.

The spaces and the priors are made up: random effects of every dimension, two experts, eight key
operators. Only times are read off them.
"""

import time
from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

from falcon_ray.knowledge.mixture import ExpectedMetric, Expert, ExpertMixture
from falcon_ray.optimizers.gaussian_process import MIN_OBSERVATIONS_TO_FIT
from falcon_ray.optimizers.mcts import MonteCarloTreeSearch
from falcon_ray.optimizers.optimizer import Suggestion
from falcon_ray.space.configuration import ConfigurationSpace, FloatArray
from falcon_ray.space.objective import Objective, Slo
from falcon_ray.space.observation import Measurement, Observation, TrialStatus
from falcon_ray.studies.figure import Figure
from falcon_ray.studies.search.options import SearchStudyOptions

_GPUS = ("T4", "L4", "A10G", "L40S", "A100-80G", "H100")
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
_DTYPES = ("float32", "float16", "bfloat16")
_SPACES: tuple[tuple[dict[str, tuple[str | int | float, ...]], float], ...] = (
    ({"gpu_type": _GPUS, "dtype": _DTYPES, "batch_size": _BATCHES}, 10.0),
    (
        {
            "gpu_type": _GPUS,
            "dtype": _DTYPES,
            "batch_size": _BATCHES,
            "gpu_share": (0.25, 0.5, 0.75, 1.0),
            "cpu_cores": (1, 2, 4, 8, 16),
        },
        50.0,
    ),
    (
        {
            "gpu_type": _GPUS,
            "dtype": _DTYPES,
            "batch_size": _BATCHES,
            "gpu_share": (0.25, 0.5, 0.75, 1.0),
            "cpu_cores": (1, 2, 4, 8, 16),
            "batch_wait_ms": tuple(range(10)),
            "replicas": (1, 2, 3, 4),
        },
        100.0,
    ),
    (
        {
            "gpu_type": _GPUS,
            "dtype": _DTYPES,
            "batch_size": _BATCHES,
            "gpu_share": (0.25, 0.5, 0.75, 1.0),
            "cpu_cores": (1, 2, 4, 8, 16),
            "batch_wait_ms": tuple(range(10)),
            "replicas": (1, 2, 3, 4),
            "gpu_memory_gib": (2, 4, 6, 8, 10, 12, 16, 20, 24),
        },
        100.0,
    ),
)
"""Dimensions with values, and the milliseconds that a suggestion may take."""
_N_OPERATORS = 8


def figures(options: SearchStudyOptions) -> list[Figure]:
    """Median seconds of a suggestion, and those of the building of the tree."""
    spaces = _SPACES[:2] if options.quick else _SPACES
    found: list[Figure] = []
    with threadpool_limits(1):
        for values, at_most_ms in spaces:
            for slo in (None, Slo(latency_budget_ms=80.0)):
                found += _figures(ConfigurationSpace.of(values), slo, at_most_ms=at_most_ms)
    return found


def _figures(space: ConfigurationSpace, slo: Slo | None, *, at_most_ms: float) -> list[Figure]:
    objective = Objective(slo)
    effect = _effects(space)
    usd_per_hour = np.exp(effect(1) - 1)
    start = time.perf_counter()
    optimizer = MonteCarloTreeSearch(
        space, objective, usd_per_hour, seed=0, prior=_prior(objective, effect)
    )
    build_s = time.perf_counter() - start
    seconds: list[float] = []
    rng = np.random.default_rng(0)
    # One trial before hyperparameters are fitted for the first time, which is told apart.
    for _ in range(MIN_OBSERVATIONS_TO_FIT - 1):
        start = time.perf_counter()
        suggestion = optimizer.suggest()
        seconds.append(time.perf_counter() - start)
        assert suggestion is not None, "there are far more candidates than trials"
        optimizer.observe(_measured(suggestion, slo, rng))
    n, limit = len(space), "without SLO" if slo is None else "with SLO"
    return [
        Figure(
            name=f"suggestion among {n:,} candidates {limit}, median",
            value=1e3 * float(np.median(seconds)),
            unit="ms",
            at_most=at_most_ms,
            note=f"one core, {len(seconds)} suggestions without refits, worst "
            f"{1e3 * max(seconds):.1f} ms; made-up prior of two experts",
        ),
        Figure(
            name=f"building the tree of {n:,} candidates {limit}",
            value=build_s,
            unit="s",
            note=f"once, before the first trial; {sum(1 for _ in optimizer.root.leaves()):,} parts",
        ),
    ]


def _effects(space: ConfigurationSpace) -> Callable[[int], FloatArray]:
    """Makes sums of a random walk along every dimension, shape (n,), from a seed."""

    def effect(seed: int) -> FloatArray:
        total = np.zeros(len(space))
        for column, dimension in enumerate(space.dimensions):
            steps = np.random.default_rng([seed, column]).normal(0, 0.3, len(dimension.values))
            total += np.cumsum(steps)[space.codes[:, column]]
        return total

    return effect


def _prior(objective: Objective, effect: Callable[[int], FloatArray]) -> ExpertMixture:
    experts = tuple(
        Expert(
            name=name,
            weight=weight,
            metrics={
                metric: ExpectedMetric(mean=effect(seed + i) + 4, offset_sd=0.3, residual_sd=0.2)
                for i, metric in enumerate(objective.modelled_metrics)
            },
        )
        for name, weight, seed in (("composition", 0.6, 10), ("roofline", 0.3, 20))
    )
    return ExpertMixture(
        experts=experts,
        log_memory_share=effect(30) - 1,
        operator_seconds={
            f"operator {i}": np.exp(effect(100 + i) - 5) for i in range(_N_OPERATORS)
        },
    )


def _measured(suggestion: Suggestion, slo: Slo | None, rng: np.random.Generator) -> Observation:
    rate, latency = (None, None) if slo is None else (50.0, 50.0)
    return Observation(
        configuration=suggestion.configuration,
        status=TrialStatus.MEASURED,
        measurement=Measurement(
            saturation_rps=60 * float(rng.uniform(0.8, 1.2)),
            capacity_rps=rate,
            floor_latency_ms=latency,
        ),
    )
