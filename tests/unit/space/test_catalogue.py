import datetime as dt
import json
from dataclasses import replace
from typing import Any

import pytest

from falcon_ray.errors import InputError
from falcon_ray.space.catalogue import Catalogue, Instance, InstanceStatus, cpu_node

CATALOGUE = Catalogue.packaged()

GPUS_HEADER = (
    "gpu_type,accelerator_type,memory_gib,bandwidth_gb_per_s,fp32_tflops,fp16_tflops,bf16_tflops,"
    "fp8_tflops,sm_count,compute_capability,tdp_w,source,date"
)
T4_ROW = "T4,T4,14.5,320,8.1,65,,,40,7.5,70,a datasheet,2026-01-02"
INSTANCES_HEADER = (
    "instance_type,gpu_type,n_gpus,gpu_memory_mib,vcpus,ram_gib,usd_per_hour,region,status,"
    "price_date,price_source"
)
G4DN_ROW = "g4dn.xlarge,T4,1,16384,4,16,0.526,us-east-1,active,2026-01-02,a price list"


def table(header: str, *rows: str) -> str:
    return "\n".join((header, *rows)) + "\n"


def catalogue_of(*, gpu_row: str = T4_ROW, instance_row: str = G4DN_ROW) -> Catalogue:
    return Catalogue.from_csv(
        gpus=table(GPUS_HEADER, gpu_row), instances=table(INSTANCES_HEADER, instance_row)
    )


def test_the_packaged_catalogue_has_the_gpus_and_instances_that_the_cloud_rents_out() -> None:
    gpus = {gpu.gpu_type for gpu in CATALOGUE.gpus}
    assert {"T4", "A10G", "L4", "L40S", "H100", "H200", "B200", "RTX-PRO-6000"} <= gpus
    assert {"V100-16G", "V100-32G", "A100-40G", "A100-80G", "K80", "M60", "P4", "P100"} <= gpus
    assert len(CATALOGUE.instances) == 26
    assert {each.gpu_type for each in CATALOGUE.instances} - {None} <= gpus


def test_every_packaged_row_says_where_it_comes_from_and_when() -> None:
    for gpu in CATALOGUE.gpus:
        assert len(gpu.source) > 10, gpu.gpu_type
        assert gpu.date >= dt.date(2026, 11, 24), gpu.gpu_type
    for each in CATALOGUE.instances:
        assert "public price list" in each.price_source, each.instance_type
        assert each.price_date is not None, each.instance_type


def test_peak_rates_do_not_fall_with_the_precision() -> None:
    for gpu in CATALOGUE.gpus:
        rates = [gpu.fp32_tflops, gpu.fp16_tflops, gpu.fp8_tflops]
        known = [rate for rate in rates if rate is not None]
        assert known == sorted(known), gpu.gpu_type
        assert gpu.bf16_tflops in (None, gpu.fp16_tflops), gpu.gpu_type


def test_bfloat16_came_with_compute_capability_8_and_fp8_with_8_9() -> None:
    for gpu in CATALOGUE.gpus:
        assert (gpu.bf16_tflops is not None) == (gpu.compute_capability >= 8.0), gpu.gpu_type
        assert (gpu.fp8_tflops is not None) == (gpu.compute_capability >= 8.9), gpu.gpu_type


def test_the_names_that_ray_finds_on_a_node_are_its_own_constants() -> None:
    constants = pytest.importorskip("ray.util.accelerators.accelerators")
    known = {value for name, value in vars(constants).items() if name.startswith("NVIDIA_")}
    named = {gpu.accelerator_type for gpu in CATALOGUE.gpus}
    assert named - known == {"M60"}  # Ray derives that one from the device's name


def test_retired_instances_are_marked() -> None:
    retired = {
        each.instance_type for each in CATALOGUE.instances if each.status is InstanceStatus.RETIRED
    }
    assert retired == {"p3.2xlarge", "p2.xlarge", "g3s.xlarge"}


