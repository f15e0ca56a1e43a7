import datetime as dt
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.clients import Clients
from cluster.plan import Planning, make_plan
from cluster.spec import ClusterSpec, Market, WorkerSpec
from cluster.spec_file import DEFAULT_FILE, read
from cluster.user_cache import UserCache
from falcon_ray.errors import ClusterError, FalconRayError, InputError
from falcon_ray.space.catalogue import Catalogue
from tests.unit.cluster.plan_fakes import (
    PLAN_AMI,
    PLAN_AMI_PARAMETER,
    PlanPricing,
    PlanQuotas,
    Stubborn,
    Without,
    denied,
    product,
    quotas_of,
    unreachable,
)

pytestmark = pytest.mark.aws

NOW = dt.datetime(2026, 12, 1, 12, tzinfo=dt.UTC)
SPEC = replace(read(DEFAULT_FILE, Catalogue.packaged()), ami_parameter=PLAN_AMI_PARAMETER)
HOME = "203.0.113.7/32"
EXTRAS = 150 * 0.08 / 730 + 0.005  # of a node: its disk and its address


def worker(instance_type: str, market: Market = Market.ON_DEMAND, most: int = 1) -> WorkerSpec:
    return WorkerSpec(instance_type=instance_type, market=market, max_workers=most)


@pytest.fixture
def planned(plan_account: Clients, tmp_path: Path) -> Callable[..., Planning]:
    def plan(spec: ClusterSpec = SPEC, **clients: object) -> Planning:
        return make_plan(
            spec,
            replace(plan_account, **clients),
            catalogue=Catalogue.packaged(),
            cache=UserCache(tmp_path),
            now=NOW,
            find_own_address=lambda: HOME,
        )

    return plan


def refused(plan: Callable[[], Planning], kind: type[FalconRayError]) -> str:
    with pytest.raises(kind) as caught:
        plan()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_default_file_is_planned(planned: Callable[..., Planning]) -> None:
    found = planned()
    plan = found.plan
    assert plan.account_id == "123456789012"
    assert plan.spec == replace(SPEC, ssh_from=HOME)
    assert (plan.image.ami_id, plan.image.root_device) == (PLAN_AMI, "/dev/sda1")
    assert (plan.image.ssh_user, plan.image.min_disk_gib) == ("ubuntu", 15)
    assert plan.head.instance.instance_type == "m6i.xlarge"
    assert [(each.name, each.max_workers) for each in plan.workers] == [
        ("g4dn-2xlarge-on-demand", 2),
        ("g4dn-2xlarge-spot", 2),
        ("g6-2xlarge-on-demand", 2),
        ("g6-2xlarge-spot", 2),
        ("g5-2xlarge-on-demand", 2),
        ("g5-2xlarge-spot", 2),
        ("g6e-2xlarge-on-demand", 1),
        ("g6e-2xlarge-spot", 1),
    ]
    assert found.refusals == ()


def test_worst_hour_is_the_head_with_the_dearest_workers_at_prices_on_demand(
    planned: Callable[..., Planning],
) -> None:
    costs = planned().costs
    # Four workers at most: two L40S, one of them spot, then two A10G.
    worst = 0.192 + 2 * 2.24208 + 2 * 1.212 + 5 * EXTRAS
    assert costs.worst_usd_per_hour == pytest.approx(worst)
    assert costs.best_usd_per_hour == pytest.approx(0.192 + EXTRAS)
    # moto's spot price is 0.00001.
    assert costs.cheapest_usd_per_hour == pytest.approx(0.192 + 0.00001 + 2 * EXTRAS)


def test_address_that_the_user_gives_is_not_looked_up(
    plan_account: Clients, tmp_path: Path
) -> None:
    def find_own_address() -> str:
        raise AssertionError

    found = make_plan(
        replace(SPEC, ssh_from="198.51.100.0/24"),
        plan_account,
        catalogue=Catalogue.packaged(),
        cache=UserCache(tmp_path),
        now=NOW,
        find_own_address=find_own_address,
    )
    assert found.plan.spec.ssh_from == "198.51.100.0/24"


