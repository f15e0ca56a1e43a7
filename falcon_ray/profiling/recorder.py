"""Writes down the operators that a forward pass calls, as torch dispatches them.

It works on fake tensors and on real ones. It knows neither models nor batch sizes.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from falcon_ray.knowledge.operators.calls import Argument, Call, TensorFacts, traffic
from falcon_ray.knowledge.operators.operator import Operator
from falcon_ray.knowledge.operators.signatures import flops, signature, workspace_bytes
from falcon_ray.profiling.alive_memory import AliveMemory, memory_key
from falcon_ray.profiling.fake_model import as_fake

_OF_REAL_TENSORS = frozenset({"lift", "lift_fresh"})  # torch makes these fake, values kept
_IDLE_UNLESS_TRAINING = frozenset({"dropout", "feature_dropout", "alpha_dropout"})


class Recorder(TorchDispatchMode):
    """Writes down every operator that reaches the dispatcher, and what it holds in memory.

    Args:
        memory: Told of every result and workspace.
        mode: Of the fake tensors; None where the tensors are real.
    """

    def __init__(self, memory: AliveMemory, mode: FakeTensorMode | None) -> None:
        super().__init__()
        self.operators: list[Operator] = []
        self._memory = memory
        self._mode = mode

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - torch's signature
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        del types
        if func.namespace == "prim":  # attributes such as `device`, which compute nothing
            return func(*args, **(kwargs or {}))
        name = _name(func)
        if self._mode is not None and name not in _OF_REAL_TENSORS:
            args = tuple(as_fake(each, self._mode) for each in args)
            kwargs = {key: as_fake(each, self._mode) for key, each in (kwargs or {}).items()}
        arguments, written = _bound(func, args, kwargs or {})
        if arguments.get("train") is False and name in _IDLE_UNLESS_TRAINING:
            result = args[0]  # what torch's fake kernel copies
        else:
            result = func(*args, **(kwargs or {}))
        held = {memory_key(each) for each in _tensors([*args, *(kwargs or {}).values()])}
        fresh = [each for each in _tensors(result) if memory_key(each) not in held]
        call = Call(
            name=name,
            arguments={name: _argument(value) for name, value in arguments.items()},
            results=tuple(_facts(each) for each in fresh),
            written=tuple(_facts(each) for each in _tensors(written)),
        )
        self.operators.append(_operator(call))
        for each in fresh:
            self._memory.hold(each)
        self._memory.touch(workspace_bytes(call))
        return result


def _operator(call: Call) -> Operator:
    family, dims = signature(call)
    read, written = traffic(call)
    return Operator(
        name=call.name,
        family=family,
        dims=dims,
        shapes=tuple(
            value.shape if isinstance(value, TensorFacts) else ()
            for value in call.arguments.values()
        ),
        dtype=_dtype(call),
        flops=flops(family, call.name, dims),
        bytes_read=read,
        bytes_written=written,
    )


def _dtype(call: Call) -> str:
    tensors = [*call.tensors, *call.results]
    floating = [each.dtype for each in tensors if "float" in each.dtype]
    return (floating or [each.dtype for each in tensors] or ["float32"])[0]


def _name(func: Any) -> str:  # noqa: ANN401 - torch's OpOverload
    """Without overload; other namespaces than ATen's stay in front."""
    name = func.name().partition(".")[0]
    return name.removeprefix("aten::")


def _bound(
    func: Any,  # noqa: ANN401 - torch's OpOverload
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> tuple[dict[str, Any], list[Any]]:
    """Arguments by name, defaults filled in; and those that the operator writes to."""
    bound: dict[str, Any] = {}
    written: list[Any] = []
    for position, argument in enumerate(func._schema.arguments):  # noqa: SLF001 - no public way
        if position < len(args):
            value = args[position]
        else:
            value = kwargs.get(argument.name, argument.default_value)
        bound[argument.name] = value
        if argument.alias_info is not None and argument.alias_info.is_write:
            written.append(value)
    return bound, written


def _argument(value: object) -> Argument:
    if isinstance(value, Tensor):
        return _facts(value)
    if isinstance(value, (list, tuple)):
        tensors = tuple(_facts(each) for each in value if isinstance(each, Tensor))
        return tensors or tuple(each for each in value if isinstance(each, int))
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def _facts(tensor: Tensor) -> TensorFacts:
    elements = 1
    if tensor.layout is torch.strided:
        for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
            elements *= size if stride else min(size, 1)
    else:
        elements = tensor.numel()
    return TensorFacts(
        tuple(tensor.shape),
        str(tensor.dtype).removeprefix("torch."),
        tensor.element_size(),
        elements,
    )


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _tensors(each)
