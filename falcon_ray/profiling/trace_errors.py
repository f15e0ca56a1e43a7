"""Why a model cannot be traced without running it, in one line that names the line of its code.

It knows the exceptions that torch raises where a forward pass needs values.
"""

import traceback
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
    UnsupportedOperatorException,
)

from falcon_ray.errors import InputError

_TORCH_DIRECTORY = Path(torch.__file__).resolve().parent
_OWN_DIRECTORY = Path(__file__).resolve().parent
_NEED_VALUES = (DataDependentOutputException, DynamicOutputShapeException)
_VALUE_HINTS = (  # torch raises plain RuntimeErrors here
    "data pointer",
    ".numpy() is not supported",
    "tolist() is not supported",
    "Cannot copy out of meta tensor",
    "cannot be called on meta tensors",
)
_NO_KERNEL_HINTS = ("'Meta'", "no fake impl", "meta kernel", "fake tensor")


def explain(error: Exception, *, model: str, inputs: Sequence[Tensor]) -> InputError:
    """The error to raise for a forward pass that failed while it was traced.

    Args:
        error: What it raised.
        model: The model's name, as `falcon-ray profile` takes it.
        inputs: What it was given.
    """
    where = _where(error)
    at = f" at {where}" if where else ""
    message = one_line(error)
    if isinstance(error, _NEED_VALUES) or any(hint in message for hint in _VALUE_HINTS):
        return InputError(
            f"{model} decides by the values of its tensors{at}, so its operators cannot be "
            "listed without running it; make that line independent of values, or falcon-ray "
            f"profile --model {model} measures it by running"
        )
    if isinstance(error, UnsupportedOperatorException | UnsupportedFakeTensorException) or (
        isinstance(error, NotImplementedError) and any(hint in message for hint in _NO_KERNEL_HINTS)
    ):
        return InputError(
            f"{model} calls an operator{at} that torch cannot trace without running it "
            f"({message}); falcon-ray profile --model {model} measures it by running"
        )
    return InputError(
        f"{model} fails on its example input ({', '.join(map(_describe, inputs))}){at}: {message}; "
        f"correct either, or, if it runs for real, falcon-ray profile --model {model} measures it"
    )


def one_line(error: BaseException) -> str:
    """An exception as its type and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _where(error: Exception) -> str:
    """File and line of the innermost frame that is neither torch's nor of this tracer."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename).resolve()
        if _TORCH_DIRECTORY not in path.parents and path.parent != _OWN_DIRECTORY:
            return f"{frame.filename}:{frame.lineno}"
    return ""


def _describe(tensor: Tensor) -> str:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return f"{dtype}[{', '.join(str(size) for size in tensor.shape)}]"
