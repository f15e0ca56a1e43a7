"""A user's PyTorch model: built from its factory, fed with samples, checked before anything runs.

A sample is what one request carries: one array per model input, without the batch dimension.
This module knows nothing of Ray; the same code runs in a replica and in the search's driver.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from falcon_ray.errors import InputError
from falcon_ray.runtime.model_reference import ModelReference, Sample, one_line
from falcon_ray.runtime.references import load_optional, load_reference

TORCH_DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True, slots=True)
class ExampleInputs:
    """Example inputs for one batch.

    Attributes:
        tensors: One tensor per input, the first dimension is the batch.
        names: Keyword names of the inputs, or empty where they are positional.
    """

    tensors: tuple[Tensor, ...]
    names: tuple[str, ...] = ()

    def samples(self) -> list[Sample]:
        """The batch as one tuple of arrays per request."""
        arrays = [tensor.numpy() for tensor in self.tensors]
        return [tuple(array[i].copy() for array in arrays) for i in range(len(arrays[0]))]


def build_model(reference: ModelReference) -> nn.Module:
    """Run the factory under the seed and return the model in evaluation mode.

    Raises:
        InputError: The reference does not resolve, the factory raises, or it returns no module.
    """
    factory = load_reference(reference.factory)
    if not callable(factory):
        raise InputError(f"{reference.factory.spec} is no function; give a factory of nn.Module")
    torch.manual_seed(reference.seed)
    try:
        model = factory()
    except Exception as error:  # the user's factory may raise anything
        raise InputError(f"{reference.factory.spec}() failed: {one_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise InputError(
            f"{reference.factory.spec}() returned {type(model).__name__}; return an nn.Module"
        )
    return model.eval()


def example_inputs(reference: ModelReference, batch_size: int) -> ExampleInputs:
    """Example inputs by the factory's sibling `<factory>_inputs(batch_size)`, or by shape.

    Raises:
        InputError: Neither is there, or the sibling raises or returns something else.
    """
    sibling = reference.factory.sibling("_inputs")
    if reference.input_shape is not None:
        return ExampleInputs((_random_tensor(reference, batch_size),))
    make: Callable[[int], object] | None = load_optional(sibling)
    if make is None:
        raise InputError(
            f"no example input for {reference.factory.spec}: define {sibling.name}(batch_size) "
            "beside it, or give --input-shape and --input-dtype"
        )
    try:
        made = make(batch_size)
    except Exception as error:  # the user's function may raise anything
        raise InputError(f"{sibling.spec}({batch_size}) failed: {one_line(error)}") from error
    names: tuple[str, ...] = ()
    if isinstance(made, Mapping):
        names, made = tuple(str(key) for key in made), tuple(made.values())
    tensors: list[Tensor] = []
    for tensor in made if isinstance(made, (tuple, list)) else (made,):
        if not isinstance(tensor, Tensor) or tensor.ndim == 0 or len(tensor) != batch_size:
            raise InputError(
                f"{sibling.spec}({batch_size}) must return tensors whose first dimension is the "
                f"batch, got {_describe(tensor)}"
            )
        if tensor.dtype is torch.bfloat16:
            raise InputError(
                f"{sibling.spec}({batch_size}) returned {_describe(tensor)}, which NumPy does not "
                "have; return float32, which becomes the model's dtype"
            )
        tensors.append(tensor.detach().cpu())
    return ExampleInputs(tuple(tensors), names)


def forward(
    model: nn.Module, inputs: ExampleInputs, *, dtype: torch.dtype, device: str = "cpu"
) -> tuple[Tensor, ...]:
    """One forward pass in inference mode; floating inputs take the model's dtype.

    Returns:
        Every tensor of the output in order, the first dimension is the batch, floats in float32.
    """
    moved = [
        tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)
        for tensor in inputs.tensors
    ]
    with torch.inference_mode():
        if inputs.names:
            output = model(**dict(zip(inputs.names, moved, strict=True)))
        else:
            output = model(*moved)
    return tuple(
        each.to(device="cpu", dtype=torch.float32 if each.is_floating_point() else None)
        for each in _tensors(output)
    )


def stack(samples: Sequence[Sample], names: tuple[str, ...]) -> ExampleInputs:
    """A batch from samples of equal shapes."""
    columns = zip(*samples, strict=True)
    return ExampleInputs(tuple(torch.from_numpy(np.stack(column)) for column in columns), names)


def check_model(reference: ModelReference) -> tuple[ExampleInputs, tuple[Tensor, ...]]:
    """Build the model and run its example input once, in float32 on the CPU.

    Returns:
        One example request as a batch of one, and the model's output for it.

    Raises:
        InputError: Anything about the model or its example input does not work.
    """
    model = build_model(reference)
    for batch_size in (2, 1):
        inputs = example_inputs(reference, batch_size)
        try:
            outputs = forward(model, inputs, dtype=torch.float32)
        except Exception as error:  # the user's model may raise anything
            raise InputError(
                f"{reference.factory.name} fails on its example input "
                f"({', '.join(_describe(t) for t in inputs.tensors)}): {one_line(error)}"
            ) from error
        if not outputs:
            raise InputError(f"{reference.factory.name} returns no tensor")
        for output in outputs:
            if output.ndim == 0 or len(output) != batch_size:
                raise InputError(
                    f"{reference.factory.name} must return tensors whose first dimension is the "
                    f"batch, got {_describe(output)} for a batch of {batch_size}"
                )
    return inputs, outputs


def relative_error(outputs: Sequence[Tensor], reference: Sequence[Tensor]) -> float:
    """Largest absolute difference over the largest absolute reference value, over all outputs.

    A value that is not finite counts as infinite error, unless the reference has the same there
    (masks are often minus infinity).
    """
    worst = 0.0
    for output, expected in zip(outputs, reference, strict=True):
        got, wanted = output.double(), expected.double()
        differs = (got != wanted) & ~(got.isnan() & wanted.isnan())
        if not differs.any():
            continue
        difference = (got - wanted)[differs].abs().max().item()
        scale = torch.where(wanted.isfinite(), wanted.abs(), 0.0).max().item()
        error = difference / max(scale, 1e-30)
        worst = max(worst, error if np.isfinite(error) else float("inf"))
    return worst


def write_example_request(path: Path, inputs: ExampleInputs) -> None:
    """Write the first sample of a batch as `.npz`, the form that a deployed app accepts."""
    names = inputs.names or tuple(f"input_{i}" for i in range(len(inputs.tensors)))
    np.savez(path, **dict(zip(names, inputs.samples()[0], strict=True)))  # pyright: ignore[reportArgumentType]


def _random_tensor(reference: ModelReference, batch_size: int) -> Tensor:
    shape = (batch_size, *(reference.input_shape or ()))
    generator = torch.Generator().manual_seed(reference.seed)
    dtype = getattr(torch, reference.input_dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise InputError(
            f"input_dtype {reference.input_dtype!r} is no torch dtype; try float32 or int64"
        )
    if dtype is torch.bfloat16:
        raise InputError(
            f"input_dtype {reference.input_dtype!r} has no NumPy form; try float32, which becomes "
            "the model's dtype"
        )
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.randint(0, 2, shape, generator=generator).to(dtype)


def _tensors(output: object) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Mapping):
        return [tensor for value in output.values() for tensor in _tensors(value)]
    if isinstance(output, (tuple, list)):
        return [tensor for value in output for tensor in _tensors(value)]
    return []


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        return f"{dtype}[{', '.join(str(size) for size in value.shape)}]"
    return type(value).__name__
