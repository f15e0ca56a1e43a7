from pathlib import Path

import pandas as pd
import pytest

from falcon_ray.knowledge.operators.operator import Family
from falcon_ray.studies.public_tables import DATA_DIR_VARIABLE
from falcon_ray.studies.vision_runs import reference_setups, vision_runs

PUBLISHED_FAMILIES = (
    *("act", "bmm", "conv_1x1", "conv_3x3", "conv_big", "conv_dw", "conv_grp", "elem"),
    *("free", "linear", "move", "norm", "other", "pool", "sdpa", "softmax"),
)


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One model: a convolution of 64 to 64 channels at 10 x 10, then a classifier of 64 to 1000.

    Weights: 9 * 64 * 64 = 36,864 and 64 * 1000 = 64,000. Traced at batch 2, per sample.
    """
    row: dict[str, object] = {"model": "m", "image_size": 10}
    for name in PUBLISHED_FAMILIES:
        row |= {f"count_{name}": 0.0, f"flops_{name}": 0.0, f"elements_{name}": 0.0}
    row |= {
        "count_conv_3x3": 1.0,
        "flops_conv_3x3": 2.0 * 36_864 * 100,
        "elements_conv_3x3": 6_400 + 6_400 + 36_864 / 2,
        "count_linear": 1.0,
        "flops_linear": 2.0 * 64_000,
        "elements_linear": 64 + 1_000 + 64_000 / 2,
        "count_free": 3.0,
    }
    pd.DataFrame([row]).to_parquet(tmp_path / "vision_operators.parquet")
    run = {
        "model": "m",
        "family": "f",
        "image_size": 10,
        "batch": 8.0,
        "device": "4090",
        "dtype": "amp",
        "layout": "nchw",
        "torch": "240",
        "dynamo": False,
        "throughput_rps": 400.0,
        "params_millions": 0.100864,
    }
    newer = run | {"torch": "291", "throughput_rps": 800.0}
    pd.DataFrame([run, newer]).to_parquet(tmp_path / "vision_throughput.parquet")
    monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path))


@pytest.mark.usefixtures("tables")
def test_weights_are_moved_once_a_batch_and_activations_once_a_sample() -> None:
    totals = vision_runs()[0].totals
    # two bytes each; 8 samples of activations and the weights once
    assert totals.bytes_moved[Family.CONV_3X3] == pytest.approx([2 * (8 * 12_800 + 36_864)])
    assert totals.bytes_moved[Family.LINEAR] == pytest.approx([2 * (8 * 1_064 + 64_000)])
    assert totals.flops[Family.LINEAR] == pytest.approx([8 * 128_000])


@pytest.mark.usefixtures("tables")
def test_views_launch_nothing() -> None:
    assert vision_runs()[0].totals.launches == pytest.approx([2])


@pytest.mark.usefixtures("tables")
def test_a_run_takes_its_batch_over_its_throughput() -> None:
    runs = vision_runs()
    assert runs[0].seconds == pytest.approx([8 / 400])
    assert (runs[0].mode, runs[0].dtype) == ("eager", "float16")


@pytest.mark.usefixtures("tables")
def test_the_newest_version_is_the_reference() -> None:
    runs = vision_runs()
    assert [runs[i].torch for i in reference_setups(runs)] == ["291"]