def test_zones_are_those_that_offer_the_type_and_are_wanted(
    planned: Callable[..., Planning],
) -> None:
    nodes = {each.name: each for each in planned().plan.workers}
    assert "us-east-1f" in nodes["g4dn-2xlarge-spot"].zones
    assert "us-east-1f" not in nodes["g6e-2xlarge-spot"].zones
    wanted = ("us-east-1b", "us-east-1c")
    found = planned(replace(SPEC, availability_zones=wanted)).plan
    assert {each.zones for each in (found.head, *found.workers)} == {wanted}


def test_head_is_where_workers_can_be(planned: Callable[..., Planning]) -> None:
    found = planned(replace(SPEC, workers=(worker("g6e.2xlarge"),))).plan
    assert found.head.zones == found.workers[0].zones
    assert "us-east-1f" not in found.head.zones


def test_zone_that_is_not_open_is_refused(planned: Callable[..., Planning]) -> None:
    spec = replace(SPEC, availability_zones=("us-east-1z",))
    message = refused(lambda: planned(spec), ClusterError)
    assert message.startswith(
        "availability_zones: us-east-1z is not open to this account; open are"
    )


def test_type_that_the_wanted_zones_lack_is_refused_with_zones_that_have_it(
    planned: Callable[..., Planning],
) -> None:
    spec = replace(SPEC, availability_zones=("us-east-1f",))
    message = refused(lambda: planned(spec), ClusterError)
    assert message == (
        "g6e.2xlarge is not offered in the zones of availability_zones; add one of us-east-1a, "
        "us-east-1b, us-east-1c, us-east-1d, or leave availability_zones empty"
    )


@pytest.mark.parametrize(
    ("pricing", "part"),
    [
        (
            PlanPricing({"p3dn.24xlarge": [product(each, "31.2") for each in ("eu-x", "us-x")]}),
            "it is in eu-x, us-x; change region",
        ),
        (PlanPricing(), "no region sells it by the hour"),
        (PlanPricing(error=unreachable()), "where it is could not be looked up (asking the Price"),
    ],
)
def test_type_that_the_region_lacks_is_refused_with_regions_that_have_it(
    plan_account: Clients, planned: Callable[..., Planning], pricing: PlanPricing, part: str
) -> None:
    pages = [{"InstanceTypeOfferings": [{"InstanceType": "m6i.xlarge", "Location": "us-east-1a"}]}]
    ec2 = Stubborn(plan_account.ec2, "describe_instance_type_offerings", pages)
    spec = replace(SPEC, workers=(worker("p3dn.24xlarge"),))
    message = refused(lambda: planned(spec, ec2=ec2, pricing=pricing), ClusterError)
    assert message.startswith("p3dn.24xlarge is not offered in us-east-1; ")
    assert part in message


@pytest.mark.parametrize("name", ["p2.xlarge", "g3s.xlarge", "p3.2xlarge"])
def test_retired_types_are_refused(name: str, planned: Callable[..., Planning]) -> None:
    spec = replace(SPEC, workers=(worker(name),))
    assert "is retired" in refused(lambda: planned(spec), InputError)


def test_zero_quota_is_refused_beside_the_plan(planned: Callable[..., Planning]) -> None:
    found = planned(quotas=PlanQuotas(quotas_of(g_on_demand=0)))
    (error,) = found.refusals
    assert error.exit_code == 4
    assert "(L-DB2E81BA) is 0 vCPUs in us-east-1" in str(error)
    assert "--quota-code L-DB2E81BA --desired-value 32" in str(error)  # 4 workers of 8


@pytest.mark.parametrize(
    ("limits", "parts"),
    [
        ({"max_usd_per_hour": 0.2}, ["max_usd_per_hour is 0.2, but the head with one worker"]),
        ({"max_usd_per_hour": 7.2}, ["max_usd_per_hour is 7.2, but the worst hour costs 7.21"]),
        ({"max_usd_per_hour": 7.3}, []),
        ({"max_cost_usd": 0.2}, ["max_cost_usd is 0.2, but one hour of the head"]),
        ({"max_usd_per_hour": None, "max_cost_usd": None}, []),
    ],
)
def test_limits_below_what_it_costs_are_refused(
    limits: dict[str, float | None], parts: list[str], planned: Callable[..., Planning]
) -> None:
    found = planned(replace(SPEC, **limits)).refusals
    assert [each.exit_code for each in found] == [6] * len(parts)
    for error, part in zip(found, parts, strict=True):
        assert part in str(error)


