import pytest

from falcon_ray.knowledge.operators import names as operator_names
from falcon_ray.knowledge.operators.calls import Argument, Call, TensorFacts, traffic
from falcon_ray.knowledge.operators.contractions import contraction
from falcon_ray.knowledge.operators.operator import Dims, Family
from falcon_ray.knowledge.operators.signatures import (
    flops,
    minimal_bytes,
    signature,
    workspace_bytes,
)


def floats(*shape: int) -> TensorFacts:
    elements = 1
    for size in shape:
        elements *= size
    return TensorFacts(shape, "float32", 4, elements)


def integers(*shape: int) -> TensorFacts:
    return TensorFacts(shape, "int64", 8, floats(*shape).elements)


def call(name: str, *results: TensorFacts, **arguments: Argument) -> Call:
    return Call(name=name, arguments=arguments, results=results)


def convolution(
    source: TensorFacts,
    weight: TensorFacts,
    result: TensorFacts,
    *,
    name: str = "conv2d",
    stride: int = 1,
    groups: int = 1,
) -> Call:
    return call(
        name,
        result,
        input=source,
        weight=weight,
        bias=floats(result.shape[1]),
        stride=(stride,),
        groups=groups,
    )


@pytest.mark.parametrize(
    ("weight", "groups", "family"),
    [
        ((8, 8, 1, 1), 1, Family.CONV_1X1),
        ((8, 8, 3, 3), 1, Family.CONV_3X3),
        ((8, 8, 2, 2), 1, Family.CONV_LARGE),
        ((8, 8, 7, 7), 1, Family.CONV_LARGE),
        ((8, 1, 3, 3), 8, Family.CONV_DEPTHWISE),
        ((8, 4, 3, 3), 2, Family.CONV_GROUPED),
    ],
)
def test_convolutions_differ_by_kernel_and_groups(
    weight: tuple[int, ...], groups: int, family: Family
) -> None:
    made = convolution(floats(2, 8, 9, 9), floats(*weight), floats(2, 8, 9, 9), groups=groups)
    assert signature(made) == (family, (2, 8, 8, groups, weight[2], weight[3], 9, 9, 1))


def test_a_convolution_multiplies_each_output_by_the_kernel_of_its_group() -> None:
    made = convolution(
        floats(2, 8, 10, 10), floats(6, 4, 3, 3), floats(2, 6, 5, 5), stride=2, groups=2
    )
    family, dims = signature(made)
    assert flops(family, "conv2d", dims) == 2 * (2 * 6 * 5 * 5) * (4 * 3 * 3)


def test_a_transposed_convolution_multiplies_each_input_by_the_kernel() -> None:
    made = convolution(
        floats(2, 8, 5, 5),
        floats(8, 3, 2, 2),
        floats(2, 3, 10, 10),
        name="conv_transpose2d",
        stride=2,
    )
    family, dims = signature(made)
    assert dims == (2, 8, 3, 1, 2, 2, 10, 10, 2)
    assert flops(family, "conv_transpose2d", dims) == 2 * (2 * 8 * 5 * 5) * (3 * 2 * 2)


def test_a_1d_convolution_has_height_one() -> None:
    made = convolution(floats(2, 8, 20), floats(4, 8, 3), floats(2, 4, 18), name="conv1d")
    assert signature(made) == (Family.CONV_LARGE, (2, 8, 4, 1, 1, 3, 1, 18, 1))


def test_the_height_of_a_3d_convolution_includes_its_depth() -> None:
    made = convolution(
        floats(2, 8, 4, 5, 6), floats(4, 8, 1, 1, 1), floats(2, 4, 4, 5, 6), name="conv3d"
    )
    family, dims = signature(made)
    assert (family, dims) == (Family.CONV_1X1, (2, 8, 4, 1, 1, 1, 20, 6, 1))
    assert flops(family, "conv3d", dims) == 2 * (2 * 4 * 4 * 5 * 6) * 8


@pytest.mark.parametrize(
    ("left", "right", "result", "expected"),
    [
        ((2, 5, 3), (3, 7), (2, 5, 7), (Family.LINEAR, (10, 7, 3))),
        ((5, 3), (3, 7), (5, 7), (Family.LINEAR, (5, 7, 3))),
        ((2, 5, 3), (3,), (2, 5), (Family.LINEAR, (10, 1, 3))),
        ((2, 5, 3), (2, 3, 7), (2, 5, 7), (Family.BMM, (2, 5, 7, 3))),
        ((4, 2, 5, 3), (2, 3, 7), (4, 2, 5, 7), (Family.BMM, (8, 5, 7, 3))),
        ((3,), (2, 3, 7), (2, 7), (Family.BMM, (2, 1, 7, 3))),
    ],
)
def test_matmul_by_a_matrix_is_linear_and_by_more_is_batched(
    left: tuple[int, ...],
    right: tuple[int, ...],
    result: tuple[int, ...],
    expected: tuple[Family, Dims],
) -> None:
    made = call("matmul", floats(*result), self=floats(*left), other=floats(*right))
    assert signature(made) == expected


