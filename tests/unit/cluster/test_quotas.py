import datetime as dt
from collections.abc import Sequence
from typing import Any

import pytest

from cluster.clients import Clients
from cluster.planned import PlannedNode, Price
from cluster.quotas import QuotaNeed, family_of, quota_needs, refusal, shortage
from cluster.spec import Market
from falcon_ray.space.catalogue import Catalogue
from tests.unit.cluster.plan_fakes import PlanQuotas, denied, quota, quotas_of, unreachable

PRICE = Price(usd_per_hour=1.0, date=dt.date(2026, 12, 1), origin="")


def node(instance_type: str, market: Market = Market.ON_DEMAND, most: int = 1) -> PlannedNode:
    return PlannedNode(
        name=f"{instance_type}-{market.value}",
        instance=Catalogue.packaged().instance(instance_type),
        market=market,
        max_workers=most,
        price=PRICE,
        zones=("us-east-1a",),
    )


HEAD = node("m6i.xlarge")


def needs_of(
    quotas: PlanQuotas, workers: Sequence[PlannedNode], max_workers: int = 9
) -> tuple[dict[str, QuotaNeed], tuple[str, ...]]:
    clients = Clients("us-east-1", None, None, None, None, None, quotas, None)
    needs, remarks = quota_needs(HEAD, workers, max_workers, clients)
    return {each.quota.code: each for each in needs}, remarks


def numbers(need: QuotaNeed) -> tuple[float, int, int]:
    return need.quota.vcpus, need.least_vcpus, need.most_vcpus


def test_each_quota_is_asked_for_its_own_nodes() -> None:
    workers = [
        node("g4dn.2xlarge", most=2),
        node("g6.xlarge", most=1),
        node("g6.2xlarge", Market.SPOT, most=3),
    ]
    needs, remarks = needs_of(PlanQuotas(quotas_of(g_on_demand=8, g_spot=0)), workers)
    assert remarks == ()
    assert numbers(needs["L-1216C47A"]) == (64, 4, 4)
    assert numbers(needs["L-DB2E81BA"]) == (8, 8, 2 * 8 + 4)
    assert numbers(needs["L-3819A6DF"]) == (0, 8, 3 * 8)


def test_all_workers_together_bound_what_is_asked() -> None:
    workers = [node("g4dn.2xlarge", most=5), node("g6.xlarge", most=5)]
    needs, _ = needs_of(PlanQuotas(), workers, max_workers=6)
    assert numbers(needs["L-DB2E81BA"])[2] == 5 * 8 + 1 * 4


def test_worker_of_the_heads_family_adds_to_it() -> None:
    needs, _ = needs_of(PlanQuotas(), [node("m6i.xlarge", most=2)])
    assert numbers(needs["L-1216C47A"]) == (64, 4 + 4, 4 + 2 * 4)


def test_quota_of_zero_is_refused_with_how_to_ask() -> None:
    needs, _ = needs_of(PlanQuotas(quotas_of(g_spot=0)), [node("g6.2xlarge", Market.SPOT, most=3)])
    error = refusal(needs["L-3819A6DF"], "us-east-1")
    assert str(error) == (
        "quota 'All G and VT Spot Instance Requests' (L-3819A6DF) is 0 vCPUs in us-east-1, but "
        "g6.2xlarge-spot need 8; ask for more by `aws service-quotas "
        "request-service-quota-increase --service-code ec2 --quota-code L-3819A6DF "
        "--desired-value 24 --region us-east-1`, or take them out of the cluster's file"
    )


@pytest.mark.parametrize(
    ("vcpus", "is_refused", "is_short"),
    [(7, True, False), (8, False, True), (23, False, True), (24, False, False)],
)
def test_quota_for_one_node_but_not_all_is_only_a_remark(
    vcpus: int, is_refused: bool, is_short: bool
) -> None:
    quotas = PlanQuotas(quotas_of(g_on_demand=vcpus))
    needs, _ = needs_of(quotas, [node("g6.2xlarge", most=3)])  # 8 each, 24 in all
    need = needs["L-DB2E81BA"]
    assert (refusal(need, "us-east-1") is not None) == is_refused
    assert (shortage(need, "us-east-1") is not None) == is_short


def test_defaults_hold_where_the_account_has_none_of_its_own() -> None:
    quotas = PlanQuotas(own=quotas_of()[:1], defaults=quotas_of(g_on_demand=0, standard=5))
    needs, _ = needs_of(quotas, [node("g6.2xlarge")])
    assert needs["L-DB2E81BA"].quota.vcpus == 64
    assert needs["L-1216C47A"].quota.vcpus == 5


@pytest.mark.parametrize(
    ("names", "instance_type", "code"),
    [
        (["All P Spot Instance Requests"], "p4d.24xlarge", "0"),
        (["All P4, P3 and P2 Spot Instance Requests"], "p4d.24xlarge", "0"),
        (
            ["All P4, P3 and P2 Spot Instance Requests", "All P5 Spot Instance Requests"],
            "p5en.48xlarge",
            "1",
        ),
        (["All P Spot Instance Requests", "All P5 Spot Instance Requests"], "p5.48xlarge", "1"),
        (["All G and VT Spot Instance Requests"], "g6e.2xlarge", "0"),
        (["Running On-Demand G and VT instances"], "g6e.2xlarge", "L-3819A6DF"),
        (["All X Spot Instance Requests"], "m6i.xlarge", "L-34B43A08"),
    ],
)
def test_quota_is_found_by_its_name_then_by_its_code(
    names: Sequence[str], instance_type: str, code: str
) -> None:
    class Coded(PlanQuotas):
        def get_service_quota(self, *, ServiceCode: str, QuotaCode: str) -> dict[str, Any]:  # noqa: N803
            return {"Quota": quota(QuotaCode, f"{ServiceCode} by code", 1)}

    own = [quota(str(i), name, 100) for i, name in enumerate(names)]
    needs, _ = needs_of(Coded(own), [node(instance_type, Market.SPOT)])
    (found,) = [each for each in needs.values() if HEAD.name not in each.node_names]
    assert found.quota.code == code


def test_missing_permission_to_list_is_named_and_codes_are_tried() -> None:
    error = denied("ListServiceQuotas", "servicequotas:ListServiceQuotas")
    needs, remarks = needs_of(PlanQuotas(list_error=error), [node("g6.2xlarge")])
    assert set(needs) == {"L-1216C47A", "L-DB2E81BA"}
    assert "the caller may not servicequotas:ListServiceQuotas" in remarks[0]


@pytest.mark.parametrize(
    ("error", "part", "n"),
    [
        (unreachable(), "quotas are not checked", 1),
        (denied("x", "servicequotas:GetServiceQuota"), "g6.2xlarge-on-demand is not checked", 3),
    ],
)
def test_quotas_that_cannot_be_looked_up_are_a_remark(error: Exception, part: str, n: int) -> None:
    needs, remarks = needs_of(PlanQuotas(error=error), [node("g6.2xlarge")])
    assert needs == {}
    assert len(remarks) == n
    assert part in remarks[-1]


def test_family_is_letters_and_generation() -> None:
    assert family_of("p5en.48xlarge") == ("P", "P5")
    assert family_of("p6-b200.48xlarge") == ("P", "P6")
    assert family_of("g4dn.xlarge") == ("G", "G4")
