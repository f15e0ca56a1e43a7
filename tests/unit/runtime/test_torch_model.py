import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from falcon_ray.errors import InputError
from falcon_ray.runtime.model_reference import ModelReference
from falcon_ray.runtime.references import parse_reference
from falcon_ray.runtime.torch_model import (
    ExampleInputs,
    build_model,
    check_model,
    example_inputs,
    forward,
    relative_error,
    stack,
    write_example_request,
)

HEADER = """
import torch
from torch import nn

class Sum(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.randn(1))

    def forward(self, *inputs, **named):
        return self.scale * sum(each.sum(dim=1) for each in (*inputs, *named.values()))

def make():
    return Sum()
"""


def model(
    directory: Path,
    code: str,
    *,
    header: str = HEADER,
    name: str = "make",
    seed: int = 0,
    input_shape: tuple[int, ...] | None = None,
    input_dtype: str = "float32",
) -> ModelReference:
    """A reference to `name` in a file of its own with this code."""
    (directory / "tiny.py").write_text(header + code, encoding="utf-8")
    return ModelReference(
        parse_reference(f"tiny.py:{name}", directory=directory),
        seed=seed,
        input_shape=input_shape,
        input_dtype=input_dtype,
    )


def complaint(reference: ModelReference) -> str:
    """The one line that the user reads."""
    with pytest.raises(InputError) as caught:
        check_model(reference)
    message = str(caught.value)
    assert "\n" not in message
    return message


ONE_INPUT = "def make_inputs(n): return torch.ones(n, 3)\n"


def test_a_model_with_one_tensor_is_run_on_a_batch_of_one(tmp_path: Path) -> None:
    reference = model(tmp_path, ONE_INPUT)
    inputs, outputs = check_model(reference)
    assert [tuple(each.shape) for each in inputs.tensors] == [(1, 3)]
    assert inputs.names == ()
    scale = build_model(reference).get_parameter("scale").item()
    assert outputs[0].tolist() == pytest.approx([3 * scale])  # 1 + 1 + 1, scaled


def test_a_tuple_of_tensors_is_positional_arguments(tmp_path: Path) -> None:
    reference = model(
        tmp_path,
        "def make_inputs(n): return torch.ones(n, 3), torch.ones(n, 2, dtype=torch.int64)\n",
    )
    inputs, _ = check_model(reference)
    assert [each.dtype for each in inputs.tensors] == [torch.float32, torch.int64]
    assert inputs.names == ()


def test_a_dict_of_tensors_is_keyword_arguments(tmp_path: Path) -> None:
    reference = model(
        tmp_path,
        "def make_inputs(n): return {'ids': torch.zeros(n, 3), 'mask': torch.ones(n, 2)}\n",
    )
    inputs, outputs = check_model(reference)
    assert inputs.names == ("ids", "mask")
    scale = build_model(reference).get_parameter("scale").item()
    assert outputs[0].tolist() == pytest.approx([2 * scale])  # 0 + 0 + 0 and 1 + 1, scaled


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "bool"])
def test_a_shape_makes_an_input_where_the_factory_has_none(dtype: str, tmp_path: Path) -> None:
    reference = model(tmp_path, "", input_shape=(4, 5), input_dtype=dtype)
    (tensor,) = example_inputs(reference, 2).tensors
    assert tuple(tensor.shape) == (2, 4, 5)
    assert tensor.dtype is getattr(torch, dtype)


def test_a_given_shape_comes_before_the_factorys_own_inputs(tmp_path: Path) -> None:
    reference = model(tmp_path, ONE_INPUT, input_shape=(7,))
    assert tuple(example_inputs(reference, 1).tensors[0].shape) == (1, 7)


def test_the_seed_fixes_weights_and_inputs_and_another_seed_changes_them(tmp_path: Path) -> None:
    def drawn(seed: int) -> tuple[float, list[float]]:
        reference = model(tmp_path, "", seed=seed, input_shape=(3,))
        scale = build_model(reference).get_parameter("scale").item()
        return scale, example_inputs(reference, 1).tensors[0].flatten().tolist()

    assert drawn(1) == drawn(1)
    assert drawn(1)[0] != drawn(2)[0]
    assert drawn(1)[1] != drawn(2)[1]


def test_a_built_model_is_in_evaluation_mode(tmp_path: Path) -> None:
    assert not build_model(model(tmp_path, ONE_INPUT)).training


