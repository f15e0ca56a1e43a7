import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from cluster.clients import Clients
from cluster.hardware import HardwareCache, checked_rows, known_rows
from falcon_ray.space.catalogue import Catalogue
from tests.unit.cluster.plan_fakes import Stubborn, Without, denied

NOW = dt.datetime(2026, 12, 1, 12, tzinfo=dt.UTC)
L4 = Catalogue.packaged().instance("g6.2xlarge")


def described(
    *, vcpus: int = 8, ram_mib: int = 32768, n_gpus: int = 1, gpu_memory_mib: int = 22888
) -> dict[str, Any]:
    return {
        "InstanceType": "g6.2xlarge",
        "VCpuInfo": {"DefaultVCpus": vcpus},
        "MemoryInfo": {"SizeInMiB": ram_mib},
        "GpuInfo": {"Gpus": [{"Count": n_gpus, "MemoryInfo": {"SizeInMiB": gpu_memory_mib}}]},
    }


def clients_that_describe(*records: dict[str, Any]) -> Clients:
    pages = [{"InstanceTypes": [each]} for each in records]
    ec2 = Stubborn(None, "describe_instance_types", pages)
    return Clients("us-east-1", ec2, None, None, None, None, None, None)


@pytest.fixture
def cache(tmp_path: Path) -> HardwareCache:
    return HardwareCache(tmp_path / "somewhere" / "hardware.json")


def test_row_that_is_right_stays(cache: HardwareCache) -> None:
    clients = clients_that_describe(described(ram_mib=32600))  # 31.8 GiB: within 1 %
    assert checked_rows([L4], clients, cache=cache, now=NOW) == ([L4], [])


def test_type_that_ec2_does_not_know_stays(cache: HardwareCache) -> None:
    assert checked_rows([L4], clients_that_describe(), cache=cache, now=NOW) == ([L4], [])


def test_facts_of_ec2_go_before_the_catalogues_and_are_kept(cache: HardwareCache) -> None:
    clients = clients_that_describe(described(vcpus=6, ram_mib=16384))
    (row,), remarks = checked_rows([L4], clients, cache=cache, now=NOW)
    assert (row.vcpus, row.ram_gib, row.usd_per_hour) == (6, 16, 0.9776)
    assert remarks == ["g6.2xlarge: by EC2 on 2026-12-01, vcpus 8 -> 6, ram_gib 32 -> 16"]
    assert known_rows([L4], cache) == ([row], remarks)


def test_facts_of_the_last_time_hold_where_ec2_says_nothing(cache: HardwareCache) -> None:
    checked_rows([L4], clients_that_describe(described(vcpus=6)), cache=cache, now=NOW)
    error = denied("DescribeInstanceTypes", "ec2:DescribeInstanceTypes")
    ec2 = Without(None, describe_instance_types=error)
    clients = Clients("us-east-1", ec2, None, None, None, None, None, None)
    (row,), remarks = checked_rows([L4], clients, cache=cache, now=NOW + dt.timedelta(days=3))
    assert row.vcpus == 6
    assert "may not ec2:DescribeInstanceTypes" in remarks[0]
    assert remarks[1] == "g6.2xlarge: by EC2 on 2026-12-01, vcpus 8 -> 6"


def test_facts_that_cannot_be_are_not_taken(cache: HardwareCache) -> None:
    clients = clients_that_describe(described(n_gpus=0))
    (row,), remarks = checked_rows([L4], clients, cache=cache, now=NOW)
    assert row == L4
    assert "n_gpus 1 -> 0, which is not taken" in remarks[0]


@pytest.mark.parametrize("text", ["", '{"version": 1, "records": [{"instance_type": "a"}]}'])
def test_damaged_cache_costs_a_remark(text: str, cache: HardwareCache) -> None:
    cache.path.parent.mkdir()
    cache.path.write_text(text)
    rows, remarks = known_rows([L4], cache)
    assert rows == [L4]
    assert "delete it" in remarks[0]
    checked_rows([L4], clients_that_describe(described()), cache=cache, now=NOW)
    assert known_rows([L4], cache) == ([L4], [])


def test_cache_that_cannot_be_written_costs_a_remark(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = HardwareCache(tmp_path / "file" / "hardware.json")
    rows, remarks = checked_rows([L4], clients_that_describe(described()), cache=cache, now=NOW)
    assert rows == [L4]
    assert "cannot be written" in remarks[0]
