import numpy as np
import pandas as pd
import pytest

from falcon_ray.errors import InputError
from falcon_ray.knowledge.constants import Constants
from falcon_ray.knowledge.llm.architecture import LlmArchitecture, Precision
from falcon_ray.knowledge.llm.correction import LlmCorrection, correction_ratios, fit_correction
from falcon_ray.knowledge.llm.deployments import LlmDeployments, LlmGpu
from falcon_ray.knowledge.llm.expert_fit import fit_llm_experts
from falcon_ray.knowledge.llm.experts import EXPERTS, METRICS, LlmExperts, waits_for_memory
from falcon_ray.knowledge.llm.measured import CONFIGURATION_COLUMNS, MeasuredLlms
from falcon_ray.knowledge.llm.predictor import LlmPredictor
from falcon_ray.knowledge.llm.terms import llm_terms
from falcon_ray.knowledge.mixture import Expert, ExpertMixture

GPUS = {
    name: LlmGpu(
        name=name,
        memory_bytes=80e9,
        bandwidth_bytes_per_s=bandwidth,
        flops_per_s={Precision.BF16: 1e15, Precision.FP8: 2e15},
        link_bytes_per_s=4e11,
    )
    for name, bandwidth in (("slow", 2e12), ("fast", 4e12), ("new", 4e12))
}
FAMILY_OFFSETS = {"a": 0.0, "b": 0.3, "c": -0.3}
"""Logs by which every deployment of a family is slower than the ideal."""


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


MODELS = {
    "a": architecture(32, 4096),
    "b": architecture(48, 2048),
    "c": architecture(60, 5120),
    "d": architecture(40, 3072),
}


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
    slower = np.exp(FAMILY_OFFSETS.get(model, 0.0))
    tpot_s = slower * (40e-6 * MODELS[model].n_layers + weights_s / 0.6)
    ttft_s = 0.05 * slower + tpot_s
    return rows.assign(
        tpot_ms=1e3 * tpot_s,
        ttft_ms=1e3 * ttft_s,
        throughput_rps=rows["concurrency"] / (ttft_s + 99 * tpot_s),
    )


def deployments(rows: pd.DataFrame) -> LlmDeployments:
    columns = {name: rows[name].to_numpy() for name in CONFIGURATION_COLUMNS}
    return LlmDeployments.of_columns(columns, GPUS)


@pytest.fixture(scope="module")
def constants() -> list[Constants]:
    rows = pd.concat([truth(model) for model in FAMILY_OFFSETS])
    return fit_llm_experts(rows, MODELS, GPUS, source="simulated")


@pytest.fixture(scope="module")
def mixture(constants: list[Constants]) -> ExpertMixture:
    return LlmExperts(constants).mixture(MODELS["d"], deployments(rows_of("d")))


def expert(mixture: ExpertMixture, name: str) -> Expert:
    return next(each for each in mixture.experts if each.name == name)


def test_every_expert_speaks_of_both_metrics(mixture: ExpertMixture) -> None:
    assert tuple(each.name for each in mixture.experts) == EXPERTS
    assert all(tuple(each.metrics) == METRICS for each in mixture.experts)


def test_weights_add_up_and_leave_a_tenth_to_the_constant(mixture: ExpertMixture) -> None:
    assert sum(each.weight for each in mixture.experts) == pytest.approx(1)
    assert expert(mixture, "constant").weight == 0.1


def test_calibrated_is_what_the_predictor_says(
    constants: list[Constants], mixture: ExpertMixture
) -> None:
    expected = LlmPredictor(constants).predict(MODELS["d"], deployments(rows_of("d")))
    metrics = expert(mixture, "calibrated").metrics
    np.testing.assert_array_equal(metrics["ttft_ms"].mean, expected.log_ttft_ms)
    np.testing.assert_array_equal(metrics["tpot_ms"].mean, expected.log_tpot_ms)


def test_what_families_share_becomes_the_offset(mixture: ExpertMixture) -> None:
    # Families are 0.3 apart in log, and nothing else is: that is the offset, before it is widened.
    found = expert(mixture, "calibrated").metrics["tpot_ms"]
    assert found.offset_sd > 0.15
    assert np.max(found.residual_sd) < found.offset_sd


def test_constant_knows_nothing_but_requests_per_gpu(mixture: ExpertMixture) -> None:
    rows = rows_of("d")
    load = (rows["concurrency"] / rows["n_gpus"]).to_numpy()
    for metric in METRICS:
        mean = expert(mixture, "constant").metrics[metric].mean
        assert len({(a, round(float(b), 9)) for a, b in zip(load, mean, strict=True)}) == len(
            set(load)
        )
        calibrated = expert(mixture, "calibrated").metrics[metric].mean
        assert mean.mean() == pytest.approx(calibrated.mean())


