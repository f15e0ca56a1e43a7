from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from falcon_ray.errors import InputError
from falcon_ray.knowledge.constants import Constants
from falcon_ray.knowledge.device import Device, DeviceKind
from falcon_ray.knowledge.latency.family_features import FamilyTotals
from falcon_ray.knowledge.operators.operator import Family
from falcon_ray.studies.public_tables import DATA_DIR_VARIABLE
from falcon_ray.studies.search.expert_errors import learned_errors, learned_weights
from falcon_ray.studies.search.vision_prior import (
    corrected,
    fold_knowledge,
    folds_of,
    roofline,
)
from falcon_ray.studies.search.vision_table import VisionTable, family_seconds, same_networks
from falcon_ray.studies.search.vision_tasks import spread, vision_tasks
from falcon_ray.studies.vision_runs import VisionRuns

FAMILIES = ("a", "b", "c", "d", "e", "f")
PER_FAMILY = 4
GPU = Device(
    name="gpu",
    kind=DeviceKind.GPU,
    peak_flops_per_s={"float32": 1e12, "float16": 2e12},
    bandwidth_bytes_per_s=1e11,
    memory_bytes=2.0**34,
    units=10,
    source="made up",
)
STREAMING = Constants(
    predictor="family",
    device="*",
    dtype="float32",
    mode="eager",
    terms=("activation.bytes",),
    values=np.array([1.0]),
    covariance=np.array([[0.01]]),
    residual_sd=0.1,
    n=10,
    source="made up",
)


def setup(name: str, *, mode: str, flops_factor: float, bytes_factor: float) -> VisionRuns:
    """All models in one set-up: seconds are exact multiples of ideal time."""
    n = len(FAMILIES) * PER_FAMILY
    rng = np.random.default_rng(0)  # the same models in every set-up
    flops = rng.uniform(1e9, 9e9, n)
    moved = rng.uniform(1e8, 9e8, n)
    ideal = flops_factor * flops / 2e12 + bytes_factor * moved / 1e11
    return VisionRuns(
        name=name,
        device=GPU,
        dtype="float16",
        mode=mode,
        layout="nchw",
        torch="240",
        source_dtype="amp",
        models=tuple(f"{family}{i}" for family in FAMILIES for i in range(PER_FAMILY)),
        families=tuple(family for family in FAMILIES for _ in range(PER_FAMILY)),
        totals=FamilyTotals(
            flops={Family.CONV_3X3: flops},
            bytes_moved={Family.CONV_3X3: np.full(n, 1.0), Family.ACTIVATION: moved},
            launches=np.full(n, 1.0),
        ),
        seconds=ideal,
        batch_sizes=np.full(n, 8.0),
        params_millions=np.full(n, 5.0),
    )


@pytest.fixture
def runs() -> list[VisionRuns]:
    return [
        setup("eager", mode="eager", flops_factor=2.0, bytes_factor=1.0),
        setup("compiled", mode="compiled", flops_factor=2.0, bytes_factor=0.5),
    ]


@pytest.fixture
def table(runs: list[VisionRuns]) -> VisionTable:
    return VisionTable.of_runs(runs)


def faster(runs: VisionRuns, family: str) -> VisionRuns:
    """The same but for one family, which takes a tenth of the time."""
    chosen = np.array(runs.families) == family
    return replace(runs, seconds=np.where(chosen, 0.1 * runs.seconds, runs.seconds))


def test_table_holds_images_per_second(table: VisionTable, runs: list[VisionRuns]) -> None:
    place = table.models.index("c1")  # third family of four, second model: run 9
    assert np.exp(table.log_rates[place, 1]) == pytest.approx(8.0 / runs[1].seconds[9])


def test_repeats_count_once_by_their_median(runs: list[VisionRuns]) -> None:
    each = runs[0]
    twice = replace(
        each,
        models=("a0", "a0", "a0", *each.models[3:]),
        seconds=np.array([1.0, 4.0, 2.0, *each.seconds[3:]]),
    )
    table = VisionTable.of_runs([twice])
    assert np.exp(table.log_rates[table.models.index("a0"), 0]) == pytest.approx(8.0 / 2.0)


def test_runs_of_another_network_are_left_out(runs: list[VisionRuns]) -> None:
    params = runs[1].params_millions.copy()
    params[2] = 4.5
    kept = same_networks([runs[0], runs[0], replace(runs[1], params_millions=params)])
    assert "a2" in kept[0].models
    assert "a2" not in kept[2].models
    assert len(kept[2].seconds) == len(params) - 1


