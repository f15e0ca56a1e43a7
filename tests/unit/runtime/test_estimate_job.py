import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import falcon_ray
from falcon_ray.errors import InputError
from falcon_ray.knowledge.constants import ANY_DEVICE
from falcon_ray.knowledge.operators.operator import Family
from falcon_ray.knowledge.profile.decompositions import decomposition_rows
from falcon_ray.knowledge.profile.profile import Profile
from falcon_ray.report.estimate import Estimate
from falcon_ray.runtime import estimate_job
from falcon_ray.runtime.decompose import decompose_model
from falcon_ray.runtime.estimate_operators import describe_dims
from falcon_ray.runtime.estimate_request import request_of
from falcon_ray.runtime.model_reference import ModelReference
from falcon_ray.runtime.references import parse_reference
from tests.unit.knowledge.known import constants, profile

MODEL = """
import torch
from torch import nn


class Branching(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x
        return -x


def wide(): return nn.Sequential(nn.Linear(1000, 1000), nn.ReLU(), nn.Linear(1000, 10))
def wide_inputs(n): return torch.zeros(n, 1000)
def branching(): return Branching()
branching_inputs = wide_inputs
"""

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "torch_dtype": "bfloat16",
}

Ask = Callable[..., Estimate]
KNOWN = profile(constants(ANY_DEVICE, threads=0), devices=())


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Estimates models of a user's file, by pooled constants of linear layers alone."""
    (tmp_path / "shop.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FALCON_RAY_PROFILE", str(tmp_path / "none"))

    def estimate(
        model: str = "shop.py:wide",
        *,
        packaged: Profile = KNOWN,
        **options: Any,  # noqa: ANN401
    ) -> Estimate:
        request = request_of({"model": model, "devices": ["L4"], **options})
        return estimate_job.estimate(request, packaged)

    return estimate


def test_the_best_configuration_of_each_device_comes_with_its_error_bar(ask: Ask) -> None:
    found = ask(devices=["T4", "L4"])
    assert {each.device for each in found.best_by_device} == {"T4", "L4"}
    scores = [each.requests_per_dollar for each in found.best_by_device]
    assert scores[0].median >= scores[1].median
    assert all(each.low < each.median < each.high for each in scores)


def test_the_top_is_sorted_and_as_long_as_asked(ask: Ask) -> None:
    found = ask(top=4)
    medians = [each.requests_per_dollar.median for each in found.top]
    assert len(medians) == 4
    assert medians == sorted(medians, reverse=True)


def test_key_operators_come_with_curves_over_the_batch(ask: Ask) -> None:
    part = ask().operators
    assert part is not None
    assert part.operators[0].name == "linear"
    assert part.operators[0].curves[0].resource == "batch_size"
    total = sum(each.share for each in part.operators) + part.others_share + part.host_share
    assert total == pytest.approx(1.0)


def test_a_latency_budget_rules_configurations_out(ask: Ask) -> None:
    assert ask(latency_budget_ms=1e-6).best_by_device == ()
    assert "capacity_rps" in ask(latency_budget_ms=1000.0).top[0].metrics


def test_an_estimate_is_plain_json(ask: Ask) -> None:
    record = json.loads(json.dumps(ask().to_json()))
    assert record["key_operators"]["operators"][0]["curves"][0]["shape"]
    assert record["top"][0]["configuration"]["gpu_type"] == "L4"


def test_operators_without_constants_are_named(ask: Ask) -> None:
    assert any("relu" in line for line in ask().warnings)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"model": "shop.py:branching"}, r"shop.py.*falcon-ray profile"),
        ({"devices": ["L5"]}, "nothing is known about the device 'L5'"),
        ({"top": 0}, "top must be a positive whole number"),
        ({"tops": 3}, r"unknown option 'tops' \(did you mean top\?\)"),
        ({"store": "nowhere"}, "nowhere"),
        ({"model": "missing.json"}, "missing.json"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(
    ask: Ask, options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        ask(**options)
    assert "\n" not in str(caught.value)


def test_without_any_constants_it_says_that_it_knows_nothing(ask: Ask) -> None:
    with pytest.raises(InputError, match="nothing is known about L4 in float32"):
        ask(packaged=Profile.empty())


def test_the_public_function_knows_the_gpus_of_the_packaged_profile(ask: Ask) -> None:
    del ask  # its directory holds the model, and its environment names no other profile
    found = falcon_ray.estimate("shop.py:wide", devices=["T4", "A10G", "H100"])
    assert {each.device for each in found.best_by_device} == {"T4", "A10G", "H100"}
    assert found.knowledge


def test_a_model_that_decides_by_values_is_known_from_a_profile_of_its_runs(ask: Ask) -> None:
    run = decompose_model(
        ModelReference(parse_reference("shop.py:branching", directory=Path.cwd())),
        name="shop.py:branching",
        by_running=True,
    )
    known = KNOWN.merged(Profile.of_tables({"decompositions": decomposition_rows(run)}))
    assert ask("shop.py:branching", packaged=known).best_by_device


def test_where_nothing_works_the_closest_is_named(ask: Ask) -> None:
    found = ask(latency_budget_ms=1e-6)
    assert found.closest.startswith("closest is gpu_type=L4")
    assert "1e-06 ms allowed" in found.closest


def test_a_small_llm_is_offered_fp8_only_where_the_hardware_has_it(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(LLAMA))
    found = falcon_ray.estimate(str(config), devices=["T4", "L4"], top=1000)
    precisions = {
        device: {each.configuration["precision"] for each in found.top if each.device == device}
        for device in ("T4", "L4")
    }
    assert precisions == {"T4": {"bf16"}, "L4": {"bf16", "fp8"}}


def test_an_encoder_is_no_chat_model(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(LLAMA | {"architectures": ["BertForMaskedLM"]}))
    with pytest.raises(InputError, match="generates no text"):
        falcon_ray.estimate(str(config), devices=["L4"])


@pytest.mark.parametrize(
    ("family", "dims", "words"),
    [
        (Family.LINEAR, (128, 768, 3072), "128 x 3072 to 768"),
        (Family.BMM, (12, 64, 32, 16), "12 x 64x16 by 16x32"),
        (Family.CONV_DEPTHWISE, (8, 32, 32, 32, 3, 3, 56, 56, 2), "8 x 32 to 32 of 56x56 by 3x3"),
        (Family.NORM, (256, 768), "256 x 768"),
        (Family.ELEMENTWISE, (4000, 2000), "4,000 elements"),
    ],
)
def test_dimensions_are_said_in_few_words(
    family: Family, dims: tuple[int, ...], words: str
) -> None:
    assert describe_dims(family, dims).startswith(words)