def test_every_tensor_of_an_output_is_returned_in_order(tmp_path: Path) -> None:
    code = (
        "class Nested(nn.Module):\n"
        "    def forward(self, x):\n"
        "        return {'a': x + 1, 'b': [x + 2, (x + 3, 'text')]}\n"
        "def nested(): return Nested()\n"
        "def nested_inputs(n): return torch.zeros(n, 1)\n"
    )
    _, outputs = check_model(model(tmp_path, code, name="nested"))
    assert [each.item() for each in outputs] == [1.0, 2.0, 3.0]


def test_floats_take_the_models_dtype_and_come_back_as_float32() -> None:
    linear = nn.Linear(3, 2).to(torch.bfloat16)
    inputs = ExampleInputs((torch.ones(1, 3),))
    (output,) = forward(linear, inputs, dtype=torch.bfloat16)
    assert output.dtype is torch.float32
    assert tuple(output.shape) == (1, 2)


def test_integers_keep_their_dtype_whatever_the_models_is() -> None:
    embedding = nn.Embedding(4, 2).to(torch.bfloat16)
    inputs = ExampleInputs((torch.tensor([[1, 3]]),))
    (output,) = forward(embedding, inputs, dtype=torch.bfloat16)
    assert tuple(output.shape) == (1, 2, 2)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def make(): raise RuntimeError('no weights\\nhere')", "RuntimeError: no weights"),
        ("def make(size): ...", "TypeError: make() missing 1 required positional argument: 'size'"),
    ],
)
def test_a_factory_that_raises_is_one_line(code: str, expected: str, tmp_path: Path) -> None:
    message = complaint(model(tmp_path, code))
    assert message == f"{tmp_path}/tiny.py:make() failed: {expected}"


def test_a_factory_must_be_a_function(tmp_path: Path) -> None:
    message = complaint(model(tmp_path, "make = 5"))
    assert message == f"{tmp_path}/tiny.py:make is no function; give a factory of nn.Module"


def test_a_factory_must_return_a_module(tmp_path: Path) -> None:
    message = complaint(model(tmp_path, "def make(): return [1]"))
    assert message == f"{tmp_path}/tiny.py:make() returned list; return an nn.Module"


def test_a_model_without_example_input_says_both_ways_to_give_one(tmp_path: Path) -> None:
    message = complaint(model(tmp_path, ""))
    assert "define make_inputs(batch_size) beside it" in message
    assert "--input-shape and --input-dtype" in message


def test_inputs_that_cannot_be_made_are_one_line(tmp_path: Path) -> None:
    message = complaint(model(tmp_path, "def make_inputs(n): raise KeyError('vocabulary')"))
    assert message == f"{tmp_path}/tiny.py:make_inputs(2) failed: KeyError: 'vocabulary'"


@pytest.mark.parametrize(
    ("made", "got"),
    [
        ("[1, 2]", "int"),
        ("torch.ones(7, 3)", "float32[7, 3]"),
        ("torch.tensor(1)", "int64[]"),
        ("{'x': 'text'}", "str"),
    ],
)
def test_inputs_must_be_tensors_of_the_batch(made: str, got: str, tmp_path: Path) -> None:
    message = complaint(model(tmp_path, f"def make_inputs(n): return {made}\n"))
    assert message.endswith(
        f"make_inputs(2) must return tensors whose first dimension is the batch, got {got}"
    )


def test_inputs_without_a_numpy_form_are_refused(tmp_path: Path) -> None:
    code = "def make_inputs(n): return torch.ones(n, 3, dtype=torch.bfloat16)\n"
    message = complaint(model(tmp_path, code))
    assert message.endswith(
        "make_inputs(2) returned bfloat16[2, 3], which NumPy does not have; return float32, "
        "which becomes the model's dtype"
    )


def test_a_shape_of_a_dtype_without_a_numpy_form_is_refused(tmp_path: Path) -> None:
    message = complaint(model(tmp_path, "", input_shape=(3,), input_dtype="bfloat16"))
    assert message == (
        "input_dtype 'bfloat16' has no NumPy form; try float32, which becomes the model's dtype"
    )


def test_inputs_that_take_gradients_are_fine(tmp_path: Path) -> None:
    code = "def make_inputs(n): return torch.ones(n, 3, requires_grad=True)\n"
    inputs, _ = check_model(model(tmp_path, code))
    assert inputs.samples()[0][0].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("name", ["float33", "nn"])