def test_the_larger_of_equally_frequent_networks_stays(runs: list[VisionRuns]) -> None:
    params = runs[1].params_millions.copy()
    params[2] = 4.5
    kept = same_networks([runs[0], replace(runs[1], params_millions=params)])
    assert ["a2" in each.models for each in kept] == [True, False]


def test_roofline_takes_the_longer_of_arithmetic_and_traffic(table: VisionTable) -> None:
    log_rates = roofline(table)
    totals = table.setups[0].totals
    # Run 0 is model a0. The convolution is bound by its FLOPs; compiled, activations are free.
    arithmetic = totals.flops[Family.CONV_3X3][0] / 2e12
    traffic = totals.bytes_moved[Family.ACTIVATION][0] / 1e11
    assert np.exp(log_rates[0]) == pytest.approx([8 / (arithmetic + traffic), 8 / arithmetic])


def test_families_of_a_fold_are_not_looked_at(runs: list[VisionRuns], table: VisionTable) -> None:
    folds = folds_of(table.families, n_folds=3)
    other = VisionTable.of_runs([faster(each, "b") for each in runs])
    place = table.families.index("b")
    fold = int(folds[place])
    before = fold_knowledge(table, folds, STREAMING)[fold]
    after = fold_knowledge(other, folds, STREAMING)[fold]
    for name in ("roofline", "families", "corrected"):
        np.testing.assert_allclose(
            before.log_rates[name][before.held_out], after.log_rates[name][before.held_out]
        )


def test_other_families_are_learned_from(runs: list[VisionRuns], table: VisionTable) -> None:
    folds = folds_of(table.families, n_folds=3)
    other = VisionTable.of_runs([runs[0], replace(runs[1], seconds=0.5 * runs[1].seconds)])
    for name in ("families", "corrected"):
        before = fold_knowledge(table, folds, STREAMING)[0].log_rates[name]
        after = fold_knowledge(other, folds, STREAMING)[0].log_rates[name]
        # All models twice as fast when compiled: what is expected of unseen ones grows likewise.
        gain = (after - before)[folds == 0]
        assert gain[:, 1] - gain[:, 0] == pytest.approx(np.log(2.0), abs=0.05)


def test_exact_multiples_of_ideal_time_are_found_again(table: VisionTable) -> None:
    folds = folds_of(table.families, n_folds=3)
    known = fold_knowledge(table, folds, STREAMING)[1]
    out = known.held_out
    assert known.log_rates["families"][out] == pytest.approx(table.log_rates[out], abs=0.02)
    seconds = np.sum(list(known.seconds.values()), axis=0)
    assert seconds[out] == pytest.approx(np.exp(-table.log_rates[out]), rel=0.02)


def test_known_models_are_predicted_without_their_own_fold(table: VisionTable) -> None:
    folds = folds_of(table.families, n_folds=3)
    base = roofline(table)
    rng = np.random.default_rng(1)
    noisy = replace(table, log_rates=table.log_rates + rng.normal(0, 0.2, base.shape))
    moved = noisy.log_rates.copy()
    own = np.flatnonzero(folds == 2)
    moved[own[0], 1] += 0.01
    first = corrected(noisy, base, folds, held_out=0)
    second = corrected(replace(noisy, log_rates=moved), base, folds, held_out=0)
    others = np.flatnonzero(folds == 1)
    # Its contrast moves what is expected of fold 1, but of its own fold only medians do.
    assert np.abs((second - first)[others]).max() > 1e-6
    contrast = (second - first)[own, 1] - (second - first)[own, 0]
    assert np.ptp(contrast) == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("n_folds", [2, 7])
def test_a_number_of_folds_that_families_cannot_fill_is_refused(n_folds: int) -> None:
    with pytest.raises(InputError, match="n_folds must lie between 3 and the 6 families"):
        folds_of(FAMILIES, n_folds=n_folds)


def test_families_share_seconds_by_their_constants(runs: list[VisionRuns]) -> None:
    seconds = family_seconds(
        runs[0], {"conv_3x3.flops": 2.0, "launch_s": 1e-5}, np.array([3], dtype=np.intp)
    )
    flops = runs[0].totals.flops[Family.CONV_3X3][3]
    assert seconds["conv_3x3"] == pytest.approx([2.0 * flops / 2e12 / 8])
    assert seconds["activation"] == pytest.approx([0.0])
    assert seconds["launch"] == pytest.approx([1e-5 / 8])


def test_one_model_of_each_family_comes_before_a_second(table: VisionTable) -> None:
    eligible = np.ones(len(table.models), dtype=np.bool_)
    chosen = [table.models[row] for row in spread(table, eligible, 8)]
    # six families once, then two of the six, at (0.5, 1.5) * 6 / 2 = 1.5 and 4.5: b and e
    assert chosen == ["a0", "b0", "b1", "c0", "d0", "e0", "e1", "f0"]


