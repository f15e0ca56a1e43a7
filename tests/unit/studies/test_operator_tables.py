import numpy as np
import pyarrow.parquet as pq
import pytest

from falcon_ray.errors import InputError
from falcon_ray.knowledge.operators.operator import N_DIMS, Family
from falcon_ray.knowledge.profile.schemas import OPERATORS
from falcon_ray.space.catalogue import Catalogue
from falcon_ray.studies.knowledge.operators import is_held_out
from falcon_ray.studies.knowledge.transformers import Architecture, bert, gpt
from falcon_ray.studies.operator_tables import CATALOGUE_NAMES, flops_and_bytes, operator_rows
from falcon_ray.studies.public_tables import public_table


@pytest.mark.parametrize(
    ("family", "dims", "flops", "elements"),
    [
        (Family.LINEAR, [2, 3, 4], 2 * 2 * 3 * 4, 2 * 4 + 4 * 3 + 2 * 3),
        (Family.BMM, [5, 2, 3, 4], 5 * 2 * 2 * 3 * 4, 5 * (2 * 4 + 4 * 3 + 2 * 3)),
        # batch 2, 4 channels in, 6 out, 2 groups, 3 x 3, 8 x 8 results, stride 1
        (
            Family.CONV_3X3,
            [2, 4, 6, 2, 3, 3, 8, 8, 1],
            2 * 2 * 8 * 8 * 6 * (4 // 2) * 9,
            2 * 4 * 8 * 8 + 2 * 6 * 8 * 8 + 6 * (4 // 2) * 9,
        ),
        (Family.SOFTMAX, [7, 9], 0, 2 * 7 * 9),
        (Family.ELEMENTWISE, [20, 10], 0, 20 + 10),
    ],
)
def test_flops_and_bytes_follow_from_the_dimensions(
    family: Family, dims: list[int], flops: float, elements: float
) -> None:
    found, moved = flops_and_bytes(family, np.array([dims]), element_bytes=4)
    assert (found[0], moved[0]) == (flops, 4 * elements)


def test_every_measured_device_stands_in_the_catalogue() -> None:
    known = {gpu.gpu_type for gpu in Catalogue.packaged().gpus}
    assert set(CATALOGUE_NAMES.values()) <= known


def test_a_fifth_of_all_shapes_is_held_out_and_always_the_same() -> None:
    dims = np.stack(np.meshgrid(np.arange(1, 101), np.arange(1, 101)), axis=-1).reshape(-1, 2)
    held_out = is_held_out(dims)
    # 10,000 shapes: 20 % with a standard error of 0.4 %.
    assert held_out.mean() == pytest.approx(0.2, abs=0.016)
    assert (is_held_out(dims[::-1]) == held_out[::-1]).all()


def test_a_bert_layer_multiplies_matrices_for_as_many_flops_as_the_architecture_says() -> None:
    sizes = Architecture(layers=1, width=64, inner=256, heads=4)
    n_flops = sum(
        call.count * flops_and_bytes(call.family, np.array([call.dims]), element_bytes=4)[0][0]
        for call in bert(sizes, 2, 16)
    )
    rows = 2 * 16
    projections = 2 * rows * (4 * 64 * 64 + 2 * 64 * 256)
    attention = 2 * 2 * (2 * 4) * 16 * 16 * (64 // 4)
    pooler = 2 * 2 * 64 * 64
    assert n_flops == projections + attention + pooler


def test_a_gpt_computes_logits_for_every_token() -> None:
    sizes = Architecture(layers=3, width=64, inner=256, heads=4)
    assert gpt(sizes, 2, 16)[-1].dims == (2 * 16, 50_257, 64)


def test_public_rows_have_the_columns_and_dimensions_of_a_profile() -> None:
    try:
        published = pq.read_table(
            public_table("operator_latency.parquet"),
            columns=["family"],
            filters=[("family", "in", ["conv", "ln"])],
        )
    except InputError as error:
        pytest.skip(str(error))
    rows = operator_rows([Family.CONV_3X3, Family.NORM])
    assert rows.schema == OPERATORS
    assert rows.num_rows == published.num_rows
    widths = {
        (str(row["family"]), len(row["dims"]))
        for row in rows.select(["family", "dims"]).to_pylist()
    }
    assert widths == {(each.value, N_DIMS[each]) for each in (Family.CONV_3X3, Family.NORM)}
    assert rows["latency_us"].to_numpy().min() > 0
    assert rows["bytes"].to_numpy().min() > 0
