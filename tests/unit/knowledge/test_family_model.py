import math

import numpy as np
import pytest

from falcon_ray.errors import InputError
from falcon_ray.knowledge.constants import ANY_DEVICE, Constants
from falcon_ray.knowledge.device import Device, DeviceKind
from falcon_ray.knowledge.latency.family_features import TERMS, FamilyTotals
from falcon_ray.knowledge.latency.family_fit import fit_family_constants
from falcon_ray.knowledge.latency.family_model import FamilyModel, half_width
from falcon_ray.knowledge.latency.family_pool import completed, pooled, transferred, with_stand_ins
from falcon_ray.knowledge.operators.operator import Family, FamilyCalls
from falcon_ray.space.configuration import FloatArray


def device(name: str = "here", *, peak: float = 1e12, bandwidth: float = 1e11) -> Device:
    return Device(
        name=name,
        kind=DeviceKind.GPU,
        peak_flops_per_s={"float32": peak, "float16": 4 * peak},
        bandwidth_bytes_per_s=bandwidth,
        memory_bytes=1e9,
        units=10,
        source="test",
    )


def constants(
    values: dict[str, float],
    *,
    sd: float = 0.0,
    residual_sd: float = 0.1,
    name: str = "here",
    dtype: str = "float32",
    mode: str = "eager",
    threads: int = 0,
) -> Constants:
    return Constants(
        predictor="family",
        device=name,
        dtype=dtype,
        mode=mode,
        terms=tuple(values),
        values=np.array(list(values.values())),
        covariance=sd**2 * np.eye(len(values)),
        residual_sd=residual_sd,
        n=10,
        source="test",
        threads=threads,
    )


def calls(family: Family, *, count: float, flops: float, bytes_moved: float) -> FamilyCalls:
    """One operator at batch sizes 1 and 2."""
    batch = np.array([[1.0], [2.0]])
    return FamilyCalls(
        family=family,
        names=(family.value,),
        counts=np.array([count]),
        dims=np.ones((2, 1, 2)),
        flops=flops * batch,
        bytes_moved=bytes_moved * batch,
    )


def runs(rng: np.random.Generator, n: int) -> FamilyTotals:
    """Models of linear and elementwise operators in random proportions."""
    return FamilyTotals(
        flops={Family.LINEAR: rng.uniform(1e9, 1e11, n)},
        bytes_moved={
            Family.LINEAR: rng.uniform(1e7, 1e9, n),
            Family.ELEMENTWISE: rng.uniform(1e7, 1e10, n),
        },
        launches=rng.uniform(10, 1000, n),
    )


LINEAR = {"linear.flops": 2.0, "linear.bytes": 3.0, "launch_s": 1e-5}


def fitted(
    totals: FamilyTotals,
    seconds: FloatArray,
    *,
    n_groups: int = 20,
    ridge_towards: Constants | None = None,
) -> Constants:
    return fit_family_constants(
        totals,
        seconds,
        groups=np.arange(len(seconds), dtype=np.intp) % n_groups,
        device=device(),
        dtype="float32",
        mode="eager",
        source="test",
        ridge_towards=ridge_towards,
    )


def test_an_operator_takes_its_multiples_of_ideal_time_and_a_launch() -> None:
    seconds = FamilyModel(constants(LINEAR), device()).predict_operators(
        Family.LINEAR, np.array([1e9]), np.array([1e8])
    )
    # 2 * 1e9 / 1e12 + 3 * 1e8 / 1e11 + 1e-5
    assert seconds == pytest.approx([0.002 + 0.003 + 0.00001])


def test_a_view_costs_no_launch() -> None:
    model = FamilyModel(constants(LINEAR), device())
    assert model.predict_operators(Family.VIEW, np.zeros(1), np.zeros(1))[0] < 1e-8


def test_a_model_is_the_sum_of_its_calls_at_every_batch_size() -> None:
    model = FamilyModel(constants(LINEAR), device())
    log_seconds, sd = model.predict_model(
        [
            calls(Family.LINEAR, count=3, flops=1e9, bytes_moved=1e8),
            calls(Family.VIEW, count=50, flops=0, bytes_moved=0),
        ]
    )
    # 3 calls of 5.01 ms at batch 1; arithmetic and traffic double at batch 2
    assert np.exp(log_seconds) == pytest.approx([3 * 0.00501, 3 * 0.01001])
    assert sd == pytest.approx([0.1, 0.1])


