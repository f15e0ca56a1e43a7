"""Decomposes a model into its operators without weights, without a GPU and without running it.

The model is built on the meta device, its tensors become fake ones that have a shape and a dtype
but no data, and a dispatch mode writes down every operator that one forward pass calls. In
inference mode composite operators such as `linear`, `lstm` or `scaled_dot_product_attention` stay
whole, so names, shapes and counts equal the top-level `aten::` events that
`torch.profiler.profile(record_shapes=True)` shows of a real run.

The module knows no time and no device. It cannot follow decisions that depend on values.
"""

import contextlib
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from falcon_ray.errors import InputError
from falcon_ray.knowledge.operators.operator import Decomposition, Family, Operator
from falcon_ray.profiling.alive_memory import AliveMemory
from falcon_ray.profiling.fake_model import fake_input, make_fake, parameter_bytes
from falcon_ray.profiling.recorder import Recorder
from falcon_ray.profiling.trace_errors import explain, one_line

Inputs: TypeAlias = Tensor | Sequence[Tensor] | Mapping[str, Tensor]
"""One tensor, positional arguments, or keyword arguments of `forward`."""

CHECKED_BATCH_SIZE = 8
"""Where it is checked that everything is affine."""
_AFFINE_TOLERANCE = 0.02
TRACED_BATCH_SIZES = (2, 4)
"""Two suffice, everything being affine; 1 is avoided, where dimensions broadcast."""