def test_an_unknown_dtype_names_some_that_are_known(name: str, tmp_path: Path) -> None:
    message = complaint(model(tmp_path, "", input_shape=(3,), input_dtype=name))
    assert message == f"input_dtype {name!r} is no torch dtype; try float32 or int64"


def test_a_forward_that_fails_says_on_what(tmp_path: Path) -> None:
    code = "def make(): return nn.Linear(4, 2)\n" + ONE_INPUT
    message = complaint(model(tmp_path, code))
    assert message.startswith("make fails on its example input (float32[2, 3]): RuntimeError: ")


def test_a_model_that_fails_on_one_sample_only_is_found(tmp_path: Path) -> None:
    code = (
        "class Pairs(nn.Module):\n"
        "    def forward(self, x): return x.reshape(len(x) // 2 * 2, 3)\n"
        "def make(): return Pairs()\n" + ONE_INPUT
    )
    assert complaint(model(tmp_path, code)).startswith("make fails on its example input (float32[1")


@pytest.mark.parametrize(
    ("output", "got"),
    [("x.sum()", "float32[]"), ("x.sum(dim=0)", "float32[3]")],
)
def test_an_output_without_the_batch_is_refused(output: str, got: str, tmp_path: Path) -> None:
    code = (
        "class Whole(nn.Module):\n"
        f"    def forward(self, x): return {output}\n"
        "def make(): return Whole()\n" + ONE_INPUT
    )
    assert complaint(model(tmp_path, code)) == (
        f"make must return tensors whose first dimension is the batch, got {got} for a batch of 2"
    )


def test_an_output_without_tensors_is_refused(tmp_path: Path) -> None:
    code = (
        "class Text(nn.Module):\n"
        "    def forward(self, x): return 'text'\n"
        "def make(): return Text()\n" + ONE_INPUT
    )
    assert complaint(model(tmp_path, code)) == "make returns no tensor"


def test_relative_error_is_the_largest_difference_over_the_largest_value() -> None:
    reference = [torch.tensor([[1.0, -4.0]]), torch.tensor([[10.0]])]
    outputs = [torch.tensor([[1.2, -3.9]]), torch.tensor([[10.1]])]
    # 0.2 of 4 is more than 0.1 of 10.
    assert relative_error(outputs, reference) == pytest.approx(0.05)


def test_relative_error_of_equal_outputs_is_zero() -> None:
    reference = [torch.tensor([1.0, 2.0]), torch.zeros(2), torch.tensor([3])]
    assert relative_error(reference, reference) == 0.0


def test_relative_error_counts_every_output_in_full() -> None:
    with pytest.raises(ValueError, match="zip"):
        relative_error([torch.ones(1)], [torch.ones(1), torch.ones(1)])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_finite_in_float32_only_is_an_infinite_error(value: float) -> None:
    assert relative_error([torch.tensor([1.0, value])], [torch.tensor([1.0, 1.0])]) == math.inf


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_in_float32_either_is_no_error(value: float) -> None:
    reference = torch.tensor([2.0, value])
    # 0.1 / 2: the value that is not finite counts neither as difference nor as scale.
    assert relative_error([torch.tensor([2.1, value])], [reference]) == pytest.approx(0.05)


def test_infinities_of_opposite_sign_are_an_infinite_error() -> None:
    assert relative_error([torch.tensor([math.inf])], [torch.tensor([-math.inf])]) == math.inf


def test_an_empty_output_is_no_error() -> None:
    assert relative_error([torch.empty(1, 0)], [torch.empty(1, 0)]) == 0.0


def test_samples_are_stacked_back_into_the_same_batch() -> None:
    inputs = ExampleInputs((torch.arange(6).reshape(2, 3), torch.ones(2, 1)), ("ids", "mask"))
    again = stack(inputs.samples(), inputs.names)
    assert again.names == inputs.names
    assert all(map(torch.equal, again.tensors, inputs.tensors))


@pytest.mark.parametrize(
    ("names", "keys"), [(("ids", "mask"), ["ids", "mask"]), ((), ["input_0", "input_1"])]
)
def test_an_example_request_holds_one_sample_by_name(
    names: tuple[str, ...], keys: list[str], tmp_path: Path
) -> None:
    inputs = ExampleInputs((torch.arange(6).reshape(2, 3), torch.ones(2, 1)), names)
    write_example_request(tmp_path / "request.npz", inputs)
    with np.load(tmp_path / "request.npz") as archive:
        assert list(archive) == keys
        assert archive[keys[0]].tolist() == [0, 1, 2]
        assert archive[keys[1]].tolist() == [1.0]
