"""Measured deployments of language models, with what the roofline says of each.

The module checks a table and joins it to architectures and GPUs. It does not know where the rows
come from, and fits nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from falcon_ray.errors import InputError
from falcon_ray.knowledge.llm.architecture import LlmArchitecture
from falcon_ray.knowledge.llm.deployments import IntArray, LlmDeployments, LlmGpu
from falcon_ray.knowledge.llm.terms import LlmTerms, llm_terms
from falcon_ray.space.configuration import FloatArray

CONFIGURATION_COLUMNS = (
    "model",
    "gpu_type",
    "backend",
    "precision",
    "n_gpus",
    "expert_parallel",
    "attention_dp",
    "concurrency",
    "isl",
    "osl",
)
"""What makes two measured deployments the same one."""
_MEASURED_COLUMNS = ("family", "tpot_ms", "ttft_ms", "throughput_rps")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeasuredLlms:
    """Measured deployments of several models; columns have length n.

    Attributes:
        terms: Ideal times and sizes.
        concurrency: Requests that were always under way.
        osl: Tokens of an answer.
        engines: Names of all engines, in the order of their constants.
        engine: Index into `engines`.
        family: Of the model; what is special to one is shared by all of its rows.
        gpu_type: Name of the GPU.
        log_seconds: Natural logs of the time between two tokens, to the first token, and of a
            whole request, shape (3, n).
    """

    terms: LlmTerms
    concurrency: FloatArray
    osl: FloatArray
    engines: tuple[str, ...]
    engine: IntArray
    family: NDArray[np.str_]
    gpu_type: NDArray[np.str_]
    log_seconds: FloatArray

    @classmethod
    def of_table(
        cls,
        rows: pd.DataFrame,
        architectures: Mapping[str, LlmArchitecture],
        gpus: Mapping[str, LlmGpu],
    ) -> "MeasuredLlms":
        """Check the rows and take their terms, model by model; equal rows count once.

        Raises:
            InputError: A column, an architecture or the facts of a GPU are missing.
        """
        wanted = (*CONFIGURATION_COLUMNS, *_MEASURED_COLUMNS)
        missing = [name for name in wanted if name not in rows]
        if missing:
            raise InputError(f"measured deployments lack the columns {', '.join(missing)}")
        rows = rows.drop_duplicates(subset=[*CONFIGURATION_COLUMNS])
        rows = rows.sort_values("model", kind="stable")
        models = list(dict.fromkeys(str(each) for each in rows["model"]))
        unknown = [model for model in models if model not in architectures]
        if unknown:
            raise InputError(f"the architecture of {unknown[0]} is missing; give its config.json")
        parts: list[LlmTerms] = []
        for model in models:
            columns = rows[rows["model"] == model]
            deployments = LlmDeployments.of_columns(
                {name: columns[name].to_numpy() for name in CONFIGURATION_COLUMNS}, gpus
            )
            parts.append(llm_terms(architectures[model], deployments))
        engines = tuple(sorted({str(each) for each in rows["backend"]}))
        request_s = rows["concurrency"].to_numpy() / rows["throughput_rps"].to_numpy()
        return cls(
            terms=LlmTerms(
                **{
                    each.name: np.concatenate([getattr(part, each.name) for part in parts])
                    for each in fields(LlmTerms)
                }
            ),
            concurrency=rows["concurrency"].to_numpy(dtype=np.float64),
            osl=rows["osl"].to_numpy(dtype=np.float64),
            engines=engines,
            engine=np.array([engines.index(str(each)) for each in rows["backend"]], dtype=np.int64),
            family=rows["family"].to_numpy(dtype=str),
            gpu_type=rows["gpu_type"].to_numpy(dtype=str),
            log_seconds=np.log(
                np.stack(
                    [rows["tpot_ms"].to_numpy() / 1e3, rows["ttft_ms"].to_numpy() / 1e3, request_s]
                )
            ),
        )

    def take(self, chosen: NDArray[np.bool_]) -> "MeasuredLlms":
        """The rows that a mask of shape (n,) chooses; engines keep their places."""
        return MeasuredLlms(
            terms=LlmTerms(
                **{each.name: getattr(self.terms, each.name)[chosen] for each in fields(LlmTerms)}
            ),
            concurrency=self.concurrency[chosen],
            osl=self.osl[chosen],
            engines=self.engines,
            engine=self.engine[chosen],
            family=self.family[chosen],
            gpu_type=self.gpu_type[chosen],
            log_seconds=self.log_seconds[:, chosen],
        )