@pytest.mark.parametrize(
    ("equation", "left", "right", "expected"),
    [
        ("bhid,bhjd->bhij", (2, 3, 4, 5), (2, 3, 6, 5), (Family.BMM, (6, 4, 6, 5))),
        ("bij,jk->bik", (2, 3, 4), (4, 5), (Family.LINEAR, (6, 5, 4))),
        ("...ij,jk", (2, 3, 4), (4, 5), (Family.LINEAR, (6, 5, 4))),
        ("i,j->ij", (3,), (4,), (Family.LINEAR, (3, 4, 1))),
        ("bij->bji", (2, 3, 4), (4, 5), None),
    ],
)
def test_einsum_is_read_as_a_matrix_product(
    equation: str,
    left: tuple[int, ...],
    right: tuple[int, ...],
    expected: tuple[Family, Dims] | None,
) -> None:
    assert contraction(equation, left, right) == expected


def test_attention_multiplies_queries_by_keys_and_scores_by_values() -> None:
    made = call(
        "scaled_dot_product_attention",
        floats(2, 12, 5, 64),
        query=floats(2, 12, 5, 64),
        key=floats(2, 12, 7, 64),
        value=floats(2, 12, 7, 64),
        attn_mask=None,
    )
    family, dims = signature(made)
    assert (family, dims) == (Family.ATTENTION, (2, 12, 5, 7, 64))
    assert flops(family, made.name, dims) == 2 * (2 * 12) * (5 * 7 * 64) * 2


def lstm(*, batch: int = 2) -> Call:
    weights = (floats(32, 16), floats(32, 8), floats(32), floats(32))
    return call(
        "lstm",
        floats(batch, 5, 8),
        floats(1, batch, 8),
        floats(1, batch, 8),
        input=floats(batch, 5, 16),
        hx=(floats(1, batch, 8), floats(1, batch, 8)),
        params=weights,
        has_biases=True,
        num_layers=1,
        bidirectional=False,
        batch_first=True,
    )


def test_an_lstm_computes_four_gates_from_input_and_state() -> None:
    family, dims = signature(lstm())
    assert (family, dims) == (Family.RECURRENT, (2, 5, 16, 8, 1, 1, 4))
    assert flops(family, "lstm", dims) == 2 * (2 * 5) * (4 * 8) * (16 + 8)


def test_upper_layers_of_a_bidirectional_gru_read_both_directions() -> None:
    dims = (2, 5, 16, 8, 2, 2, 3)
    first, second = 16 + 8, 2 * 8 + 8
    assert flops(Family.RECURRENT, "gru", dims) == 2 * (2 * 5) * 2 * (3 * 8) * (first + second)


def test_an_lstm_holds_its_gates_and_copies_its_weights() -> None:
    assert workspace_bytes(lstm()) == 4 * (2 * 5 * 4 * 8 + 4 * 8 * (16 + 8))


def test_a_convolution_holds_copies_of_its_operands() -> None:
    made = convolution(floats(2, 8, 9, 9), floats(4, 8, 3, 3), floats(2, 4, 9, 9))
    assert workspace_bytes(made) == 4 * (2 * 8 * 81 + 4 * 8 * 9)


def test_norms_and_softmax_count_what_is_normalised() -> None:
    x = floats(2, 12, 4, 4)
    assert signature(call("layer_norm", x, input=x, normalized_shape=(4, 4)))[1] == (24, 16)
    assert signature(call("group_norm", x, input=x, num_groups=3))[1] == (6, 4 * 16)
    assert signature(call("batch_norm", x, input=x))[1] == (24, 16)
    assert signature(call("softmax", x, self=x, dim=1))[1] == (32, 12)


def test_views_move_nothing() -> None:
    view = call("transpose", self=floats(2, 3), dim0=0, dim1=1)
    assert signature(view) == (Family.VIEW, (0, 0))
    assert traffic(view) == (0.0, 0.0)


