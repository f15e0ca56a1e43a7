from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest

from falcon_ray.knowledge.llm.architecture import LlmArchitecture, Precision
from falcon_ray.knowledge.llm.deployments import LlmGpu
from falcon_ray.knowledge.llm.measured import MeasuredLlms
from falcon_ray.knowledge.llm.model import ENGINE, POOLED, llm_times
from falcon_ray.knowledge.llm.posterior import (
    CENTRES,
    EVIDENCES,
    chosen_evidence,
    fit_llms,
    held_out_residuals,
)

GPU = LlmGpu(
    name="G",
    memory_bytes=80e9,
    bandwidth_bytes_per_s=2e12,
    flops_per_s={Precision.BF16: 1e15},
    link_bytes_per_s=4e11,
)
MODELS = {
    name: LlmArchitecture.from_config(
        {
            "num_hidden_layers": layers,
            "hidden_size": hidden,
            "intermediate_size": 4 * hidden,
            "num_attention_heads": hidden // 128,
            "num_key_value_heads": 8,
            "vocab_size": 100_000,
        }
    )
    for name, layers, hidden in (("a", 32, 4096), ("b", 48, 2048), ("c", 60, 3072))
}


def measured(truth: Mapping[str, float]) -> MeasuredLlms:
    """Deployments that take exactly what the model says with the constants of `truth`."""
    rows = pd.MultiIndex.from_product(
        [MODELS, [2, 4, 8], [1, 8, 64]], names=["model", "n_gpus", "concurrency"]
    ).to_frame(index=False)
    rows = rows.assign(
        family=rows["model"],
        gpu_type="G",
        backend="x",
        precision="bf16",
        expert_parallel=1,
        attention_dp=0,
        isl=500,
        osl=100,
        tpot_ms=1.0,
        ttft_ms=1.0,
        throughput_rps=1.0,
    )
    blank = MeasuredLlms.of_table(rows, MODELS, {"G": GPU})
    times = llm_times(
        blank.terms,
        concurrency=blank.concurrency,
        osl=blank.osl,
        pooled={name: float(np.log(truth[name])) for name in POOLED},
        engine={name: np.zeros(blank.osl.size) for name in ENGINE},
    )
    seconds = times.request_s
    filled = rows.assign(
        tpot_ms=1e3 * times.tpot_s,
        ttft_ms=1e3 * times.ttft_s,
        throughput_rps=blank.concurrency / seconds,
    )
    return MeasuredLlms.of_table(filled, MODELS, {"G": GPU})


def test_data_that_meets_expectations_leaves_them_where_they_are() -> None:
    fit = fit_llms(measured(CENTRES), evidence=1.0)
    expected = np.log([CENTRES[name] for name in POOLED])
    np.testing.assert_allclose(fit.pooled, expected, atol=1e-6)
    np.testing.assert_allclose(fit.engine, 0, atol=1e-6)


def test_more_evidence_moves_a_constant_further_from_its_expectation() -> None:
    rows = measured({**CENTRES, "weights": 2 * CENTRES["weights"]})
    place = POOLED.index("weights")
    moved = [
        fit_llms(rows, evidence).pooled[place] - np.log(CENTRES["weights"])
        for evidence in (0.01, 1.0, 100.0)
    ]
    assert moved == sorted(moved)
    assert moved[0] < 0.1
    assert moved[2] == pytest.approx(np.log(2), rel=0.1)


def test_constants_that_all_families_share_are_held_loosely() -> None:
    rows = measured({**CENTRES, "weights": 2 * CENTRES["weights"]})
    evidence, residuals = chosen_evidence(rows)
    assert evidence == max(EVIDENCES)
    np.testing.assert_array_equal(residuals, held_out_residuals(rows, rows.family, evidence))


def test_what_a_family_has_to_itself_is_not_fitted_to_others() -> None:
    rows = measured(CENTRES)
    # Two families deviate in opposite ways: whatever is learnt from one is wrong for the others.
    sign = np.select([rows.family == "a", rows.family == "b"], [0.5, -0.5], 0.0)
    rows.log_seconds[:] += sign
    assert chosen_evidence(rows)[0] == min(EVIDENCES)


def test_a_start_changes_the_way_and_not_the_end() -> None:
    rows = measured({**CENTRES, "weights": 2 * CENTRES["weights"]})
    plain = fit_llms(rows, 3.0)
    started = fit_llms(rows, 3.0, start=fit_llms(rows, 1.0))
    np.testing.assert_allclose(plain.pooled, started.pooled, atol=0.02)
