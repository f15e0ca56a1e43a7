import numpy as np
import pandas as pd
import pytest

from falcon_ray.errors import InputError
from falcon_ray.knowledge.constants import Constants
from falcon_ray.knowledge.llm.architecture import LlmArchitecture, Precision
from falcon_ray.knowledge.llm.deployments import LlmDeployments, LlmGpu
from falcon_ray.knowledge.llm.fit import fit_llm_constants
from falcon_ray.knowledge.llm.measured import CONFIGURATION_COLUMNS
from falcon_ray.knowledge.llm.predictor import LlmPredictor

GPUS = {
    name: LlmGpu(
        name=name,
        memory_bytes=80e9,
        bandwidth_bytes_per_s=bandwidth,
        flops_per_s={Precision.BF16: 1e15, Precision.FP8: 2e15},
        link_bytes_per_s=4e11,
    )
    for name, bandwidth in (("slow", 2e12), ("fast", 4e12))
}


def architecture(layers: int, hidden: int) -> LlmArchitecture:
    return LlmArchitecture.from_config(
        {
            "num_hidden_layers": layers,
            "hidden_size": hidden,
            "intermediate_size": 4 * hidden,
            "num_attention_heads": hidden // 128,
            "num_key_value_heads": 8,
            "vocab_size": 100_000,
        }
    )


MODELS = {"a": architecture(32, 4096), "b": architecture(48, 2048), "c": architecture(60, 5120)}


def rows_of(model: str) -> pd.DataFrame:
    grid = pd.MultiIndex.from_product(
        [["slow", "fast"], ["x", "y"], [2, 4, 8], [1, 8, 64]],
        names=["gpu_type", "backend", "n_gpus", "concurrency"],
    ).to_frame(index=False)
    fixed = {"precision": "fp8", "expert_parallel": 1, "attention_dp": 0, "isl": 500, "osl": 100}
    return grid.assign(model=model, family=model, **fixed)


def truth(model: str) -> pd.DataFrame:
    """Every step takes 40 us a layer beside reading the weights at 60 % of the bandwidth."""
    rows = rows_of(model)
    bandwidth = rows["gpu_type"].map({k: v.bandwidth_bytes_per_s for k, v in GPUS.items()})
    weights_s = MODELS[model].total_parameters / rows["n_gpus"] / bandwidth
    tpot_s = 40e-6 * MODELS[model].n_layers + weights_s / 0.6
    ttft_s = 0.05 + tpot_s
    return rows.assign(
        tpot_ms=1e3 * tpot_s,
        ttft_ms=1e3 * ttft_s,
        throughput_rps=rows["concurrency"] / (ttft_s + 99 * tpot_s),
    )


@pytest.fixture(scope="module")
def constants() -> list[Constants]:
    return fit_llm_constants(pd.concat([truth("a"), truth("b")]), MODELS, GPUS, source="simulated")


def test_a_family_that_was_left_out_is_predicted(constants: list[Constants]) -> None:
    unseen = truth("c")
    columns = {name: unseen[name].to_numpy() for name in CONFIGURATION_COLUMNS}
    found = LlmPredictor(constants).predict(MODELS["c"], LlmDeployments.of_columns(columns, GPUS))
    error = np.abs(np.expm1(found.log_tpot_ms - np.log(unseen["tpot_ms"].to_numpy())))
    assert np.median(error) < 0.15
    inside = np.abs(found.log_tpot_ms - np.log(unseen["tpot_ms"])) < 1.96 * found.tpot_sd
    assert inside.mean() > 0.9


def test_constants_survive_a_row_of_the_profile(constants: list[Constants]) -> None:
    columns = {name: truth("c")[name].to_numpy() for name in CONFIGURATION_COLUMNS}
    deployments = LlmDeployments.of_columns(columns, GPUS)
    read = [Constants.from_row(each.to_row()) for each in constants]
    before = LlmPredictor(constants).predict(MODELS["c"], deployments)
    after = LlmPredictor(read).predict(MODELS["c"], deployments)
    np.testing.assert_array_equal(before.log_ttft_ms, after.log_ttft_ms)
    np.testing.assert_array_equal(before.ttft_sd, after.ttft_sd)


def test_measured_engines_and_gpus_are_remembered(constants: list[Constants]) -> None:
    assert LlmPredictor(constants).engines == ("x", "y")
    assert {each.device for each in constants if each.predictor == "llm.seen"} == {"slow", "fast"}


def test_error_bars_need_two_families() -> None:
    with pytest.raises(InputError, match="only the family a was measured"):
        fit_llm_constants(truth("a"), MODELS, GPUS, source="simulated")


def test_what_is_missing_is_named() -> None:
    rows = truth("a")
    with pytest.raises(InputError, match="lack the columns osl"):
        fit_llm_constants(rows.drop(columns="osl"), MODELS, GPUS, source="simulated")
    with pytest.raises(InputError, match="architecture of a is missing"):
        fit_llm_constants(rows, {}, GPUS, source="simulated")