def test_few_models_come_from_families_far_apart(table: VisionTable) -> None:
    eligible = np.ones(len(table.models), dtype=np.bool_)
    assert [table.families[row] for row in spread(table, eligible, 2)] == ["b", "e"]


def test_no_models_is_refused(table: VisionTable) -> None:
    with pytest.raises(InputError, match="n_models must be 1 or more, got 0"):
        spread(table, np.ones(len(table.models), dtype=np.bool_), 0)


def test_errors_split_into_what_a_model_shares_and_the_rest() -> None:
    rng = np.random.default_rng(0)
    measured = rng.normal(0, 0.5, (4000, 1)) + rng.normal(0, [0.1] * 8 + [0.3], (4000, 9))
    offset_sd, residual_sd = learned_errors(measured, np.zeros((4000, 9)))
    assert offset_sd == pytest.approx(0.5, rel=0.05)
    assert residual_sd[0] == pytest.approx(0.1, rel=0.1)
    assert residual_sd[8] == pytest.approx(0.3, rel=0.1)


def test_weights_are_the_shares_of_families_that_experts_predict_best() -> None:
    truth = np.zeros((8, 6))
    far = np.full((8, 6), 5.0) * np.array([-1, 1, -1, 1, -1, 1])
    first = np.where(np.arange(8)[:, None] < 5, truth, far)
    error = (0.1, np.full(6, 0.1))
    # Models 0 to 4 are one family, 5 to 7 a family each: a quarter and three quarters.
    weights = learned_weights(
        truth,
        {"first": first, "second": truth + far - first},
        {"first": error, "second": error},
        families=np.array([0, 0, 0, 0, 0, 1, 2, 3]),
    )
    assert weights["first"] == pytest.approx(0.25, abs=0.01)


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two models; one ran on eight set-ups, the other on seven."""
    rows: list[dict[str, object]] = []
    operators: list[dict[str, object]] = []
    names = ("act", "bmm", "conv_1x1", "conv_3x3", "conv_big", "conv_dw", "conv_grp", "elem")
    names += ("free", "linear", "move", "norm", "other", "pool", "sdpa", "softmax")
    for model, n_setups in (("m8", 8), ("m7", 7)):
        row: dict[str, object] = {"model": model, "image_size": 10}
        for name in names:
            row |= {f"count_{name}": 0.0, f"flops_{name}": 0.0, f"elements_{name}": 0.0}
        row |= {"count_act": 1.0, "elements_act": 100.0}
        operators.append(row | {"count_linear": 1.0, "flops_linear": 2.0})
        devices = [("4090", 0.44), ("5090", 0.69)]
        for i in range(n_setups):
            device, price = devices[i % 2]
            rows.append(
                {
                    "model": model,
                    "family": model,
                    "image_size": 10,
                    "batch": 8.0,
                    "device": device,
                    "dtype": "amp",
                    "layout": "nhwc" if i & 2 else "nchw",
                    "torch": "113" if device == "4090" else "240",
                    "dynamo": bool(i & 4),
                    "throughput_rps": 100.0 * (i + 1),
                    "params_millions": 1.0,
                    "usd_per_hour": price,
                }
            )
    pd.DataFrame(operators).to_parquet(tmp_path / "vision_operators.parquet")
    pd.DataFrame(rows).to_parquet(tmp_path / "vision_throughput.parquet")
    monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path))


@pytest.mark.usefixtures("published")
def test_a_task_pays_the_tables_price_for_the_tables_rate() -> None:
    (task,) = vision_tasks(with_priors=False)
    assert (task.model, len(task.space)) == ("m8", 8)
    best = task.space.candidates[int(np.argmax(task.scores))]
    # 4090 at most 700 / .44 = 1,591 a second and USD; 5090 at most 800 / .69 = 1,159
    assert task.scores.max() == pytest.approx(3600 * 700 / 0.44)
    assert dict(best) == {
        "device": "RTX-4090",
        "dtype": "amp",
        "layout": "nhwc",
        "compiler": "inductor",
        "torch": "1.13",
    }


@pytest.mark.usefixtures("published")
def test_other_prices_make_another_candidate_the_best() -> None:
    (task,) = vision_tasks(with_priors=False, prices={"RTX-5090": 0.44})
    assert task.scores.max() == pytest.approx(3600 * 800 / 0.44)


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(
    ("prices", "message"),
    [
        ({"H100": 1.0}, "no device 'H100'; the table has RTX-4090, RTX-5090"),
        ({"RTX-4090": 0.0}, "prices must be positive"),
    ],
)
def test_unusable_prices_are_refused(prices: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        vision_tasks(with_priors=False, prices=prices)