def test_half_precision_is_measured_against_its_own_peak() -> None:
    model = FamilyModel(constants({"linear.flops": 2.0}, dtype="float16"), device())
    seconds = model.predict_operators(Family.LINEAR, np.array([4e12]), np.zeros(1))
    assert seconds == pytest.approx([2.0])  # 2 * 4e12 / (4 * 1e12)


def test_unsure_constants_widen_the_error_of_models_that_spend_time_on_them() -> None:
    model = FamilyModel(constants({"linear.flops": 2.0}, sd=1.0), device())
    _, sd = model.predict_model([calls(Family.LINEAR, count=1, flops=1e9, bytes_moved=0)])
    # the constant is 2 +- 1, so its log is unsure by 0.5; hypot(0.5, 0.1)
    assert sd[0] == pytest.approx(math.hypot(0.5, 0.1))


def test_families_without_constants_are_named() -> None:
    unknown = FamilyModel(constants(LINEAR), device()).unknown_families
    assert Family.POOL in unknown
    assert Family.LINEAR not in unknown
    assert Family.VIEW not in unknown


def test_constants_of_another_predictor_are_refused() -> None:
    other = Constants.from_row({**constants(LINEAR).to_row(), "predictor": "llm"})
    with pytest.raises(InputError, match="llm"):
        FamilyModel(other, device())


def test_a_fit_finds_the_constants_of_noiseless_runs() -> None:
    totals = runs(np.random.default_rng(0), 600)
    truth = constants(LINEAR | {"elementwise.bytes": 1.5})
    log_seconds, _ = FamilyModel(truth, device()).predict_totals(totals)
    found = fitted(totals, np.exp(log_seconds))
    for term in truth.terms:
        assert found.value(term) == pytest.approx(truth.value(term), rel=0.03)


def test_a_few_slow_outliers_do_not_move_the_fit() -> None:
    totals = runs(np.random.default_rng(1), 100)
    truth = constants(LINEAR | {"elementwise.bytes": 1.5})
    seconds = np.exp(FamilyModel(truth, device()).predict_totals(totals)[0])
    seconds[::20] *= 3
    found = fitted(totals, seconds)
    for term in ("linear.flops", "elementwise.bytes"):
        assert found.value(term) == pytest.approx(truth.value(term), rel=0.1)


def test_no_constant_is_negative() -> None:
    rng = np.random.default_rng(2)
    assert (fitted(runs(rng, 30), rng.uniform(1e-3, 1e-1, 30)).values >= 0).all()


def test_intervals_of_a_fit_cover_what_they_say() -> None:
    rng = np.random.default_rng(3)
    truth = FamilyModel(constants(LINEAR | {"elementwise.bytes": 1.5}), device())

    def measured(n: int) -> tuple[FamilyTotals, FloatArray]:
        totals = runs(rng, n)
        errors = 0.15 * rng.standard_t(4, n) / math.sqrt(2)  # of unit variance, times 0.15
        return totals, np.exp(truth.predict_totals(totals)[0] + errors)

    found = fitted(*measured(400), n_groups=100)
    totals, seconds = measured(2000)
    log_seconds, sd = FamilyModel(found, device()).predict_totals(totals)
    errors = np.abs(np.log(seconds) - log_seconds)
    assert np.mean(errors <= half_width(sd, 0.8)) == pytest.approx(0.80, abs=0.05)
    assert np.mean(errors <= half_width(sd, 0.95)) == pytest.approx(0.95, abs=0.03)


def test_few_runs_stay_near_the_other_device_and_many_do_not() -> None:
    rng = np.random.default_rng(4)
    truth = FamilyModel(constants({"linear.flops": 4.0}), device())
    other = constants({"linear.flops": 2.0}, sd=0.02)

    def found(n: int) -> float:
        totals = FamilyTotals(
            flops={Family.LINEAR: rng.uniform(1e9, 1e10, n)}, bytes_moved={}, launches=np.zeros(n)
        )
        seconds = np.exp(truth.predict_totals(totals)[0])
        value = fitted(totals, seconds, ridge_towards=other).value("linear.flops")
        assert value is not None
        return value

    assert 2.0 < found(2) < 3.0
    assert found(1000) == pytest.approx(4.0, rel=0.05)


