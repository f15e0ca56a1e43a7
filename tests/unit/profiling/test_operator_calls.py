import pytest
import torch
from torch import Tensor, nn

from falcon_ray.knowledge.operators.operator import Dims, Family
from falcon_ray.profiling.benchmark import Call
from falcon_ray.profiling.operands import Operands
from falcon_ray.profiling.operator_calls import NoCallError, operator_calls
from falcon_ray.profiling.trace import TracedModel

CALLS = [
    ("conv2d", Family.CONV_1X1, (2, 64, 128, 1, 1, 1, 14, 14, 1)),
    ("conv2d", Family.CONV_1X1, (2, 64, 128, 1, 1, 1, 7, 7, 2)),
    ("conv2d", Family.CONV_3X3, (2, 16, 24, 1, 3, 3, 28, 28, 2)),
    ("conv2d", Family.CONV_LARGE, (1, 3, 32, 1, 7, 7, 16, 16, 2)),
    ("conv2d", Family.CONV_LARGE, (1, 3, 32, 1, 16, 16, 4, 4, 16)),
    ("conv2d", Family.CONV_DEPTHWISE, (2, 32, 32, 32, 5, 5, 14, 14, 2)),
    ("conv2d", Family.CONV_GROUPED, (2, 32, 64, 4, 3, 3, 14, 14, 1)),
    ("conv1d", Family.CONV_LARGE, (2, 16, 24, 1, 1, 5, 1, 40, 1)),
    ("linear", Family.LINEAR, (6, 32, 48)),
    ("addmm", Family.LINEAR, (6, 32, 48)),
    ("matmul", Family.LINEAR, (6, 32, 48)),
    ("bmm", Family.BMM, (3, 4, 5, 6)),
    ("matmul", Family.BMM, (3, 4, 5, 6)),
    ("baddbmm", Family.BMM, (3, 4, 5, 6)),
    ("scaled_dot_product_attention", Family.ATTENTION, (2, 4, 8, 16, 32)),
    ("lstm", Family.RECURRENT, (2, 5, 12, 16, 2, 2, 4)),
    ("gru", Family.RECURRENT, (2, 5, 12, 16, 1, 1, 3)),
    ("embedding", Family.EMBEDDING, (40, 16)),
    ("embedding_bag", Family.EMBEDDING, (40, 16)),
    ("relu", Family.ACTIVATION, (1000, 1000)),
    ("gelu", Family.ACTIVATION, (1000, 1000)),
    ("hardswish", Family.ACTIVATION, (1000, 1000)),
    ("glu", Family.ACTIVATION, (1000, 500)),
    ("add", Family.ELEMENTWISE, (2000, 1000)),
    ("add", Family.ELEMENTWISE, (1100, 1000)),
    ("mul", Family.ELEMENTWISE, (1010, 1000)),
    ("mul", Family.ELEMENTWISE, (1000, 1000)),
    ("layer_norm", Family.NORM, (8, 48)),
    ("batch_norm", Family.NORM, (64, 49)),
    ("group_norm", Family.NORM, (32, 640)),
    ("softmax", Family.SOFTMAX, (8, 48)),
    ("log_softmax", Family.SOFTMAX, (8, 48)),
    ("max_pool2d", Family.POOL, (64 * 28 * 28, 64 * 14 * 14)),
    ("avg_pool2d", Family.POOL, (64 * 28 * 28, 64 * 14 * 14)),
    ("adaptive_avg_pool2d", Family.POOL, (64 * 49, 64)),
    ("mean", Family.POOL, (64 * 49, 64)),
    ("cat", Family.MOVE, (1000, 1000)),
    ("stack", Family.MOVE, (1000, 1000)),
    ("contiguous", Family.MOVE, (1536, 1536)),
    ("to", Family.MOVE, (1000, 1000)),
    ("index_select", Family.MOVE, (1010, 1000)),
    ("zeros", Family.MOVE, (0, 1000)),
]
RENAMED = {"contiguous": "clone"}
HELPERS = {"arange"}


