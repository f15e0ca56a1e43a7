"""How well serving a language model is predicted that no constant was fitted to.

Families of models are left out one by one, and types of GPU likewise. Tasks of one model under
several service levels share their deployments, and two DeepSeek models share many rows, so there
is less evidence than rows: four families. How firmly a fit holds its constants it chooses within
the families it sees. Which terms the model has, where it expects constants, and which part of an
error bar is widened for the few families, was decided with all four in sight: figures of families
left out are somewhat too good for it. Figures with expectations moved at random say how much.
"""

import time
from collections.abc import Iterable, Mapping
from itertools import product

import numpy as np
import pandas as pd
from scipy import stats

from falcon_ray.knowledge.constants import Constants
from falcon_ray.knowledge.llm.architecture import LlmArchitecture
from falcon_ray.knowledge.llm.deployments import LlmDeployments, LlmGpu
from falcon_ray.knowledge.llm.fit import fit_llm_constants
from falcon_ray.knowledge.llm.measured import CONFIGURATION_COLUMNS
from falcon_ray.knowledge.llm.predictor import LlmPredictor
from falcon_ray.studies.figure import Figure
from falcon_ray.studies.knowledge.llm_first_guess import (
    moved_expectations,
    orders,
    regrets,
    regrets_with_slo,
)
from falcon_ray.studies.knowledge.llm_tables import llm_architectures, llm_rows, table_gpus

_METRICS = ("throughput", "tpot", "ttft")
_N_LARGE = 1_000_000


def figures(
    *, serving: str = "llm_serving.parquet", large: str = "llm_large_space.parquet"
) -> list[Figure]:
    """Errors, order, regret, coverage, memory and speed.

    Args:
        serving: Name of the public table of measured deployments.
        large: Name of the public table of composed deployments with out-of-memory rows.
    """
    architectures, gpus, tasks = llm_architectures(), table_gpus(), llm_rows(serving)
    rows = tasks.drop_duplicates(list(CONFIGURATION_COLUMNS)).reset_index(drop=True)
    by_family = _held_out(rows, "family", architectures, gpus)
    predictions = ["predicted_rps"] + [
        f"{kind}{metric}" for kind, metric in product(("predicted_", "sd_"), ("tpot", "ttft"))
    ]
    tasks = tasks.merge(by_family[[*CONFIGURATION_COLUMNS, *predictions]], how="left")
    found = [
        *_errors(by_family, "family"),
        orders(tasks),
        *regrets(tasks[tasks["slo"] == "none"]),
        *moved_expectations(tasks, architectures, gpus),
        *regrets_with_slo(tasks[tasks["slo"] != "none"]),
        *_coverage(by_family, "family"),
    ]
    by_gpu = _held_out(rows, "gpu_type", architectures, gpus)
    found += [*_errors(by_gpu, "GPU type")[:1], *_coverage(by_gpu, "GPU type")[:2]]
    predictor = LlmPredictor(fit_llm_constants(rows, architectures, gpus, source="study"))
    found.append(_memory(predictor, llm_rows(large), architectures, gpus))
    found.append(_seconds(predictor, architectures, gpus))
    return found


def _held_out(
    rows: pd.DataFrame,
    column: str,
    architectures: Mapping[str, LlmArchitecture],
    gpus: Mapping[str, LlmGpu],
) -> pd.DataFrame:
    """Rows with predictions and, by metric, `residual_*` and `sd_*`, from fits without them."""
    parts: list[pd.DataFrame] = []
    for name in sorted(rows[column].unique()):
        out = rows[column] == name
        constants = fit_llm_constants(rows[~out], architectures, gpus, source="study")
        parts += _predicted(rows[out], constants, architectures, gpus)
    return pd.concat(parts)


def _predicted(
    rows: pd.DataFrame,
    constants: Iterable[Constants],
    architectures: Mapping[str, LlmArchitecture],
    gpus: Mapping[str, LlmGpu],
) -> list[pd.DataFrame]:
    predictor = LlmPredictor(constants)
    parts: list[pd.DataFrame] = []
    for model, own in rows.groupby("model"):
        columns = {name: own[name].to_numpy() for name in CONFIGURATION_COLUMNS}
        deployments = LlmDeployments.of_columns(columns, gpus)
        prediction = predictor.predict(architectures[str(model)], deployments)
        parts.append(
            own.assign(
                predicted_rps=np.exp(prediction.log_throughput_rps),
                predicted_tpot=np.exp(prediction.log_tpot_ms),
                predicted_ttft=np.exp(prediction.log_ttft_ms),
                residual_throughput=np.log(own["throughput_rps"]) - prediction.log_throughput_rps,
                sd_throughput=prediction.throughput_sd,
                residual_tpot=np.log(own["tpot_ms"]) - prediction.log_tpot_ms,
                sd_tpot=prediction.tpot_sd,
                residual_ttft=np.log(own["ttft_ms"]) - prediction.log_ttft_ms,
                sd_ttft=prediction.ttft_sd,
            )
        )
    return parts