def test_what_no_run_contains_comes_from_the_other_device() -> None:
    totals = runs(np.random.default_rng(5), 30)
    seconds = np.exp(FamilyModel(constants(LINEAR), device()).predict_totals(totals)[0])
    other = constants({"pool.bytes": 1.7}, sd=0.3)
    found = fitted(totals, seconds, ridge_towards=other)
    assert found.value("pool.bytes") == 1.7
    place = found.terms.index("pool.bytes")
    assert found.covariance[place, place] == pytest.approx(0.09)


def test_one_model_alone_cannot_be_fitted() -> None:
    with pytest.raises(InputError, match="1 models"):
        fitted(runs(np.random.default_rng(6), 4), np.ones(4), n_groups=1)


def test_pooled_constants_are_means_with_the_spread_between_devices() -> None:
    mean = pooled(
        [
            constants({"linear.flops": 1.0, "pool.bytes": 2.0}, name="a"),
            constants({"linear.flops": 3.0}, name="b"),
        ],
        dtype="float32",
        mode="eager",
        source="test",
        device_sd=0.2,
    )
    assert mean.device == ANY_DEVICE
    assert mean.value("linear.flops") == 2.0
    assert mean.value("pool.bytes") == 2.0
    # deviations -1 and 1: variance 2 of one more device from the truth, times (2 + 1) / 2
    assert mean.covariance[0, 0] == pytest.approx(3.0)
    assert mean.residual_sd == pytest.approx(math.hypot(0.1, 0.2))


def test_an_unmeasured_device_scales_the_constants_by_its_facts() -> None:
    twice = device("fast", peak=2e12, bandwidth=2e11)
    found = transferred([constants(LINEAR, name=ANY_DEVICE)], twice, "float32")
    assert found is not None
    seconds = FamilyModel(found, twice).predict_operators(
        Family.LINEAR, np.array([1e9]), np.array([1e8])
    )
    assert seconds == pytest.approx([0.0025 + 0.00001])  # launches do not get faster


def test_transfer_prefers_pooled_rows_of_the_mode_and_never_mixes_cpus_with_gpus() -> None:
    rows = [
        constants({"linear.flops": 9.0}, name=ANY_DEVICE, threads=8),
        constants({"linear.flops": 5.0}, name=ANY_DEVICE, mode="compiled"),
        constants({"linear.flops": 3.0}, name=ANY_DEVICE),
        constants({"linear.flops": 7.0}, name="other"),
    ]
    found = transferred(rows, device(), "float32")
    assert found is not None
    assert found.value("linear.flops") == 3.0
    assert transferred(rows[:1], device(), "float32") is None


def test_half_precisions_stand_for_each_other() -> None:
    found = transferred([constants(LINEAR, name=ANY_DEVICE, dtype="bfloat16")], device(), "float16")
    assert found is not None
    assert found.dtype == "float16"
    assert transferred([constants(LINEAR, name=ANY_DEVICE)], device(), "float16") is None


def test_a_device_never_transfers_to_itself() -> None:
    assert transferred([constants(LINEAR)], device(), "float32") is None


def test_completing_keeps_what_is_there() -> None:
    joined = completed(constants({"linear.flops": 1.0}), constants({"linear.flops": 2.0} | LINEAR))
    assert joined.value("linear.flops") == 1.0
    assert joined.value("linear.bytes") == 3.0


def test_attention_borrows_from_batched_products_with_a_wide_error() -> None:
    full = with_stand_ins(constants({"bmm.flops": 1.0, "conv_3x3.flops": 3.0}))
    place = full.terms.index("attention.flops")
    assert full.values[place] == 1.0
    # families differ by 1 around a mean of 2
    assert full.covariance[place, place] == pytest.approx(0.25)


def test_totals_of_runs_with_different_families_are_joined() -> None:
    first = FamilyTotals.of_calls([calls(Family.LINEAR, count=2, flops=3, bytes_moved=5)])
    second = FamilyTotals.of_calls([calls(Family.POOL, count=1, flops=0, bytes_moved=7)])
    joined = FamilyTotals.concatenated([first, second])
    assert joined.flops[Family.LINEAR] == pytest.approx([6, 12, 0, 0])
    assert joined.bytes_moved[Family.POOL] == pytest.approx([0, 0, 7, 14])
    assert joined.launches == pytest.approx([2, 2, 1, 1])
    ideal = joined.ideal_seconds(device(), "float32")
    assert ideal[1, TERMS.index("linear.flops")] == pytest.approx(12 / 1e12)