class _Calling(nn.Module):
    """A model that is one call."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self._call = call

    def forward(self, unused: Tensor) -> object:
        del unused
        return self._call()


@pytest.fixture(scope="module")
def operands() -> Operands:
    return Operands(
        torch.float32, torch.device("cpu"), turns_bytes=2**16, kept_bytes=2**16, pool_bytes=2**22
    )


@pytest.mark.parametrize(("name", "family", "dims"), CALLS)
def test_a_call_has_the_signature_that_it_was_made_from(
    operands: Operands, name: str, family: Family, dims: Dims
) -> None:
    with torch.inference_mode():
        call = operator_calls(name, family, dims, operands)[0]
    model = TracedModel(lambda: _Calling(call), model=name)
    traced = model.trace(torch.zeros(1)).operators
    timed = [
        each
        for each in traced
        if each.family is not Family.VIEW and (each.name == name or each.name not in HELPERS)
    ]
    assert [(each.name, each.family, each.dims) for each in timed] == [
        (RENAMED.get(name, name), family, dims)
    ]


@pytest.mark.parametrize("name", ["relu_", "hardswish_", "silu_", "mul_", "add_"])
def test_work_in_place_does_not_fade_away(name: str) -> None:
    family = Family.ELEMENTWISE if name in {"mul_", "add_"} else Family.ACTIVATION
    dims = (2000, 1000) if name in {"mul_", "add_"} else (1000, 1000)
    kept = Operands(
        torch.float32, torch.device("cpu"), turns_bytes=0, kept_bytes=0, pool_bytes=2**20
    )
    with torch.inference_mode():
        (call,) = operator_calls(name, family, dims, kept)
        for _ in range(299):
            call()
        result = call()
    assert isinstance(result, Tensor)
    # Halved 300 times, 0.05 would be 2e-92, which float32 does not have.
    assert result.abs().max() > 1e-5


def test_weights_take_turns_and_activations_stay() -> None:
    operands = Operands(
        torch.float32, torch.device("cpu"), turns_bytes=2**18, kept_bytes=0, pool_bytes=2**22
    )
    calls = operator_calls("mm", Family.LINEAR, (4, 128, 128), operands)
    # A weight of 128 x 128 float32 is 64 KiB: four of them fill 256 KiB.
    assert len(calls) == 4
    with torch.inference_mode():
        results = [call() for call in calls]
    assert all(isinstance(each, Tensor) for each in results)
    assert len({float(each.sum()) for each in results if isinstance(each, Tensor)}) == 4
    assert len(operator_calls("relu", Family.ACTIVATION, (1000, 1000), operands)) == 1


def test_results_are_kept_until_they_fill_what_was_asked_for() -> None:
    operands = Operands(
        torch.float32, torch.device("cpu"), turns_bytes=0, kept_bytes=40_000, pool_bytes=2**20
    )
    with torch.inference_mode():
        (call,) = operator_calls("relu", Family.ACTIVATION, (1000, 1000), operands)
        kept = [call() for _ in range(3)]
    assert kept == [None, None, None]  # the result is in the keeper's hands


def test_operands_larger_than_the_pool_are_made() -> None:
    operands = Operands(
        torch.float32, torch.device("cpu"), turns_bytes=0, kept_bytes=0, pool_bytes=2**12
    )
    n = 3 * 2**20
    with torch.inference_mode():
        (call,) = operator_calls("relu", Family.ACTIVATION, (n, n), operands)
        result = call()
    assert isinstance(result, Tensor)
    assert result.shape == (n,)


@pytest.mark.parametrize(
    ("name", "family", "dims"),
    [
        ("view", Family.VIEW, (0, 0)),
        ("frobnicate", Family.OTHER, (10, 10)),
        ("frobnicate", Family.SOFTMAX, (10, 10)),
        ("lstm", Family.RECURRENT, (1, 2, 8, 8, 1, 1, 2)),
        ("conv_transpose2d", Family.CONV_3X3, (1, 8, 8, 1, 3, 3, 8, 8, 2)),
        ("where", Family.ELEMENTWISE, (300, 100)),
    ],
)
def test_what_nobody_can_call_is_refused_by_name(
    operands: Operands, name: str, family: Family, dims: Dims
) -> None:
    with pytest.raises(NoCallError):
        operator_calls(name, family, dims, operands)