def test_unreachable_price_list_gives_shipped_prices_and_a_remark(
    planned: Callable[..., Planning],
) -> None:
    found = planned(pricing=PlanPricing(error=unreachable()))
    assert found.plan.workers[0].price.usd_per_hour == 0.752
    assert found.plan.workers[0].price.date == dt.date(2026, 11, 24)
    assert any("AWS cannot be reached" in each for each in found.remarks)
    assert found.refusals == ()


def test_spot_without_history_is_priced_on_demand(
    plan_account: Clients, planned: Callable[..., Planning]
) -> None:
    error = denied("DescribeSpotPriceHistory", "ec2:DescribeSpotPriceHistory")
    found = planned(ec2=Without(plan_account.ec2, describe_spot_price_history=error))
    assert found.plan.workers[1].price.usd_per_hour == 0.752
    assert any("may not ec2:DescribeSpotPriceHistory" in each for each in found.remarks)


def test_hardware_is_as_ec2_describes_it(
    plan_account: Clients, planned: Callable[..., Planning]
) -> None:
    described = {
        "InstanceType": "g6.2xlarge",
        "VCpuInfo": {"DefaultVCpus": 6},
        "MemoryInfo": {"SizeInMiB": 32 * 1024},
        "GpuInfo": {"Gpus": [{"Count": 1, "MemoryInfo": {"SizeInMiB": 22888}}]},
    }
    ec2 = Stubborn(plan_account.ec2, "describe_instance_types", [{"InstanceTypes": [described]}])
    found = planned(ec2=ec2)
    nodes = {each.instance.instance_type: each.instance for each in found.plan.workers}
    assert (nodes["g6.2xlarge"].vcpus, nodes["g5.2xlarge"].vcpus) == (6, 8)
    assert "g6.2xlarge: by EC2 on 2026-12-01, vcpus 8 -> 6" in found.remarks


def test_hardware_that_may_not_be_described_is_as_in_the_catalogue(
    plan_account: Clients, planned: Callable[..., Planning]
) -> None:
    error = denied("DescribeInstanceTypes", "ec2:DescribeInstanceTypes")
    found = planned(ec2=Without(plan_account.ec2, describe_instance_types=error))
    assert found.plan.workers[0].instance.vcpus == 8
    assert any("may not ec2:DescribeInstanceTypes" in each for each in found.remarks)


@pytest.mark.parametrize(
    ("call", "action"),
    [
        ("describe_availability_zones", "ec2:DescribeAvailabilityZones"),
        ("describe_instance_type_offerings", "ec2:DescribeInstanceTypeOfferings"),
        ("describe_images", "ec2:DescribeImages"),
    ],
)
def test_permission_without_which_nothing_can_be_planned_is_named(
    call: str, action: str, plan_account: Clients, planned: Callable[..., Planning]
) -> None:
    ec2 = Without(plan_account.ec2, **{call: denied("x", action)})
    message = refused(lambda: planned(ec2=ec2), ClusterError)
    assert f"the caller may not {action}; ask the account's administrator" in message


def test_planning_calls_nothing_that_changes_anything(
    plan_account: Clients, planned: Callable[..., Planning]
) -> None:
    called: list[str] = []
    for client in (plan_account.ec2, plan_account.ssm, plan_account.sts):
        client.meta.events.register(
            "before-call", lambda model, **_: called.append(model.name), unique_id="recorded"
        )
    planned()
    assert called
    assert [each for each in called if not each.startswith(("Describe", "Get", "List"))] == []


def test_worst_hour_has_no_more_workers_than_there_may_be(
    planned: Callable[..., Planning],
) -> None:
    spec = replace(SPEC, workers=(worker("g4dn.2xlarge", most=3),), max_workers=2)
    costs = planned(spec).costs
    assert costs.cheapest_usd_per_hour == pytest.approx(0.192 + 0.752 + 2 * EXTRAS)
    assert costs.worst_usd_per_hour == pytest.approx(0.192 + 2 * 0.752 + 3 * EXTRAS)
