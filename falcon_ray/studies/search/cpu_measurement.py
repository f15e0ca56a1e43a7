"""Measures our own ground truth: models on a CPU, every configuration a real Serve trial, repeated.

It knows the models, the machine and how long a trial measures. Which trials to run is in
`cpu_trials`, how repeats become one row of a table in `cpu_table`, and what a search makes of the
tables in `cpu_tasks`; none of these loads Ray.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

from falcon_ray.errors import InputError
from falcon_ray.knowledge.operators.operator import Decomposition
from falcon_ray.profiling.device_facts import cpu_environment, cpu_identity
from falcon_ray.runtime.decompose import decompose_model
from falcon_ray.runtime.model_reference import ModelReference
from falcon_ray.runtime.model_trials import model_trials
from falcon_ray.runtime.references import Reference
from falcon_ray.runtime.search_nodes import node_prices
from falcon_ray.space.cost import Pricing
from falcon_ray.space.defaults import NodeShape
from falcon_ray.studies.search.cpu_table import write_tables
from falcon_ray.studies.search.cpu_trials import (
    AroundTrial,
    RecordedTrial,
    begin_or_continue,
    cpu_space,
    recorded_trials,
    run_trials,
    schedule,
    unsteady,
)
from falcon_ray.trial.recipe import MeasurementPlan
from falcon_ray.trial.steady_state import PrecisionRule, WarmUpRule

_MODELS = "falcon_ray.studies.search.cpu_models"
CPU_MODELS: Mapping[str, str] = MappingProxyType(
    {
        "convnext": f"{_MODELS}.convnext:convnext",
        "gru_tagger": f"{_MODELS}.gru_tagger:gru_tagger",
        "mixer": f"{_MODELS}.mixer:mixer",
    }
)
"""Factories of the models by name; none is among the profiler's reference models."""

_DEPLOY_TIMEOUT_S = 60.0
_PLAN = MeasurementPlan(
    warm_up=WarmUpRule(min_s=0.8, max_s=1.6),
    precision=PrecisionRule(min_s=2.0, max_s=3.0, relative_half_width=0.02),
    poll_s=0.2,
    model_s=0.5,
    max_attempts=2,
)


def measure(
    directory: Path,
    *,
    models: Sequence[str] = tuple(CPU_MODELS),
    n_repeats: int = 2,
    again_beyond: float = 0.10,
    seed: int = 0,
    around_trial: AroundTrial = nullcontext,
) -> Iterator[RecordedTrial]:
    """Measure on this machine, and begin or continue the journal in a directory.

    Args:
        directory: Of the journal.
        models: Keys of `CPU_MODELS`.
        n_repeats: Of every configuration.
        again_beyond: Configurations whose repeats differ by more than this share are measured
            once more; 0 takes all.
        seed: Of the order.
        around_trial: See `run_trials`.

    Raises:
        InputError: There is no such model, or the journal was begun elsewhere.
        ClusterError: Ray cannot be started.
    """
    if unknown := sorted(set(models) - set(CPU_MODELS)):
        raise InputError(f"no model {unknown[0]!r} to measure; there are {', '.join(CPU_MODELS)}")
    space = cpu_space()
    factories = {name: CPU_MODELS[name] for name in models}
    with model_trials(factories, plan=_PLAN, deploy_timeout_s=_DEPLOY_TIMEOUT_S) as trials:
        pricing = Pricing(node_prices(trials.nodes, usd_per_hour=None))
        prices = dict(
            zip(space.candidates, pricing.usd_per_hour(space.candidates).tolist(), strict=True)
        )
        begin_or_continue(directory, machine(trials.nodes))
        planned = schedule(models, space, n_repeats=n_repeats, seed=seed)
        yield from run_trials(
            planned, directory, trials.run, prices=prices, around_trial=around_trial
        )
        again = unsteady(recorded_trials(directory), n_repeats=n_repeats, difference=again_beyond)
        yield from run_trials(
            again, directory, trials.run, prices=prices, around_trial=around_trial
        )


def build(journal: Path, directory: Path) -> list[Path]:
    """Write the tables of what a journal holds so far, and say where; see `write_tables`.

    Raises:
        InputError: The journal cannot be read or holds no trial, or there is no place for tables.
    """
    trials = recorded_trials(journal)
    return write_tables(
        trials,
        directory,
        operators=[decomposed(name) for name in sorted({each.trial.model for each in trials})],
    )


def decomposed(model: str) -> Decomposition:
    """The operators of one of `CPU_MODELS`, found without running it."""
    return decompose_model(ModelReference(Reference(CPU_MODELS[model])), name=model)


def machine(nodes: Sequence[NodeShape]) -> dict[str, Any]:
    """What all trials of one journal have in common: the machine, its software, the plan."""
    identity = cpu_identity()
    return {
        "device": identity.device,
        "facts": dict(cpu_environment(identity).facts),
        "cpus": [node.cpus for node in nodes],
        "versions": {name: version(name) for name in ("ray", "torch", "numpy")},
        "plan": asdict(_PLAN),
    }
