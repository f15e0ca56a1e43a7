"""Turns a module's tensors into fake ones: shapes, strides and dtypes on the CPU, without data.

Meta tensors are not enough: they would stay on the device "meta", where a model that compares
devices goes other ways than when it serves. The module knows no operators.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode


def make_fake(module: nn.Module, mode: FakeTensorMode) -> None:
    """Replace all tensors of a module in place, wherever its attributes hold them.

    What was one tensor stays one: tied weights stay tied.
    """
    memo: dict[int, Tensor] = {}
    originals: list[Tensor] = []  # alive until the end, so that no id is used twice

    def swapped(value: object) -> object:
        if isinstance(value, Tensor):
            if id(value) not in memo:
                originals.append(value)
                memo[id(value)] = _fake(value, mode)
            return memo[id(value)]
        if type(value) in {list, tuple}:
            assert isinstance(value, (list, tuple))
            return type(value)(swapped(each) for each in value)
        if isinstance(value, dict):
            for key, each in value.items():
                value[key] = swapped(each)
        return value

    for each in module.modules():
        for name, value in list(vars(each).items()):
            if name != "_modules":
                vars(each)[name] = swapped(value)


def fake_input(tensor: Tensor, mode: FakeTensorMode) -> Tensor:
    """A fake tensor with the shape, strides and dtype of an input."""
    return _fake(tensor.detach(), mode)


def as_fake(value: object, mode: FakeTensorMode) -> object:
    """An operator's argument, real tensors in it replaced by fake ones, the same for the same.

    A real tensor comes from outside the module: a global, or a closure. Left to torch, an operator
    in place would return another tensor than it was given.
    """
    if isinstance(value, Tensor):
        return value if isinstance(value, FakeTensor) else mode.from_tensor(value)
    if isinstance(value, (list, tuple)):
        return type(value)(as_fake(each, mode) for each in value)
    return value


def tensors_of(module: nn.Module) -> Iterator[Tensor]:
    """Every tensor that a module holds as an attribute, in lists and dictionaries too."""

    def within(value: object) -> Iterator[Tensor]:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            for each in value:
                yield from within(each)
        elif isinstance(value, dict):
            for each in value.values():
                yield from within(each)

    for each in module.modules():
        for name, value in vars(each).items():
            if name != "_modules":
                yield from within(value)


def parameter_bytes(module: nn.Module) -> float:
    """Bytes of all parameters and buffers, each once."""
    tensors = {id(each): each for each in (*module.parameters(), *module.buffers())}
    return float(sum(each.numel() * each.element_size() for each in tensors.values()))


def _fake(tensor: Tensor, mode: FakeTensorMode) -> Tensor:
    with mode:
        fake = torch.empty_strided(
            tuple(tensor.shape), tensor.stride(), dtype=tensor.dtype, device="cpu"
        )
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(fake, requires_grad=False)
    return fake