def test_a_gpu_is_found_by_its_own_name() -> None:
    assert CATALOGUE.gpu("A100-80G").bandwidth_gb_per_s == 2039


@pytest.mark.parametrize(
    ("memory_gib", "gpu_type"),
    [(None, "A100-40G"), (39.4, "A100-40G"), (79.25, "A100-80G"), (80.0, "A100-80G")],
)
def test_of_cards_that_share_rays_name_the_memory_tells_and_else_the_smallest_is_meant(
    memory_gib: float | None, gpu_type: str
) -> None:
    assert CATALOGUE.gpu("A100", memory_gib=memory_gib).gpu_type == gpu_type


def test_an_unknown_gpu_is_refused_with_the_nearest_name_and_what_to_do() -> None:
    with pytest.raises(
        InputError,
        match=r"no GPU type 'a10' in the catalogue \(did you mean A10G\?\); known are T4, .*; "
        "add a row to data/gpus.csv",
    ):
        CATALOGUE.gpu("a10")


def test_an_unknown_instance_is_refused_with_the_nearest_name_and_what_to_do() -> None:
    with pytest.raises(
        InputError, match=r"did you mean g5.xlarge\?.*add a row to data/instances.csv"
    ):
        CATALOGUE.instance("g5.xlrge")


def test_a_name_like_no_other_gets_no_hint() -> None:
    with pytest.raises(InputError, match="in the catalogue; known are"):
        CATALOGUE.gpu("zzzzzz")


def test_instances_are_found_by_the_gpus_own_name_and_by_rays() -> None:
    own = [each.instance_type for each in CATALOGUE.instances_with("A100-80G")]
    rays = [each.instance_type for each in CATALOGUE.instances_with("A100")]
    assert own == ["p4de.24xlarge"]
    assert rays == ["p4d.24xlarge", "p4de.24xlarge"]
    assert CATALOGUE.instance("p4d.24xlarge").accelerator_type == "A100"


