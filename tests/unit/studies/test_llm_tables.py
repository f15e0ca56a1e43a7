import pytest

from falcon_ray.errors import InputError
from falcon_ray.knowledge.constants import ANY_DEVICE
from falcon_ray.knowledge.llm.architecture import Precision
from falcon_ray.studies.knowledge.llm_tables import (
    llm_architectures,
    llm_gpu_constants,
    llm_rows,
    table_gpus,
)
from falcon_ray.studies.public_tables import public_table

try:
    public_table("llm_serving.parquet")
except InputError as error:
    pytest.skip(str(error), allow_module_level=True)


def test_architectures_have_the_published_sizes() -> None:
    published = {
        "deepseek-ai/DeepSeek-V3": (671e9, Precision.FP8),
        "meta-llama/Llama-3.1-70B": (70.6e9, Precision.BF16),
        "openai/gpt-oss-120b": (117e9, Precision.FP4),
        "Qwen/Qwen3-32B": (32.8e9, Precision.BF16),
    }
    architectures = llm_architectures()
    for name, (parameters, precision) in published.items():
        assert architectures[name].total_parameters == pytest.approx(parameters, rel=5e-3)
        assert architectures[name].precision is precision
    assert architectures["openai/gpt-oss-120b"].n_sliding_layers == 18


def test_every_measured_gpu_has_facts() -> None:
    assert set(llm_rows()["gpu_type"]) <= set(table_gpus())
    links = {each.device: each.value("link_bytes_per_s") for each in llm_gpu_constants("test")}
    assert links["H100"] == 450e9
    assert links[ANY_DEVICE] == min(each for each in links.values() if each)
