from pathlib import Path

import pytest

from cluster.spec import ClusterSpec, Market, WorkerSpec
from cluster.spec_file import DEFAULT_AMI_PARAMETER, DEFAULT_FILE, parse, read
from falcon_ray.errors import InputError
from falcon_ray.space.catalogue import Catalogue

CATALOGUE = Catalogue.packaged()
SHORT = "name: mine\nregion: eu-west-1\nworkers: [{gpu: T4}]\n"


def spec(extra: str = "", text: str = SHORT) -> ClusterSpec:
    return parse(text + extra, CATALOGUE)


def refused(extra: str = "", text: str = SHORT) -> str:
    with pytest.raises(InputError) as caught:
        parse(text + extra, CATALOGUE)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_default_file_has_four_gpus_on_demand_and_spot() -> None:
    found = read(DEFAULT_FILE, CATALOGUE)
    types = {(each.instance_type, each.market) for each in found.workers}
    assert types == {
        (f"{family}.2xlarge", market) for family in ("g4dn", "g6", "g5", "g6e") for market in Market
    }
    assert found.max_workers == 4
    assert (found.ssh_from, found.ami_id, found.availability_zones) == (None, None, ())


def test_short_file_gets_the_defaults() -> None:
    assert spec() == ClusterSpec(
        name="mine",
        region="eu-west-1",
        head_instance_type="m6i.xlarge",
        workers=(WorkerSpec(instance_type="g4dn.2xlarge", market=Market.ON_DEMAND, max_workers=1),),
        max_workers=1,
        max_usd_per_hour=None,
        max_cost_usd=None,
        ttl_hours=8.0,
        idle_timeout_minutes=5.0,
        ssh_from=None,
        disk_gib=150,
        ami_parameter=DEFAULT_AMI_PARAMETER,
        ami_id=None,
        availability_zones=(),
    )


def test_defaults_of_the_default_file_are_those_of_a_short_one() -> None:
    default, short = read(DEFAULT_FILE, CATALOGUE), spec()
    same = (
        "head_instance_type",
        "ttl_hours",
        "idle_timeout_minutes",
        "ssh_from",
        "disk_gib",
        "ami_parameter",
        "ami_id",
        "availability_zones",
    )
    for name in same:
        assert getattr(default, name) == getattr(short, name), name


def test_without_a_total_all_workers_may_run() -> None:
    text = SHORT.replace("[{gpu: T4}]", "[{gpu: T4, max_workers: 3}, {gpu: L4, max_workers: 2}]")
    assert spec(text=text).max_workers == 3 + 2


@pytest.mark.parametrize(
    ("gpu", "instance_type"),
    [
        ("A10G", "g5.2xlarge"),  # not the xlarge: too few cores
        ("A100", "p4d.24xlarge"),  # by Ray's name: eight of them, the cheapest there is
        ("V100", "p3dn.24xlarge"),  # p3.2xlarge is smaller, and retired
    ],
)
def test_gpu_names_the_smallest_type_that_can_be_rented(gpu: str, instance_type: str) -> None:
    found = spec(text=SHORT.replace("T4", gpu))
    assert found.workers[0].instance_type == instance_type


def test_gpu_that_can_no_longer_be_rented_is_refused() -> None:
    message = refused(text=SHORT.replace("T4", "K80"))
    assert message.startswith("workers, entry 1: no instance type with K80 can be rented")
    assert "p2.xlarge (retired)" in message


@pytest.mark.parametrize(
    ("extra", "part"),
    [
        ("max_worker: 3", "unknown key 'max_worker' (did you mean max_workers?)"),
        ("max_workers: 0", "max_workers must be a whole number of at least 1, got 0"),
        ("max_workers: true", "max_workers must be a whole number of at least 1, got True"),
        ("ttl_hours: -1", "ttl_hours must be a positive number below a million, got -1"),
        ("ttl_hours: .inf", "ttl_hours must be a positive number"),
        ("ttl_hours: .nan", "ttl_hours must be a positive number"),
        ("ttl_hours: '8'", "ttl_hours must be a positive number below a million, got '8'"),
        ("max_usd_per_hour: yes", "max_usd_per_hour must be a positive number"),
        ("max_cost_usd: 0", "max_cost_usd must be a positive number"),
        ("disk_gib: 1.5", "disk_gib must be a whole number"),
        ("ssh_from: 0.0.0.0/0", "ssh_from 0.0.0.0/0 lets 4294967296 addresses connect"),
        ("ssh_from: 10.0.0.0/15", "of /16 or narrower"),
        ("ssh_from: 10.0.0.1/16", "has host bits set"),
        ("ssh_from: '::/128'", "ssh_from must be my-address or a network of IPv4"),
        ("ssh_from: somewhere", "ssh_from must be my-address or a network of IPv4"),
        ("head: m6i.xlrage", "did you mean m6i.xlarge?"),
        ("ami_id: ubuntu", "ami_id must look like ami-"),
        ("availability_zones: us-east-1a", "availability_zones must be a list"),
        ("availability_zones: [us-east-1a]", "availability_zones must be such as eu-west-1a"),
        ("availability_zones: [eu-west-1a, eu-west-1a]", "names a zone twice"),
        ("name: mine", "line 4: name stands twice"),
    ],
)
def test_values_that_do_not_fit_are_named(extra: str, part: str) -> None:
    assert part in refused(extra)


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("mine", "Mine", "name must look like falcon-1, got 'Mine'"),
        ("mine", "a234567890123456789012345", "name must look like"),
        ("mine", "mine-", "name must look like"),
        ("eu-west-1", "europe", "region must look like us-east-1, got 'europe'"),
        ("name: mine\n", "", "name is missing"),
        ("[{gpu: T4}]", "[]", "workers must be a list with at least one entry"),
        ("[{gpu: T4}]", "[T4]", "workers, entry 1: a mapping"),
        ("{gpu: T4}", "{market: spot}", "say either gpu or instance_type, got none"),
        ("{gpu: T4}", "{gpu: T4, instance_type: g5.xlarge}", "got gpu and instance_type"),
        ("{gpu: T4}", "{gpu: T4, spot: true}", "entry 1: unknown key 'spot'"),
        ("{gpu: T4}", "{gpu: T4, gpu: L4}", "line 3: gpu stands twice"),
        ("{gpu: T4}", "{gpu: T4, market: sport}", "got 'sport' (did you mean spot?)"),
        ("{gpu: T4}", "{gpu: A10}", "(did you mean A10G?)"),
        ("{gpu: T4}", "{gpu: T4}, {instance_type: g4dn.2xlarge}", "entry 2: g4dn.2xlarge on-dem"),
    ],
)
def test_entries_that_do_not_fit_are_named(old: str, new: str, part: str) -> None:
    assert part in refused(text=SHORT.replace(old, new))


@pytest.mark.parametrize(
    ("text", "part"), [("- 1", "got list"), ("", "got NoneType"), ("a: [", "no valid YAML")]
)
def test_what_is_no_mapping_is_refused(text: str, part: str) -> None:
    assert part in refused(text=text)


def test_one_address_is_a_network() -> None:
    assert spec("ssh_from: 203.0.113.7").ssh_from == "203.0.113.7/32"


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.yaml cannot be read: No such file"):
        read(tmp_path / "none.yaml", CATALOGUE)


def test_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: 3")
    with pytest.raises(InputError, match=r"mine.yaml: region is missing"):
        read(path, CATALOGUE)
