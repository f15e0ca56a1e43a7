"""The profile that is shipped: our own constants, fitted to public measurements, and their sources.

No row of a public table is in it. The module knows where constants come from and how to write
them; it does not know how they are fitted.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from falcon_ray.knowledge.llm.expert_fit import fit_llm_experts
from falcon_ray.knowledge.profile.files import write_profile
from falcon_ray.knowledge.profile.manifest import Manifest, Source
from falcon_ray.knowledge.profile.profile import Profile
from falcon_ray.knowledge.profile.schemas import CONSTANTS, DEVICES
from falcon_ray.knowledge.profile.tables import device_row
from falcon_ray.studies.family_constants import GEMM, OPERATORS, public_constants
from falcon_ray.studies.knowledge.llm_tables import (
    llm_architectures,
    llm_gpu_constants,
    llm_rows,
    table_gpus,
)
from falcon_ray.studies.public_tables import public_table
from falcon_ray.studies.unlisted_devices import UNLISTED_DEVICES
from falcon_ray.studies.vision_runs import SOURCE as VISION

_OWN_FIT = "constants fitted by falcon_ray to"


def shipped_profile(*, date: str) -> Profile:
    """Fit everything that is shipped; about two minutes.

    Args:
        date: ISO date of the fit.

    Raises:
        InputError: A public table is missing.
    """
    constants = [
        *public_constants(),
        *llm_gpu_constants(GEMM),
        *fit_llm_experts(llm_rows(), llm_architectures(), table_gpus(), source=GEMM),
    ]
    tables = {
        "constants": pa.Table.from_pylist([each.to_row() for each in constants], CONSTANTS),
        "devices": pa.Table.from_pylist([device_row(each) for each in UNLISTED_DEVICES], DEVICES),
    }
    return Profile.of_tables(tables, _sources(date))


def write_shipped_profile(directory: Path, *, date: str) -> Manifest:
    """Write the shipped profile in place of the one in a directory.

    Raises:
        InputError: A public table is missing, or the directory cannot be written.
    """
    return write_profile(directory, shipped_profile(date=date))


def _sources(date: str) -> Mapping[str, Source]:
    return {
        OPERATORS: Source(
            licence="MIT, (c) 2025 Georgia Tech and Microsoft",
            date=date,
            description=f"{_OWN_FIT} operator latencies of NeuSight (Lee et al., ASPLOS 2025)",
            url="https://github.com/sitar-lab/NeuSight",
            commit="6945927",
            sha256=_sha256("operator_latency.parquet"),
        ),
        GEMM: Source(
            licence="Apache-2.0",
            date=date,
            description=f"{_OWN_FIT} GEMM and LLM serving measurements of aiconfigurator",
            url="https://github.com/ai-dynamo/aiconfigurator",
            commit="095f58a",
            sha256=_sha256("llm_serving.parquet"),
        ),
        VISION: Source(
            licence="Apache-2.0",
            date=date,
            description=f"{_OWN_FIT} throughput of vision models of pytorch-image-models",
            url="https://github.com/huggingface/pytorch-image-models",
            commit="aa4b585",
            sha256=_sha256("vision_throughput.parquet"),
        ),
    }


def _sha256(table: str) -> str:
    """Of the table that was read."""
    return hashlib.sha256(public_table(table).read_bytes()).hexdigest()
