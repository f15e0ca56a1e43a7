import math

import pytest

from falcon_ray.knowledge.device import Device, DeviceKind
from falcon_ray.knowledge.operators.operator import Decomposition, Dims, Family, Operator
from falcon_ray.knowledge.operators.signatures import flops, minimal_bytes
from falcon_ray.profiling.shape_design import (
    FAMILIES,
    DesignSize,
    design,
    reference_signatures,
)

DEVICE = Device(
    name="cpu",
    kind=DeviceKind.CPU,
    peak_flops_per_s={"float32": 1e11},
    bandwidth_bytes_per_s=1e10,
    memory_bytes=2e10,
    units=2,
    source="",
)
SIZE = DesignSize(linear=40, other=20, largest_batch=8)
SHAPES: tuple[tuple[str, Family, Dims], ...] = (  # at batch size 1
    ("linear", Family.LINEAR, (128, 768, 3072)),
    ("conv2d", Family.CONV_3X3, (1, 64, 128, 1, 3, 3, 56, 56, 2)),
    ("conv2d", Family.CONV_DEPTHWISE, (1, 96, 96, 96, 5, 5, 28, 28, 1)),
    ("scaled_dot_product_attention", Family.ATTENTION, (1, 12, 128, 128, 64)),
    ("lstm", Family.RECURRENT, (1, 64, 512, 512, 2, 1, 4)),
    ("relu", Family.ACTIVATION, (200704, 200704)),
    ("add", Family.ELEMENTWISE, (196608, 98304)),
    ("layer_norm", Family.NORM, (128, 768)),
    ("max_pool2d", Family.POOL, (802816, 200704)),
)


def _model(*shapes: tuple[str, Family, Dims]) -> Decomposition:
    def at(batch_size: int) -> tuple[Operator, ...]:
        operators: list[Operator] = []
        for name, family, dims in shapes:
            doubled = 2 if N_SCALED.get(family) else 1
            scaled = tuple(n * batch_size if i < doubled else n for i, n in enumerate(dims))
            operators.append(
                Operator(
                    name=name,
                    family=family,
                    dims=scaled,
                    flops=flops(family, name, scaled),
                    bytes_read=minimal_bytes(family, name, scaled, "float32"),
                )
            )
        return tuple(operators)

    return Decomposition(
        model="m",
        batch_sizes=(2, 4),
        low=at(2),
        high=at(4),
        parameter_bytes=0.0,
        activation_bytes=(0.0, 0.0),
    )


N_SCALED = {Family.ACTIVATION: True, Family.ELEMENTWISE: True, Family.POOL: True}
MODEL = _model(*SHAPES)


@pytest.fixture(scope="module")
def shapes() -> tuple[Operator, ...]:
    return design([MODEL], device=DEVICE, size=SIZE)


def test_every_family_gets_its_shapes_also_those_the_models_lack(
    shapes: tuple[Operator, ...],
) -> None:
    counts = {family: sum(each.family is family for each in shapes) for family in FAMILIES}
    assert counts[Family.LINEAR] == 40
    # No model here has these, and nothing elsewhere stands for them.
    assert counts[Family.CONV_1X1] == counts[Family.EMBEDDING] == 0
    assert counts[Family.SOFTMAX] == counts[Family.CONV_GROUPED] == counts[Family.BMM] == 20
    assert counts[Family.ATTENTION] >= 15


def test_no_shape_is_one_of_a_reference_model(shapes: tuple[Operator, ...]) -> None:
    known = reference_signatures([MODEL], SIZE.largest_batch)
    assert ("linear", (8 * 128, 768, 3072)) in known
    assert not known & {(each.name, each.dims) for each in shapes}


def test_no_shape_comes_twice(shapes: tuple[Operator, ...]) -> None:
    assert len({(each.name, each.dims) for each in shapes}) == len(shapes)


def test_shapes_lie_near_those_of_the_models(shapes: tuple[Operator, ...]) -> None:
    linear = [each.dims for each in shapes if each.family is Family.LINEAR]
    for rows, outputs, inputs in linear:
        assert 0.69 * 128 <= rows <= 1.31 * 8 * 128  # batch sizes 1 to 8, plus or minus 30 %
        assert 0.69 * 768 <= outputs <= 1.31 * 768
        assert 0.69 * 3072 <= inputs <= 1.31 * 3072
        assert outputs % 8 == inputs % 8 == 0


def test_depthwise_convolutions_stay_depthwise_and_keep_their_kernel(
    shapes: tuple[Operator, ...],
) -> None:
    depthwise = [each.dims for each in shapes if each.family is Family.CONV_DEPTHWISE]
    assert depthwise
    for dims in depthwise:
        assert dims[1] == dims[2] == dims[3]
        assert dims[4:6] == (5, 5)
        assert dims[8] == 1


def test_families_come_in_turn(shapes: tuple[Operator, ...]) -> None:
    first = [each.family for each in shapes[:14]]
    assert len(set(first)) == len(first)


def test_equal_seeds_give_equal_designs(shapes: tuple[Operator, ...]) -> None:
    assert design([MODEL], device=DEVICE, size=SIZE) == shapes
    assert design([MODEL], device=DEVICE, size=SIZE, seed=1) != shapes


def test_costly_shapes_are_left_out() -> None:
    cheap = DesignSize(linear=40, other=20, largest_batch=8, max_call_s=0.02)
    found = design([MODEL], device=DEVICE, size=cheap, families=[Family.LINEAR])
    assert found
    # 2 m n k FLOPs at a quarter of 1e11/s within 20 ms: 0.5 GFLOP; whole batches have up to 5.
    assert max(2.0 * math.prod(each.dims) for each in found) <= 0.25 * 1e11 * 0.02


def test_only_families_asked_for_are_designed() -> None:
    found = design([MODEL], device=DEVICE, size=SIZE, families=[Family.NORM, Family.SOFTMAX])
    assert {each.family for each in found} == {Family.NORM, Family.SOFTMAX}