_FAKE_TENSOR_LOGGER = logging.getLogger("torch._subclasses.fake_tensor")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One forward pass at one batch size.

    Attributes:
        operators: In the order of the calls, each with count 1.
        alive_bytes: What was alive beside parameters and buffers, inputs included, whenever it
            grew; an operator's workspace included.
    """

    operators: tuple[Operator, ...]
    alive_bytes: tuple[float, ...]

    @property
    def activation_bytes(self) -> float:
        """The peak of what was alive."""
        return max(self.alive_bytes)


class TracedModel:
    """A model ready to be traced at any batch size, by default without data.

    Args:
        build: Makes the model; run on the meta device, or once for real where that fails.
        model: Its name, for people.
        by_running: Build it for real and run it on the CPU, for models that decide by values.

    Raises:
        InputError: `build` fails, or returns no module.
    """

    def __init__(
        self, build: Callable[[], nn.Module], *, model: str, by_running: bool = False
    ) -> None:
        self._name = model
        self._module = _built(build, model, on_meta=not by_running)
        self.parameter_bytes = parameter_bytes(self._module)
        self._fake_mode: FakeTensorMode | None = None
        if not by_running:
            self._fake_mode = FakeTensorMode(allow_non_fake_inputs=True)
            make_fake(self._module, self._fake_mode)

    def trace(self, inputs: Inputs) -> Trace:
        """Write down one forward pass.

        Args:
            inputs: An example; only shapes, strides and dtypes count.

        Raises:
            InputError: The forward pass fails, or needs values.
        """
        given = dict(inputs) if isinstance(inputs, Mapping) else _positional(inputs)
        mode = self._fake_mode
        if mode is not None:
            given = {name: fake_input(each, mode) for name, each in given.items()}
        placed = [each for name, each in given.items() if isinstance(name, int)]
        named = {name: each for name, each in given.items() if isinstance(name, str)}
        memory = AliveMemory(self._module)
        for each in given.values():
            memory.hold(each)
        recorder = Recorder(memory, mode)
        try:
            with (
                torch.inference_mode(),
                mode or contextlib.nullcontext(),
                _as_known_operators(),
                recorder,
            ):
                output = self._module(*placed, **named)
        except Exception as error:  # the user's model may raise anything
            raise explain(error, model=self._name, inputs=tuple(given.values())) from error
        del output  # it was alive up to here
        return Trace(operators=tuple(recorder.operators), alive_bytes=tuple(memory.levels))


def trace(
    build: Callable[[], nn.Module],
    inputs: Callable[[int], Inputs],
    *,
    model: str,
    by_running: bool = False,
) -> Decomposition:
    """Decompose a model into its operators for every batch size.

    Args:
        build: Makes the model; its seed is irrelevant.
        inputs: Example inputs for a batch size.
        model: Its name, for people.
        by_running: Run it twice on the CPU, for models that decide by values; what they decide on
            the example inputs is taken for what they always do.

    Raises:
        InputError: The model cannot be built, its forward pass fails or depends on values, or it
            calls other operators at another batch size.
    """
    traced = TracedModel(build, model=model, by_running=by_running)
    low, high = (traced.trace(_example(inputs, size, model)) for size in TRACED_BATCH_SIZES)
    if _names(low) != _names(high):  # a cache that the first pass filled, perhaps
        low = traced.trace(_example(inputs, TRACED_BATCH_SIZES[0], model))
    found = decompose(low, high, model=model, parameter_bytes=traced.parameter_bytes)
    if all(each.family is Family.VIEW for each in found.low):
        raise InputError(f"{model} calls no operator that does anything; there is nothing to time")
    _check_affine(found, traced.trace(_example(inputs, CHECKED_BATCH_SIZE, model)))
    return found


def _check_affine(found: Decomposition, checked: Trace) -> None:
    """Make sure that two batch sizes say what a third one does.

    Raises:
        InputError: They do not, as where samples are compared with each other.
    """
    said = found.at(CHECKED_BATCH_SIZE)
    for what in ("flops", "bytes_moved"):
        expected = sum(each.count * getattr(each, what) for each in said)
        actual = sum(getattr(each, what) for each in checked.operators)
        if abs(expected - actual) > _AFFINE_TOLERANCE * max(actual, 1.0):
            raise InputError(
                f"the work of {found.model} does not grow in proportion to the batch: {what} at "
                f"batch {CHECKED_BATCH_SIZE} are {actual:.3g}, not {expected:.3g}; let each sample "
                "be computed by itself, or measure the model by falcon-ray profile --model "
                f"{found.model}"
            )


def decompose(low: Trace, high: Trace, *, model: str, parameter_bytes: float) -> Decomposition:
    """Merge equal calls of two traces, at `TRACED_BATCH_SIZES`; the order is of the first calls.

    Calls are equal if they are so in both traces: one trace alone may equal by accident, where
    the batch size equals another dimension.

    Raises:
        InputError: The traces do not hold the same operators.
    """
    if _names(low) != _names(high):
        raise InputError(
            f"{model} calls different operators at batch {TRACED_BATCH_SIZES[0]} and "
            f"{TRACED_BATCH_SIZES[1]} ({_first_difference(low, high)}), so nothing can be said of "
            "other batch sizes; if it loops over the batch, batch that loop"
        )
    merged = Counter(zip(low.operators, high.operators, strict=True))
    return Decomposition(
        model=model,
        batch_sizes=TRACED_BATCH_SIZES,
        low=tuple(replace(pair[0], count=count) for pair, count in merged.items()),
        high=tuple(replace(pair[1], count=count) for pair, count in merged.items()),
        parameter_bytes=parameter_bytes,
        activation_bytes=_peaks(low, high),
        uncovered=tuple(
            dict.fromkeys(each.name for each in low.operators if each.family is Family.OTHER)
        ),
    )


def _peaks(low: Trace, high: Trace) -> tuple[float, float]:
    """Peak memory at the smaller batch size, and a bound of it at the larger one.

    The peak is the largest of many affine functions, one for each moment of the forward pass. The
    steepest of them, through the peak at the smaller batch size, is never below it at larger ones;
    nearly always one moment is the peak at all, and the bound is exact.
    """
    peak = low.activation_bytes
    if len(low.alive_bytes) != len(high.alive_bytes):
        return peak, high.activation_bytes
    steepest = max(b - a for a, b in zip(low.alive_bytes, high.alive_bytes, strict=True))
    return peak, peak + steepest


def _names(trace: Trace) -> list[tuple[str, Family]]:
    return [(each.name, each.family) for each in trace.operators]


def _first_difference(low: Trace, high: Trace) -> str:
    for position, pair in enumerate(zip(low.operators, high.operators, strict=False), start=1):
        names = [f"{each.name} ({each.family.value})" for each in pair]
        if names[0] != names[1]:
            return f"call {position} is {names[0]} or {names[1]}"
    return f"{len(low.operators)} or {len(high.operators)} calls"


def _positional(inputs: Tensor | Sequence[Tensor]) -> dict[int, Tensor]:
    return dict(enumerate((inputs,) if isinstance(inputs, Tensor) else inputs))


def _example(inputs: Callable[[int], Inputs], batch_size: int, model: str) -> Inputs:
    try:
        return inputs(batch_size)
    except InputError:
        raise
    except Exception as error:  # the user's function may raise anything
        raise InputError(
            f"making example inputs of {model} for a batch of {batch_size} failed: "
            f"{one_line(error)}"
        ) from error


def _built(build: Callable[[], nn.Module], model: str, *, on_meta: bool) -> nn.Module:
    module = _built_on_meta(build) if on_meta else None
    if module is None:
        try:
            module = build()
        except InputError:
            raise
        except Exception as error:  # the user's factory may raise anything
            raise InputError(f"building {model} failed: {one_line(error)}") from error
    if not isinstance(module, nn.Module):
        raise InputError(
            f"building {model} gave {type(module).__name__}; its factory must return an nn.Module"
        )
    return module.eval()


def _built_on_meta(build: Callable[[], nn.Module]) -> nn.Module | None:
    """The model without data, or None where its factory needs values."""
    try:
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")  # of weights that a meta tensor cannot take
            return build()
    except Exception:  # noqa: BLE001 - anything may be raised; built for real, it says what it is
        return None


@contextlib.contextmanager
def _as_known_operators() -> Iterator[None]:
    """Keep attention modules and encoder layers in operators that have a family, and torch quiet.

    Their fast path is one fused operator, of which nothing but bytes could be said. And torch
    would log the traceback of an error that is about to be explained in one line.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    level = _FAKE_TENSOR_LOGGER.level
    torch.backends.mha.set_fastpath_enabled(False)
    _FAKE_TENSOR_LOGGER.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
        _FAKE_TENSOR_LOGGER.setLevel(level)