def _errors(rows: pd.DataFrame, left_out: str) -> list[Figure]:
    """Median absolute error relative to what was measured."""
    found: list[Figure] = []
    for metric in _METRICS:
        residual = rows[f"residual_{metric}"].to_numpy(dtype=np.float64)
        error = pd.Series(100 * np.abs(np.expm1(-residual)), index=rows.index)
        by_family = error.groupby(rows["family"]).median()
        shown = ", ".join(f"{name} {value:.1f}" for name, value in by_family.items())
        sets = ", ".join(f"{k} {v:.1f}" for k, v in error.groupby(rows["set"]).median().items())
        found.append(
            Figure(
                name=f"LLM {metric}, median error, {left_out} left out",
                value=float(error.median()),
                unit="%",
                at_most=18 if (metric, left_out) == ("throughput", "family") else None,
                note=f"{len(rows):,} deployments; {sets}; {shown}",
            )
        )
    return found


def _coverage(rows: pd.DataFrame, left_out: str) -> list[Figure]:
    """Share of measurements within the 80 and 95 % intervals."""
    found: list[Figure] = []
    for metric in _METRICS:
        z = (rows[f"residual_{metric}"] / rows[f"sd_{metric}"]).abs()
        for level in (0.80, 0.95):
            inside = z.lt(float(stats.norm.ppf(0.5 + level / 2)))
            shown = ", ".join(
                f"{name} {100 * value:.0f}"
                for name, value in inside.groupby(rows["family"]).mean().items()
            )
            found.append(
                Figure(
                    name=f"LLM {metric}, coverage of {level:.0%} intervals, {left_out} left out",
                    value=100 * float(inside.mean()),
                    unit="%",
                    note=f"error bars from the others only; {shown}",
                )
            )
    return found


def _memory(
    predictor: LlmPredictor,
    rows: pd.DataFrame,
    architectures: Mapping[str, LlmArchitecture],
    gpus: Mapping[str, LlmGpu],
) -> Figure:
    """How often running out of memory is told right, on composed deployments."""
    spread = rows["layout"].isin(["ep", "dpep"])
    rows = rows.assign(
        expert_parallel=np.where(spread, rows["n_gpus"], 1),
        attention_dp=rows["layout"] == "dpep",
    ).drop_duplicates(list(CONFIGURATION_COLUMNS))
    right: list[bool] = []
    missed: list[bool] = []
    for model, own in rows.groupby("model"):
        columns = {name: own[name].to_numpy() for name in CONFIGURATION_COLUMNS}
        deployments = LlmDeployments.of_columns(columns, gpus)
        fits = predictor.predict(architectures[str(model)], deployments).probability_fits >= 0.5
        ran_out = (own["status"] == "oom").to_numpy()
        right += list(fits != ran_out)
        missed += list(fits[ran_out])
    return Figure(
        name="LLM out of memory told right",
        value=100 * float(np.mean(right)),
        unit="%",
        note=f"{len(rows):,} composed deployments, {len(missed)} of them out of memory, "
        f"{sum(missed)} of those not foreseen; weights and cache of all requests",
    )


def _seconds(
    predictor: LlmPredictor,
    architectures: Mapping[str, LlmArchitecture],
    gpus: Mapping[str, LlmGpu],
) -> Figure:
    """How long a million deployments take."""
    rng = np.random.default_rng(0)
    columns = {
        "gpu_type": rng.choice(["H100", "H200", "B200"], _N_LARGE),
        "precision": rng.choice(["bf16", "fp8", "fp4"], _N_LARGE),
        "backend": rng.choice(["vllm", "sglang", "trtllm"], _N_LARGE),
        "n_gpus": rng.choice([1, 2, 4, 8], _N_LARGE),
        "concurrency": rng.integers(1, 1024, _N_LARGE),
        "expert_parallel": 1,
        "attention_dp": 0,
        "isl": 2000,
        "osl": 500,
    }
    start = time.perf_counter()
    predictor.predict(
        next(each for each in architectures.values() if each.n_experts),
        LlmDeployments.of_columns(columns, gpus),
    )
    return Figure(
        name=f"LLM prediction of {_N_LARGE:,} deployments",
        value=time.perf_counter() - start,
        unit="s",
        at_most=5,
        note="one core, columns of names included",
    )
