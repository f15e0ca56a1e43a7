"""The public tables of served language models, as the knowledge floor takes them.

Names of GPUs become the catalogue's, whose facts count; what the catalogue does not carry, links
and four-bit rates, comes from the public table of devices.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from falcon_ray.knowledge.constants import ANY_DEVICE, Constants
from falcon_ray.knowledge.device import Device
from falcon_ray.knowledge.llm.architecture import LlmArchitecture
from falcon_ray.knowledge.llm.deployments import LlmGpu
from falcon_ray.knowledge.llm.predictor import llm_gpus
from falcon_ray.space.catalogue import Catalogue
from falcon_ray.studies.public_tables import public_table

CATALOGUE_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "a100_sxm": "A100-80G",
        "b200_sxm": "B200",
        "b300_sxm": "B300",
        "gb200": "GB200",
        "h100_sxm": "H100",
        "h200_sxm": "H200",
        "l4": "L4",
        "l40s": "L40S",
        "rtx_pro_6000_server": "RTX-PRO-6000",
    }
)
# What the published configs say and the table leaves out.
_QUANTISED = MappingProxyType({"deepseek-ai/": "fp8", "openai/gpt-oss": "mxfp4"})


def llm_architectures(table: str = "llm_architectures.csv") -> dict[str, LlmArchitecture]:
    """The architectures of the table by the models' names."""
    found: dict[str, LlmArchitecture] = {}
    for row in pd.read_csv(public_table(table)).to_dict("records"):
        model = str(row["model"])
        every = int(row["sliding_window_every"])
        # The table writes 0, or nothing, where a config has no such key.
        config: dict[str, Any] = {
            str(key): int(value)
            for key, value in row.items()
            if isinstance(value, int | float) and value > 0
        }
        if every:
            config["layer_types"] = [
                "full_attention" if layer % every else "sliding_attention"
                for layer in range(config["num_hidden_layers"])
            ]
        for prefix, method in _QUANTISED.items():
            if model.startswith(prefix):
                config["quantization_config"] = {"quant_method": method}
        found[model] = LlmArchitecture.from_config(config, name=model)
    return found


def llm_gpu_constants(source: str, table: str = "devices.csv") -> list[Constants]:
    """Links and four-bit rates of GPUs, as rows of predictor "llm.gpu"."""
    devices = pd.read_csv(public_table(table))
    devices = devices[devices["intra_node_gb_s"].notna()]
    facts = {
        CATALOGUE_NAMES[str(row["name_in_source"])]: row
        for row in devices.to_dict("records")
        if row["name_in_source"] in CATALOGUE_NAMES
    }
    # A GPU of which nothing is said has the slowest link: PCIe.
    slowest = {"intra_node_gb_s": devices["intra_node_gb_s"].min(), "fp4_tflops": np.nan}
    constants: list[Constants] = []
    for name, row in {**facts, ANY_DEVICE: slowest}.items():
        terms = {"link_bytes_per_s": 1e9 * float(row["intra_node_gb_s"])}
        if np.isfinite(row["fp4_tflops"]):
            terms["fp4_flops_per_s"] = 1e12 * float(row["fp4_tflops"])
        constants.append(
            Constants(
                predictor="llm.gpu",
                device=name,
                dtype="*",
                mode="*",
                terms=tuple(terms),
                values=np.array(list(terms.values())),
                covariance=np.zeros((len(terms), len(terms))),
                residual_sd=0.0,
                n=0,
                source=source,
            )
        )
    return constants


def table_gpus() -> dict[str, LlmGpu]:
    """Facts of every GPU in the catalogue, by its name there."""
    catalogue = Catalogue.packaged()
    devices = [Device.of_gpu(catalogue.gpu(name)) for name in CATALOGUE_NAMES.values()]
    return llm_gpus(devices, llm_gpu_constants("devices"))


def llm_rows(table: str = "llm_serving.parquet") -> pd.DataFrame:
    """Deployments of a public table, with the catalogue's names of GPUs.

    A deployment stands once for every task that it is part of.
    """
    rows = pd.read_parquet(public_table(table))
    return rows.assign(gpu_type=rows["gpu_type"].map(dict(CATALOGUE_NAMES)))