def test_a_gpu_that_nobody_measured_is_less_sure(constants: list[Constants]) -> None:
    seen = rows_of("d").query("gpu_type == 'fast'")
    experts = LlmExperts(
        [
            Constants.from_row(each.to_row() | {"values": [0.1, 0.1, 0.4]})
            if each.predictor in {"llm.ttft", "llm.tpot"}
            else each
            for each in constants
        ]
    )
    known = experts.mixture(MODELS["d"], deployments(seen))
    unknown = experts.mixture(MODELS["d"], deployments(seen.assign(gpu_type="new")))
    for name in EXPERTS:
        before = np.asarray(expert(known, name).metrics["ttft_ms"].residual_sd)
        after = np.asarray(expert(unknown, name).metrics["ttft_ms"].residual_sd)
        np.testing.assert_allclose(after, np.hypot(before, 0.4))


def test_operators_add_up_to_one_over_the_rate(
    constants: list[Constants], mixture: ExpertMixture
) -> None:
    expected = LlmPredictor(constants).predict(MODELS["d"], deployments(rows_of("d")))
    total = sum(mixture.operator_seconds.values())
    np.testing.assert_allclose(total, np.exp(-expected.log_throughput_rps), rtol=1e-4)
    assert "experts" not in mixture.operator_seconds  # a dense model has none
    assert all((each > 0).all() for each in mixture.operator_seconds.values())


def test_memory_share_grows_with_requests_and_shrinks_with_gpus(mixture: ExpertMixture) -> None:
    share = mixture.log_memory_share
    assert share is not None
    table = rows_of("d").assign(share=share).query("gpu_type == 'slow' and backend == 'x'")
    by = table.pivot_table(index="n_gpus", columns="concurrency", values="share").to_numpy()
    assert (np.diff(by, axis=1) > 0).all()
    assert (np.diff(by, axis=0) < 0).all()


def test_requests_wait_where_eight_tenths_of_the_free_memory_are_asked_for() -> None:
    terms = llm_terms(MODELS["a"], deployments(rows_of("a").head(3)))
    cache = np.array([0.79, 0.81, 2.0]) * 30e9  # 80 GB less 50 GB of weights and reserve are free
    found = waits_for_memory(
        terms,
        concurrency=cache * terms.ranks / terms.cache_bytes,
        memory_bytes=50e9 + cache,
    )
    assert found.tolist() == [False, True, True]


def test_experts_survive_rows_of_the_profile(
    constants: list[Constants], mixture: ExpertMixture
) -> None:
    read = [Constants.from_row(each.to_row()) for each in constants]
    again = LlmExperts(read).mixture(MODELS["d"], deployments(rows_of("d")))
    for name in EXPERTS:
        for metric in METRICS:
            one, two = expert(mixture, name).metrics[metric], expert(again, name).metrics[metric]
            np.testing.assert_array_equal(one.mean, two.mean)
            assert one.offset_sd == two.offset_sd


def test_constants_without_experts_are_refused(constants: list[Constants]) -> None:
    plain = [each for each in constants if not each.predictor.startswith("llm.expert")]
    with pytest.raises(InputError, match="fit them by fit_llm_experts"):
        LlmExperts(plain)


def test_a_correction_finds_the_engine_that_is_slower_everywhere() -> None:
    rows = MeasuredLlms.of_table(pd.concat([truth("a"), truth("b")]), MODELS, GPUS)
    residual = np.where(rows.engine == 0, 0.2, -0.2)  # x takes 20 % longer than thought, y less
    names, values, covariance = fit_correction(
        rows, np.zeros((residual.size, 5)), residual, slope_sd=0.4
    )
    correct = LlmCorrection(dict(zip(names, values.tolist(), strict=True)))

    def shift(engine: str, gpu: str) -> float:
        first = np.zeros(1, dtype=np.int64)
        found = correct(
            np.zeros((1, 5)),
            engines=[engine],
            engine=first,
            gpus=[gpu],
            gpu=first,
            has_experts=False,
        )
        return float(found[0])

    assert 0.05 < shift("x", "fast") <= 0.2
    assert -0.2 <= shift("y", "fast") < -0.05
    assert 0 < shift("x", "never seen") < shift("x", "fast")
    assert shift("never seen", "never seen") == 0
    assert (np.diag(covariance) > 0).all()


def test_what_a_whole_family_is_off_by_is_not_learned() -> None:
    rows = MeasuredLlms.of_table(pd.concat([truth("a"), truth("b")]), MODELS, GPUS)
    residual = np.where(rows.family == "a", 0.3, -0.3)
    _, values, _ = fit_correction(rows, np.zeros((residual.size, 5)), residual, slope_sd=0.4)
    np.testing.assert_allclose(values, 0, atol=1e-6)


def test_ratios_far_from_the_data_count_as_its_edge() -> None:
    terms = llm_terms(MODELS["a"], deployments(rows_of("a").head(2)))
    found = correction_ratios(
        terms,
        concurrency=np.array([np.exp(4.5), 1e9]),  # (4.5 - 3) / 1.5 = 1
        osl=np.full(2, 100.0),
        log_ttft_s=np.array([-1.0, -1.0]),
        log_tpot_s=np.array([-5.0, -5.0]),  # (-1 + 5 - 3) / 1 = 1
        log_memory_share=np.array([-0.2, 9.0]),  # (-0.2 + 0.7) / 0.5 = 1
    )
    np.testing.assert_allclose(found[0, [0, 2, 4]], 1)
    assert found[1, 0] == found[1, 2] == 2.5