def test_a_known_gpu_without_an_instance_is_no_error_but_an_unknown_one_is() -> None:
    assert CATALOGUE.instances_with("P4") == ()
    with pytest.raises(InputError, match="no GPU type 'T5'"):
        CATALOGUE.instances_with("T5")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0.526", "-1", "usd_per_hour must be a positive finite number, got -1.0"),
        ("0.526", "nan", "usd_per_hour must be a positive finite number, got nan"),
        ("0.526", "cheap", "usd_per_hour cannot be 'cheap'"),
        ("0.526", "", "usd_per_hour cannot be ''"),
        (",4,16,", ",4.5,16,", "vcpus cannot be '4.5'"),
        (",4,16,", ",0,16,", "vcpus must be a positive finite number, got 0"),
        ("active", "gone", "status cannot be 'gone'"),
        ("2026-01-02", "yesterday", "price_date cannot be 'yesterday'"),
        ("a price list", "", "price_source must not be empty"),
        (",T4,1,", ",,1,", "must all describe GPUs or all be empty or zero, got None, 1 and 16384"),
        (",T4,1,16384", ",T4,1,-1", "must all describe GPUs"),
        (",a price list", "", "a row has 11 cells"),
        ("a price list", "a price list,once more", "a row has 11 cells"),
    ],
)
def test_a_bad_instance_row_is_refused_naming_row_file_and_line(
    old: str, new: str, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        catalogue_of(instance_row=G4DN_ROW.replace(old, new, 1))
    assert "check the row g4dn.xlarge in data/instances.csv, line 2" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("14.5", "0", "memory_gib must be a positive finite number, got 0.0"),
        (",65,", ",-65,", "fp16_tflops must be a positive finite number, got -65.0"),
        (",40,", ",,", "sm_count cannot be ''"),
        ("a datasheet", "", "source must not be empty"),
    ],
)
def test_a_bad_gpu_row_is_refused_naming_row_file_and_line(
    old: str, new: str, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        catalogue_of(gpu_row=T4_ROW.replace(old, new, 1))
    assert "check the row T4 in data/gpus.csv, line 2" in str(caught.value)


def test_a_file_with_other_columns_is_refused() -> None:
    with pytest.raises(InputError, match=r"data/gpus.csv must have the columns gpu_type,.*got a,b"):
        Catalogue.from_csv(gpus="a,b\n", instances=table(INSTANCES_HEADER))
    with pytest.raises(InputError, match=r"data/instances.csv must have the columns"):
        Catalogue.from_csv(gpus=table(GPUS_HEADER, T4_ROW), instances="")


def test_a_name_that_stands_twice_is_refused() -> None:
    with pytest.raises(InputError, match="gpu_type T4 stands twice"):
        Catalogue.from_csv(
            gpus=table(GPUS_HEADER, T4_ROW, T4_ROW), instances=table(INSTANCES_HEADER)
        )
    with pytest.raises(InputError, match=r"instance_type g4dn.xlarge stands twice"):
        Catalogue.from_csv(
            gpus=table(GPUS_HEADER, T4_ROW),
            instances=table(INSTANCES_HEADER, G4DN_ROW, G4DN_ROW),
        )


def test_an_instance_whose_gpu_has_no_row_is_refused() -> None:
    with pytest.raises(InputError, match=r"no GPU type 'L4'.*add a row to data/gpus.csv"):
        catalogue_of(instance_row=G4DN_ROW.replace("T4", "L4"))


def test_an_instance_that_contradicts_its_gpus_memory_is_refused() -> None:
    # 24576 MiB / 1024 = 24 GiB against 14.5
    with pytest.raises(InputError, match=r"g4dn.xlarge has 24 GiB on each T4, but .* 14.5 GiB"):
        catalogue_of(instance_row=G4DN_ROW.replace("16384", "24576"))


def test_a_node_without_a_price_is_priced_per_vcpu_and_says_so() -> None:
    node = cpu_node(8, 30.0)
    assert node.usd_per_hour == pytest.approx(0.384)  # 0.192 USD/h / 4 vCPUs * 8
    assert node.price_source == "assumed: m6i.xlarge per vCPU"
    assert node.price_date == CATALOGUE.instance("m6i.xlarge").price_date
    assert (node.gpu_type, node.n_gpus, node.vcpus, node.ram_gib) == (None, 0, 8, 30.0)


def test_a_node_with_a_price_keeps_it_and_claims_no_date() -> None:
    node = cpu_node(2, 8.0, usd_per_hour=0.05)
    assert (node.usd_per_hour, node.price_source, node.price_date) == (0.05, "given", None)
    with pytest.raises(InputError, match="usd_per_hour must be a positive"):
        cpu_node(2, 8.0, usd_per_hour=0.0)


@pytest.mark.parametrize("instance", [CATALOGUE.instance("p4d.24xlarge"), cpu_node(2, 8.0, 0.05)])
def test_an_instance_survives_its_round_trip_through_json(instance: Instance) -> None:
    assert Instance.from_json(json.loads(json.dumps(instance.to_json()))) == instance


@pytest.mark.parametrize(
    "change",
    [
        {"status": "gone"},
        {"usd_per_hour": -1},
        {"usd_per_hour": "cheap"},
        {"price_date": "yesterday"},
        {"colour": "red"},
    ],
)
def test_a_record_that_is_no_instance_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="this is no record of an instance"):
        Instance.from_json({**CATALOGUE.instance("g5.xlarge").to_json(), **change})
    with pytest.raises(InputError, match="this is no record of an instance: 'status'"):
        Instance.from_json({})


def test_an_instance_made_by_hand_has_its_gpus_name_as_rays() -> None:
    made = replace(CATALOGUE.instance("p4d.24xlarge"), gpu_type="A30", accelerator_type=None)
    assert made.has_gpu("A30")
    assert not made.has_gpu("A100")
