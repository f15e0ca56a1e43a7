import copy
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from falcon_ray.profiling.zoo.gpt2 import Gpt2
from falcon_ray.profiling.zoo.registry import REFERENCE_MODELS, ReferenceModel, reference_model

Inputs = Tensor | tuple[Tensor, ...]

NAMES = sorted(REFERENCE_MODELS)
SMALL = ("lstm", "mobilenet_v3", "ncf", "resnet50", "unet_block")
BATCH = 2


def factory(name: str) -> Callable[[int], nn.Module]:
    return pkgutil.resolve_name(reference_model(name).factory)


def inputs(name: str, batch_size: int, seed: int = 0) -> tuple[Tensor, ...]:
    drawn: Inputs = pkgutil.resolve_name(reference_model(name).inputs)(batch_size, seed)
    return drawn if isinstance(drawn, tuple) else (drawn,)


@torch.inference_mode()
def outputs(model: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    result: Inputs = model(*arguments)
    return result if isinstance(result, tuple) else (result,)


@dataclass(frozen=True, slots=True)
class Built:
    name: str
    model: nn.Module
    outputs: tuple[Tensor, ...]  # of a batch of BATCH
    left_stream_alone: bool


# Tests are ordered by it, so that each model is built once and none outlives its own tests.
@pytest.fixture(scope="module", params=NAMES)
def built(request: pytest.FixtureRequest) -> Built:
    before = torch.get_rng_state()
    model = factory(request.param)(0)
    return Built(
        name=request.param,
        model=model,
        outputs=outputs(model, inputs(request.param, BATCH)),
        left_stream_alone=torch.equal(torch.get_rng_state(), before),
    )


def only(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("built", names, indirect=True)


def on_meta(name: str, seed: int = 0) -> nn.Module:
    with torch.device("meta"):
        return factory(name)(seed)


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    return all(map(torch.equal, one.parameters(), other.parameters()))


COUNTS = {
    # bert-base-uncased: (30522 + 512 + 2 + 2) * 768 of embeddings and their norm,
    # 12 blocks of 4 * 768 * 769 + 768 * 3072 * 2 + 3072 + 768 + 4 * 768, pooler 768 * 769
    "bert_base": 109_482_240,
    # MLPerf's tables cut to 40,000: 441165 * 128; bottom 14 * 512 + 513 * 256 + 257 * 128; top,
    # of 128 + 27 * 26 / 2 = 479: 480 * 1024 + 1025 * 1024 + 1025 * 512 + 513 * 256 + 257
    "dlrm": 58_838_017,
    # gpt2 of Hugging Face: (50257 + 1024) * 768, 12 blocks as BERT's, last norm 2 * 768
    "gpt2": 124_439_808,
    # 10000 * 650, two layers of 4 * 650 * (650 + 650 + 2), 651 * 10000; 20 M as published, where
    # every gate has one bias and not two
    "lstm": 19_780_400,
    # torchvision's model table, mobilenet_v3_large
    "mobilenet_v3": 5_483_032,
    # MLPerf's PyTorch model: (138493 + 26744) * (64 + 128), 257 * 256 + 257 * 128 + 129 * 64, 129
    "ncf": 31_832_577,
    # torchvision's model table, resnet50
    "resnet50": 25_557_032,
    # input_blocks.1 of Stable Diffusion v1. Residual block: two norms of 640, two convolutions of
    # (9 * 320 + 1) * 320, time 1281 * 320. Transformer: norms 640 + 3 * 640, in and out
    # 2 * 321 * 320, attention to pixels 1281 * 320, attention to the prompt 2177 * 320 with
    # 2177 = 320 + 2 * 768 + 321, feed-forward 321 * 2560 + 1281 * 320
    "unet_block": 4_801_280,
    # torchvision's model table, vgg16
    "vgg16": 138_357_544,
    # torchvision's model table, vit_b_16
    "vit_b_16": 86_567_656,
}

SHAPES = {
    "bert_base": [(BATCH, 128, 768), (BATCH, 768)],
    "dlrm": [(BATCH, 1)],
    "gpt2": [(BATCH, 50_257)],
    "lstm": [(BATCH, 10_000)],
    "mobilenet_v3": [(BATCH, 1000)],
    "ncf": [(BATCH, 1)],
    "resnet50": [(BATCH, 1000)],
    "unet_block": [(BATCH, 320, 64, 64)],
    "vgg16": [(BATCH, 1000)],
    "vit_b_16": [(BATCH, 1000)],
}


@pytest.mark.parametrize("name", NAMES)
def test_parameter_count_is_the_published_one(name: str) -> None:
    assert sum(parameter.numel() for parameter in on_meta(name).parameters()) == COUNTS[name]


def test_output_has_the_documented_shape(built: Built) -> None:
    assert [tuple(output.shape) for output in built.outputs] == SHAPES[built.name]


def test_row_of_a_batch_equals_the_row_alone(built: Built) -> None:
    last = tuple(argument[-1:] for argument in inputs(built.name, BATCH))
    for row, alone in zip(built.outputs, outputs(built.model, last), strict=True):
        torch.testing.assert_close(row[-1:], alone, rtol=1e-3, atol=1e-4)


def test_outputs_keep_a_sane_scale_and_tell_inputs_apart(built: Built) -> None:
    for output in built.outputs:
        assert 0.01 < output.std() < 100
        spread = (output - output.mean(dim=0)).norm() / output.norm()
        assert spread > 0.1  # 0 if every input gave the same output, 0.71 for independent ones


def test_models_come_in_eval_mode(built: Built) -> None:
    assert not any(module.training for module in built.model.modules())


def test_building_leaves_the_global_stream_alone(built: Built) -> None:
    assert built.left_stream_alone


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_drawn_from_a_stream_of_the_seed(name: str) -> None:
    seeds: set[int] = set()

    def note_seed(_module: nn.Module, _name: str, _parameter: nn.Parameter) -> None:
        seeds.add(torch.default_generator.initial_seed())

    hook = register_module_parameter_registration_hook(note_seed)
    try:
        on_meta(name, seed=7)
    finally:
        hook.remove()
    assert seeds == {7}


@only(*SMALL)
def test_weights_follow_the_seed_and_not_the_global_stream(built: Built) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(12345)
        assert same_weights(built.model, factory(built.name)(0))
        assert not same_weights(built.model, factory(built.name)(1))


@pytest.mark.parametrize("name", NAMES)
def test_inputs_follow_the_seed_and_leave_the_global_stream_alone(name: str) -> None:
    before = torch.get_rng_state()
    first, again, other = (inputs(name, BATCH, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(argument.shape[0] == BATCH for argument in first)
    assert all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, other))


@pytest.mark.parametrize("name", NAMES)
def test_whole_numbers_are_int64_and_others_float32(name: str) -> None:
    assert {argument.dtype for argument in inputs(name, 1)} <= {torch.int64, torch.float32}


def test_model_and_inputs_run_on_the_meta_device(built: Built) -> None:
    with torch.device("meta"):
        arguments = inputs(built.name, BATCH)
    for output, real in zip(outputs(on_meta(built.name), arguments), built.outputs, strict=True):
        assert output.device.type == "meta"
        assert output.shape == real.shape


def test_bfloat16_stays_close_to_float32(built: Built) -> None:
    model = copy.deepcopy(built.model).to(torch.bfloat16)
    first = tuple(
        argument[:1].to(torch.bfloat16) if argument.is_floating_point() else argument[:1]
        for argument in inputs(built.name, BATCH)
    )
    for half, full in zip(outputs(model, first), built.outputs, strict=True):
        assert half.dtype == torch.bfloat16
        assert (half.float() - full[:1]).norm() < 0.1 * full[:1].norm()


@only("dlrm", "ncf", "unet_block")
def test_every_input_matters(built: Built) -> None:
    given, others = (inputs(built.name, 1, seed) for seed in (0, 1))
    if built.name == "unet_block":  # a corner of the image does
        given, others = ((x[:, :, :8, :8], *told) for x, *told in (given, others))
    (expected,) = outputs(built.model, given)
    for position, other in enumerate(others):
        changed = (*given[:position], other, *given[position + 1 :])
        (output,) = outputs(built.model, changed)
        assert (output - expected).norm() > 0.01 * expected.norm()


@only("dlrm")
def test_dlrm_looks_every_feature_up_in_a_table_of_its_own(built: Built) -> None:
    dense, sparse = inputs("dlrm", 1)
    rows = sparse.expand(27, -1).clone()
    # Row 1 + i differs from row 0 in feature i alone; every table has a row 0 and a row 1.
    rows[1:].diagonal().copy_(torch.where(sparse[0] == 0, 1, 0))
    (clicks,) = outputs(built.model, (dense.expand(27, -1), rows))
    assert len(clicks.unique()) == 27


@only("gpt2")
def test_gpt2_never_looks_ahead(built: Built) -> None:
    assert isinstance(built.model, Gpt2)
    prompt = inputs("gpt2", 1)[0][:, :8].repeat(2, 1)
    prompt[1, 5:] = 0
    with torch.inference_mode():
        hidden = built.model.blocks(built.model.tokens(prompt))
    torch.testing.assert_close(hidden[0, :5], hidden[1, :5])
    assert not torch.allclose(hidden[0, 5:], hidden[1, 5:])


@only("lstm")
def test_lstm_reads_in_order(built: Built) -> None:
    (words,) = inputs("lstm", 1)
    swapped = words.clone()
    swapped[:, [-3, -2]] = words[:, [-2, -3]]
    (expected,), (output,) = (outputs(built.model, (each,)) for each in (words, swapped))
    assert (output - expected).norm() > 0.1 * expected.norm()


@only("bert_base")
def test_bert_ignores_padding(built: Built) -> None:
    input_ids, attention_mask = inputs("bert_base", 2)
    attention_mask[0, 64:] = 0
    input_ids[1] = input_ids[0]
    attention_mask[1] = attention_mask[0]
    input_ids[1, 64:] = 0
    (hidden, pooled) = outputs(built.model, (input_ids, attention_mask))
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