def test_reshape_moves_where_it_copies() -> None:
    copied = call("reshape", floats(6), self=floats(2, 3), shape=(6,))
    assert signature(copied) == (Family.MOVE, (6, 6))
    assert traffic(copied) == (24.0, 24.0)


def test_in_place_operators_are_of_the_family_of_their_names() -> None:
    relu = Call(name="relu_", arguments={"self": floats(8)}, written=(floats(8),))
    assert signature(relu) == (Family.ACTIVATION, (8, 8))
    assert traffic(relu) == (32.0, 32.0)


def test_what_is_overwritten_is_not_read() -> None:
    copy = Call(
        name="copy_", arguments={"self": floats(8), "src": integers(8)}, written=(floats(8),)
    )
    assert traffic(copy) == (64.0, 32.0)


def test_an_expanded_tensor_is_read_once() -> None:
    mask = TensorFacts((2, 12, 5, 5), "float32", 4, 25)
    scores = floats(2, 12, 5, 5)
    assert traffic(call("add", scores, self=scores, other=mask)) == (4 * 625.0, 4 * 600.0)


def test_an_embedding_reads_the_rows_that_it_looks_up() -> None:
    made = call("embedding", floats(2, 3, 8), weight=floats(30_000, 8), indices=integers(2, 3))
    assert signature(made) == (Family.EMBEDDING, (6, 8))
    assert traffic(made) == (6 * 8 * 4 + 6 * 8, 6 * 8 * 4)


def test_max_of_two_tensors_is_elementwise_and_of_one_reduces() -> None:
    x = floats(2, 3)
    assert signature(call("max", x, self=x, other=x))[0] is Family.ELEMENTWISE
    assert signature(call("max", floats(2), self=x, dim=1))[0] is Family.POOL


def test_an_unknown_operator_has_bytes_only() -> None:
    family, dims = signature(call("fft_rfft", floats(5), self=floats(8), n=None))
    assert (family, dims) == (Family.OTHER, (8, 5))
    assert flops(family, "fft_rfft", dims) == 0.0


@pytest.mark.parametrize(
    "made",
    [
        convolution(floats(2, 8, 10, 10), floats(4, 8, 3, 3), floats(2, 4, 5, 5), stride=2),
        convolution(floats(2, 8, 20), floats(4, 8, 3), floats(2, 4, 20), name="conv1d"),
        call(
            "linear",
            floats(2, 5, 7),
            input=floats(2, 5, 3),
            weight=floats(7, 3),
            bias=floats(7),
        ),
        call("bmm", floats(2, 5, 7), self=floats(2, 5, 3), mat2=floats(2, 3, 7)),
        call(
            "scaled_dot_product_attention",
            floats(2, 3, 5, 8),
            query=floats(2, 3, 5, 8),
            key=floats(2, 3, 7, 8),
            value=floats(2, 3, 7, 8),
        ),
        lstm(),
        call("embedding", floats(6, 8), weight=floats(30, 8), indices=integers(6)),
        call(
            "layer_norm",
            floats(6, 8),
            input=floats(6, 8),
            normalized_shape=(8,),
            weight=floats(8),
            bias=floats(8),
        ),
        call("softmax", floats(6, 8), self=floats(6, 8), dim=-1),
        call("add", floats(6, 8), self=floats(6, 8), other=floats(8)),
        call("max_pool2d", floats(2, 8, 5, 5), self=floats(2, 8, 10, 10)),
        call("cat", floats(6, 8), tensors=(floats(2, 8), floats(4, 8))),
        call("view", self=floats(6, 8)),
    ],
    ids=lambda made: made.name,
)
def test_bytes_from_dims_alone_equal_those_of_the_call(made: Call) -> None:
    family, dims = signature(made)
    assert minimal_bytes(family, made.name, dims, "float32") == sum(traffic(made))


def test_narrow_dtypes_halve_the_bytes() -> None:
    assert minimal_bytes(Family.BMM, "bmm", (2, 3, 4, 5), "bfloat16") == 2 * 2 * (15 + 20 + 12)


def test_no_name_is_in_two_tables() -> None:
    tables = [
        operator_names.ACTIVATION,
        operator_names.ELEMENTWISE,
        operator_names.NORM,
        operator_names.SOFTMAX,
        operator_names.POOL,
        operator_names.MOVE,
        operator_names.IDLE,
        operator_names.CONVOLUTIONS,
        operator_names.PRODUCTS,
        operator_names.ATTENTIONS,
        operator_names.EMBEDDINGS,
        frozenset(operator_names.GATES),
    ]
    names = [name for table in tables for name in table]
    assert len(names) == len(set(names))
