import copy
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from falcon_ray.profiling.zoo.registry import REFERENCE_MODELS, ReferenceModel, reference_model

Inputs = Tensor | tuple[Tensor, ...]

NAMES = sorted(REFERENCE_MODELS)
BATCH = 3


def factory(name: str) -> Callable[[int], nn.Module]:
    return pkgutil.resolve_name(reference_model(name).factory)


def inputs(name: str, batch_size: int, seed: int = 0) -> tuple[Tensor, ...]:
    drawn: Inputs = pkgutil.resolve_name(reference_model(name).inputs)(batch_size, seed)
    return drawn if isinstance(drawn, tuple) else (drawn,)


@cache
def built(name: str) -> nn.Module:
    return factory(name)(0)


@torch.inference_mode()
def outputs(model: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    result: Inputs = model(*arguments)
    return result if isinstance(result, tuple) else (result,)


@cache
def batch_outputs(name: str) -> tuple[Tensor, ...]:
    return outputs(built(name), inputs(name, BATCH))


def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return factory(name)(0)


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    return all(map(torch.equal, one.parameters(), other.parameters()))


@pytest.mark.parametrize(
    ("name", "published"),
    [
        # torchvision's model table, mobilenet_v3_large
        ("mobilenet_v3", 5_483_032),
        # torchvision's model table, resnet50
        ("resnet50", 25_557_032),
        # bert-base-uncased: (30522 + 512 + 2 + 2) * 768 of embeddings and their norm,
        # 12 blocks of 4 * 768 * 769 + 768 * 3072 * 2 + 3072 + 768 + 4 * 768, pooler 768 * 769
        ("bert_base", 109_482_240),
    ],
)
def test_parameter_count_is_the_published_one(name: str, published: int) -> None:
    assert sum(parameter.numel() for parameter in on_meta(name).parameters()) == published


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("mobilenet_v3", [(BATCH, 1000)]),
        ("resnet50", [(BATCH, 1000)]),
        ("bert_base", [(BATCH, 128, 768), (BATCH, 768)]),
    ],
)
def test_output_has_the_documented_shape(name: str, shapes: list[tuple[int, ...]]) -> None:
    assert [tuple(output.shape) for output in batch_outputs(name)] == shapes


@pytest.mark.parametrize("name", NAMES)
def test_row_of_a_batch_equals_the_row_alone(name: str) -> None:
    last = tuple(argument[-1:] for argument in inputs(name, BATCH))
    for row, alone in zip(batch_outputs(name), outputs(built(name), last), strict=True):
        torch.testing.assert_close(row[-1:], alone, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_outputs_keep_a_sane_scale_and_tell_inputs_apart(name: str) -> None:
    for output in batch_outputs(name):
        assert 0.01 < output.std() < 100
        spread = (output - output.mean(dim=0)).norm() / output.norm()
        assert spread > 0.1  # 0 if every input gave the same output, 0.82 for independent ones


@pytest.mark.parametrize("name", NAMES)
def test_models_come_in_eval_mode(name: str) -> None:
    assert not any(module.training for module in built(name).modules())


@pytest.mark.parametrize("name", NAMES)
def test_weights_follow_the_seed_and_leave_the_global_stream_alone(name: str) -> None:
    first = built(name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(12345)
        before = torch.get_rng_state()
        again = factory(name)(0)
        assert torch.equal(torch.get_rng_state(), before)
    assert same_weights(first, again)
    assert not same_weights(first, factory(name)(1))


@pytest.mark.parametrize("name", NAMES)
def test_inputs_follow_the_seed_and_leave_the_global_stream_alone(name: str) -> None:
    before = torch.get_rng_state()
    first, again, other = (inputs(name, BATCH, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(argument.shape[0] == BATCH for argument in first)
    assert all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, other))


@pytest.mark.parametrize("name", NAMES)
def test_model_and_inputs_run_on_the_meta_device(name: str) -> None:
    with torch.device("meta"):
        arguments = inputs(name, BATCH)
    for output, real in zip(outputs(on_meta(name), arguments), batch_outputs(name), strict=True):
        assert output.device.type == "meta"
        assert output.shape == real.shape


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_stays_close_to_float32(name: str) -> None:
    model = copy.deepcopy(built(name)).to(torch.bfloat16)
    arguments = tuple(
        argument.to(torch.bfloat16) if argument.is_floating_point() else argument
        for argument in inputs(name, BATCH)
    )
    for half, full in zip(outputs(model, arguments), batch_outputs(name), strict=True):
        assert half.dtype == torch.bfloat16
        assert (half.float() - full).norm() < 0.1 * full.norm()


def test_bert_ignores_padding() -> None:
    input_ids, attention_mask = inputs("bert_base", 2)
    attention_mask[0, 64:] = 0
    input_ids[1] = input_ids[0]
    attention_mask[1] = attention_mask[0]
    input_ids[1, 64:] = 0
    (hidden, pooled) = outputs(built("bert_base"), (input_ids, attention_mask))
    torch.testing.assert_close(hidden[0, :64], hidden[1, :64])
    torch.testing.assert_close(pooled[0], pooled[1])
    assert not torch.allclose(hidden[0, 64:], hidden[1, 64:])


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_found(name: str) -> None:
    assert reference_model(name).name == name


def test_unknown_name_is_answered_with_the_nearest_and_all_known_ones() -> None:
    with pytest.raises(ValueError, match="'ResNet-50'; did you mean 'resnet50'") as caught:
        reference_model("ResNet-50")
    assert all(name in str(caught.value) for name in NAMES)


def test_factory_without_a_function_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"'module:function', got 'zoo\.resnet'"):
        ReferenceModel(name="resnet50", factory="zoo.resnet", description="no colon")


def test_registry_is_imported_without_torch() -> None:
    program = (
        "import sys, falcon_ray.profiling.zoo.registry as registry; "
        "sys.exit('torch' in sys.modules or not registry.REFERENCE_MODELS)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
