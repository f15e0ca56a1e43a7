"""Searches for a way to serve a language model, recorded in the public tables.

Every task is one model, workload and service level; its candidates are the deployments that were
measured. Priors come from fits to the other families only. Several tasks share rows, and four
families stand behind all of them. The module runs no search.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType

import numpy as np
import pandas as pd

from falcon_ray.errors import InputError
from falcon_ray.knowledge.llm.architecture import LlmArchitecture
from falcon_ray.knowledge.llm.deployments import LlmDeployments, LlmGpu
from falcon_ray.knowledge.llm.expert_fit import fit_llm_experts
from falcon_ray.knowledge.llm.experts import LlmExperts
from falcon_ray.knowledge.mixture import ExpertMixture
from falcon_ray.optimizers.replay import ReplayTask
from falcon_ray.space.configuration import FloatArray
from falcon_ray.space.dimension import Value
from falcon_ray.space.listed import ListedSpace
from falcon_ray.space.objective import GenerationObjective
from falcon_ray.space.observation import InfeasibleCause, Measurement, Observation, TrialStatus
from falcon_ray.studies.knowledge.llm_tables import llm_architectures, llm_rows, table_gpus

SERVING = "llm_serving.parquet"
LARGE = "llm_large_space.parquet"
SETS = ("main", "small", "large")
DIMENSIONS: Mapping[str, str] = MappingProxyType(
    {
        "gpu_type": "gpu_type",
        "backend": "engine",
        "precision": "precision",
        "n_gpus": "n_gpus",
        "expert_parallel": "expert_parallel",
        "attention_dp": "attention_dp",
        "concurrency": "concurrency",
    }
)
"""Columns of the tables, and what a space calls them; `attention_dp` becomes the GPUs over which
requests are divided, 1 where attention is divided by heads instead."""
_NO_LIMIT = 1e8  # ms; the tables write 1e9 where nothing is limited


def llm_tasks(
    sets: Sequence[str] = ("main",), *, prices: Mapping[str, float] | None = None
) -> list[ReplayTask]:
    """The tasks of some sets, in the order of their names.

    A task none of whose rows is feasible is left out.

    Args:
        sets: Of `SETS`: "main" and "small" were measured, "large" was composed from measured
            operators and has rows that run out of memory.
        prices: USD per hour of one GPU, by the catalogue's names; the tables' by default.

    Raises:
        InputError: A set is unknown, or a GPU has no price.
    """
    return [
        _task(part, str(name), own, prices=prices)
        for part in sets
        for name, own in llm_task_rows(part).groupby("task", sort=True)
        if own["feasible"].any()
    ]


def llm_task(
    part: str, name: str, *, prices: Mapping[str, float] | None = None, prior: bool = True
) -> ReplayTask:
    """One task by its name in the table.

    Args:
        part: Its set, of `SETS`.
        name: E.g. "a|Qwen/Qwen3-32B|1024x512|none".
        prices: As in `llm_tasks`.
        prior: Whether experts are fitted, which takes seconds for each family.

    Raises:
        InputError: There is no such task, or a GPU has no price.
    """
    rows = llm_task_rows(part)
    rows = rows[rows["task"] == name]
    if rows.empty:
        raise InputError(f"the set {part} has no task {name!r}")
    return _task(part, name, rows, prices=prices, prior=prior)


def llm_task_rows(part: str) -> pd.DataFrame:
    """The rows of one set with the columns of `DIMENSIONS`, metrics, `status` and prices.

    Raises:
        InputError: The set is unknown.
    """
    if part not in SETS:
        raise InputError(f"the set {part!r} is none of {', '.join(SETS)}")
    if part != "large":
        rows = llm_rows(SERVING)
        return rows[rows["set"] == part].assign(status="ok")
    rows = llm_rows(LARGE)
    spread = rows["layout"].isin(["ep", "dpep"])
    rows = rows.assign(
        set="large",
        expert_parallel=np.where(spread, rows["n_gpus"], 1),
        attention_dp=(rows["layout"] == "dpep").astype(float),
    )
    answer_s = (rows["ttft_ms"] + rows["tpot_ms"] * (rows["osl"] - 1)) / 1e3
    return rows.assign(throughput_rps=rows["concurrency"] / answer_s)


def llm_prior(model: str, rows: pd.DataFrame, *, without: str) -> ExpertMixture:
    """What is expected of the rows of one model by who has not seen a family.

    Args:
        model: Name in the table of architectures.
        rows: Its deployments; columns as `llm_task_rows` gives them.
        without: The family that is left out of every fit.
    """
    architectures, gpus = _facts()
    columns = {name: rows[name].to_numpy() for name in (*DIMENSIONS, "isl", "osl")}
    deployments = LlmDeployments.of_columns(columns, gpus)
    return llm_experts(without).mixture(architectures[model], deployments)


@cache
def llm_experts(without: str) -> LlmExperts:
    """Experts fitted to all measured families but one; takes seconds, once per process."""
    rows = llm_rows(SERVING)
    architectures, gpus = _facts()
    constants = fit_llm_experts(
        rows[rows["family"] != without], architectures, gpus, source="llm_serving"
    )
    return LlmExperts(constants)


@cache
def _facts() -> tuple[dict[str, LlmArchitecture], dict[str, LlmGpu]]:
    return llm_architectures(), table_gpus()


def _task(
    part: str,
    name: str,
    rows: pd.DataFrame,
    *,
    prices: Mapping[str, float] | None,
    prior: bool = True,
) -> ReplayTask:
    first = rows.iloc[0]
    ttft, tpot = float(first["slo_ttft_ms"]), float(first["slo_tpot_ms"])
    space = _space(rows)
    usd_per_hour = _prices(rows, prices) / rows["concurrency"].to_numpy(dtype=np.float64)
    model, family = str(first["model"]), str(first["family"])
    return ReplayTask(
        name=f"{part}|{name}",
        model=model,
        family=family,
        space=space,
        objective=GenerationObjective(
            output_tokens=int(first["osl"]),
            ttft_budget_ms=ttft if ttft < _NO_LIMIT else np.inf,
            tpot_budget_ms=tpot if tpot < _NO_LIMIT else np.inf,
        ),
        usd_per_hour=usd_per_hour,
        observations=_observations(rows, space),
        prior=llm_prior(model, rows, without=family) if prior else None,
    )


def _prices(rows: pd.DataFrame, prices: Mapping[str, float] | None) -> FloatArray:
    """USD per hour of each deployment, shape (n,)."""
    if prices is None:
        return rows["usd_per_hour"].to_numpy(dtype=np.float64)
    missing = sorted(set(rows["gpu_type"]) - set(prices))
    if missing:
        raise InputError(f"a price is missing for {', '.join(missing)}; give USD per GPU and hour")
    per_gpu = np.array([prices[str(each)] for each in rows["gpu_type"]], dtype=np.float64)
    return per_gpu * rows["n_gpus"].to_numpy(dtype=np.float64)


def _space(rows: pd.DataFrame) -> ListedSpace:
    """The candidates; dimensions that have a single value are left out."""
    columns: dict[str, list[Value]] = {}
    for column, name in DIMENSIONS.items():
        values = rows[column]
        if column == "attention_dp":
            values = rows["n_gpus"].where(values > 0, 1)
        if pd.api.types.is_numeric_dtype(values):
            columns[name] = [int(each) for each in values]
        else:
            columns[name] = [str(each) for each in values]
    varied = {name: values for name, values in columns.items() if len(set(values)) > 1}
    return ListedSpace.of_rows(
        [dict(zip(varied, row, strict=True)) for row in zip(*varied.values(), strict=True)]
    )


def _observations(rows: pd.DataFrame, space: ListedSpace) -> tuple[Observation, ...]:
    found: list[Observation] = []
    for configuration, row in zip(space.candidates, rows.to_dict("records"), strict=True):
        if row["status"] == "ok":
            measurement = Measurement(
                saturation_rps=float(row["throughput_rps"]),
                extra={"ttft_ms": float(row["ttft_ms"]), "tpot_ms": float(row["tpot_ms"])},
            )
            observation = Observation(
                configuration=configuration, status=TrialStatus.MEASURED, measurement=measurement
            )
        else:
            observation = Observation(
                configuration=configuration,
                status=TrialStatus.INFEASIBLE,
                reason="out of memory",
                cause=InfeasibleCause.MEMORY,
            )
        found.append(observation)
    return tuple(found)
