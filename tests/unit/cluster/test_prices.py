import datetime as dt
import json
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.clients import Clients
from cluster.planned import Price
from cluster.price_cache import PriceCache
from cluster.price_list import on_demand_usd_per_hour, regions_with
from cluster.prices import Priced, known_prices, on_demand_prices, spot_price
from cluster.user_cache import UserCache
from falcon_ray.errors import ClusterError, InputError
from falcon_ray.space.catalogue import Catalogue
from tests.unit.cluster.plan_fakes import PlanPricing, Stubborn, denied, product, unreachable

NOW = dt.datetime(2026, 12, 1, 12, tzinfo=dt.UTC)
TODAY = NOW.date()
REGION = "us-east-1"
(T4, L4) = (Catalogue.packaged().instance(name) for name in ("g4dn.2xlarge", "g6.2xlarge"))
LISTED = {"g4dn.2xlarge": [product(REGION, "0.700")], "g6.2xlarge": [product(REGION, "0.900")]}


def clients_with(pricing: PlanPricing, region: str = REGION, ec2: object = None) -> Clients:
    return Clients(region, ec2, None, None, None, None, None, pricing)


@pytest.fixture
def cache(tmp_path: Path) -> PriceCache:
    return PriceCache(tmp_path / "somewhere" / "prices.json")


def priced(pricing: PlanPricing, cache: PriceCache, *, refresh: bool = False) -> Priced:
    return on_demand_prices([T4, L4], clients_with(pricing), cache=cache, now=NOW, refresh=refresh)


def test_price_list_is_asked_for_plain_linux_and_kept(cache: PriceCache) -> None:
    pricing = PlanPricing(LISTED)
    found = priced(pricing, cache)
    origin = "AWS Price List, us-east-1"
    assert found.prices["g4dn.2xlarge"] == Price(usd_per_hour=0.7, date=TODAY, origin=origin)
    assert found.remarks == ()
    assert pricing.asked[0] == {
        "operatingSystem": "Linux",
        "preInstalledSw": "NA",
        "tenancy": "Shared",
        "capacitystatus": "Used",
        "instanceType": "g4dn.2xlarge",
        "regionCode": REGION,
    }
    assert cache.read()[REGION, "g6.2xlarge"].usd_per_hour == 0.9


def test_prices_of_today_are_not_asked_for_again_unless_they_shall_be(cache: PriceCache) -> None:
    priced(PlanPricing(LISTED), cache)
    pricing = PlanPricing(LISTED)
    assert priced(pricing, cache).prices["g4dn.2xlarge"].usd_per_hour == 0.7
    assert pricing.asked == []
    priced(pricing, cache, refresh=True)
    assert len(pricing.asked) == 2


def test_prices_of_yesterday_are_asked_for_again(cache: PriceCache) -> None:
    yesterday = TODAY - dt.timedelta(days=1)
    old = Price(usd_per_hour=0.75, date=yesterday, origin="AWS Price List, us-east-1")
    cache.add({(REGION, "g4dn.2xlarge"): old})
    assert priced(PlanPricing(LISTED), cache).prices["g4dn.2xlarge"].usd_per_hour == 0.7


@pytest.mark.parametrize("error", [unreachable(), denied("GetProducts", "pricing:GetProducts")])
def test_without_a_price_list_older_prices_hold_with_their_age(
    error: Exception, cache: PriceCache
) -> None:
    day = dt.date(2026, 11, 30)
    old = Price(usd_per_hour=0.75, date=day, origin="AWS Price List, us-east-1")
    cache.add({(REGION, "g4dn.2xlarge"): old})
    pricing = PlanPricing(error=error)
    found = priced(pricing, cache)
    assert found.prices["g4dn.2xlarge"] == old
    shipped = found.prices["g6.2xlarge"]
    assert (shipped.usd_per_hour, shipped.date) == (0.9776, dt.date(2026, 11, 24))
    assert shipped.origin == L4.price_source
    (remark,) = found.remarks
    assert "older prices hold" in remark
    assert len(pricing.asked) == 1  # nobody answers: the second type is not asked for


def test_missing_permission_for_prices_is_named(cache: PriceCache) -> None:
    found = priced(PlanPricing(error=denied("GetProducts", "pricing:GetProducts")), cache)
    assert "the caller may not pricing:GetProducts" in found.remarks[0]


@pytest.mark.parametrize(
    ("usd", "believed"),
    [("3.008", True), ("3.009", False), ("0.188", True), ("0.187", False)],  # 0.752 * 4, / 4
)
def test_jumps_above_four_times_are_not_believed(
    usd: str, believed: bool, cache: PriceCache
) -> None:
    listed = {**LISTED, "g4dn.2xlarge": [product(REGION, usd)]}
    found = priced(PlanPricing(listed), cache)
    assert found.prices["g4dn.2xlarge"].usd_per_hour == (float(usd) if believed else 0.752)
    assert found.prices["g6.2xlarge"].usd_per_hour == 0.9
    assert ((REGION, "g4dn.2xlarge") in cache.read()) == believed
    assert any("was not believed" in each for each in found.remarks) != believed


def test_kept_price_beyond_belief_is_not_taken(cache: PriceCache) -> None:
    wild = Price(usd_per_hour=0.01, date=TODAY, origin="AWS Price List, us-east-1")
    cache.add({(REGION, "g4dn.2xlarge"): wild})
    prices, remarks = known_prices([T4], REGION, cache)
    assert prices["g4dn.2xlarge"].usd_per_hour == 0.752
    assert "was not believed" in remarks[0]


@pytest.mark.parametrize(
    ("products", "n"),
    [
        ([], 0),
        ([product(REGION, "0.7"), product(REGION, "0.8")], 2),
        ([product(REGION, "0.7", unit="Quantity")], 0),
    ],
)
def test_anything_but_one_price_is_none(products: Sequence[dict[str, Any]], n: int) -> None:
    clients = clients_with(PlanPricing({"g4dn.2xlarge": products}))
    with pytest.raises(ClusterError, match=f"names {n} prices of g4dn.2xlarge in us-east-1"):
        on_demand_usd_per_hour(clients, "g4dn.2xlarge")


def test_capacity_paid_for_beforehand_is_no_price() -> None:
    listed = {"p5.48xlarge": [product(REGION, "0.0000"), product(REGION, "55.04")]}
    assert on_demand_usd_per_hour(clients_with(PlanPricing(listed)), "p5.48xlarge") == 55.04


def test_regions_are_those_with_a_price() -> None:
    products = [product("us-west-2", "1"), product("eu-west-1", "1"), product("sa-east-1", "0")]
    clients = clients_with(PlanPricing({"g6.2xlarge": products}))
    assert regions_with(clients, "g6.2xlarge") == ("eu-west-1", "us-west-2")


def test_type_without_a_price_does_not_keep_others_from_theirs(cache: PriceCache) -> None:
    found = priced(PlanPricing({"g6.2xlarge": LISTED["g6.2xlarge"]}), cache)
    assert found.prices["g4dn.2xlarge"].usd_per_hour == 0.752
    assert found.prices["g6.2xlarge"].usd_per_hour == 0.9
    assert "names 0 prices of g4dn.2xlarge" in found.remarks[0]


def test_price_of_another_region_says_so(cache: PriceCache) -> None:
    prices, _ = known_prices([T4], "eu-west-1", cache)
    assert prices["g4dn.2xlarge"].origin.startswith("price of us-east-1: ")


def test_newer_row_of_the_catalogue_goes_before_an_older_kept_price(cache: PriceCache) -> None:
    old = Price(usd_per_hour=0.75, date=dt.date(2026, 11, 1), origin="AWS Price List, us-east-1")
    cache.add({(REGION, "g4dn.2xlarge"): old, ("eu-west-1", "g4dn.2xlarge"): old})
    assert known_prices([T4], REGION, cache)[0]["g4dn.2xlarge"].usd_per_hour == 0.752
    assert known_prices([T4], "eu-west-1", cache)[0]["g4dn.2xlarge"] == old


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"version": 2, "records": []}',
        '{"version": 1, "records": [{"region": "a"}]}',
    ],
)
def test_damaged_cache_costs_a_remark_and_is_mended(text: str, cache: PriceCache) -> None:
    cache.path.parent.mkdir()
    cache.path.write_text(text)
    found = priced(PlanPricing(LISTED), cache)
    assert found.prices["g4dn.2xlarge"].usd_per_hour == 0.7
    assert "cannot be read as a cache" in found.remarks[0]
    assert len(cache.read()) == 2


@pytest.mark.parametrize("usd", [0, -1, "nan", "inf"])
def test_cache_with_a_price_that_cannot_be_is_damaged(usd: float | str, cache: PriceCache) -> None:
    record = {
        "region": REGION,
        "instance_type": "g4dn.2xlarge",
        "usd_per_hour": usd,
        "date": "2026-12-01",
        "origin": "",
    }
    cache.path.parent.mkdir()
    cache.path.write_text(json.dumps({"version": 1, "records": [record]}))
    with pytest.raises(InputError, match="delete it"):
        cache.read()


def test_cache_that_cannot_be_written_costs_a_remark(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = priced(PlanPricing(LISTED), PriceCache(tmp_path / "file" / "prices.json"))
    assert found.prices["g4dn.2xlarge"].usd_per_hour == 0.7
    assert any("cannot be written" in each for each in found.remarks)


def test_cache_keeps_what_it_had_and_leaves_no_other_file(cache: PriceCache) -> None:
    price = Price(usd_per_hour=1.0, date=TODAY, origin="somebody")
    cache.add({("a", "x"): price})
    cache.add({("b", "y"): replace(price, usd_per_hour=2.0)})
    assert {key: each.usd_per_hour for key, each in cache.read().items()} == {
        ("a", "x"): 1.0,
        ("b", "y"): 2.0,
    }
    assert [each.name for each in cache.path.parent.iterdir()] == ["prices.json"]
    assert stat.S_IMODE(cache.path.stat().st_mode) == 0o600


def test_cache_is_where_xdg_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert UserCache.of_user().prices.path == tmp_path / "falcon_ray" / "prices.json"
    monkeypatch.setenv("HOME", "/home/somebody")
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert UserCache.of_user().directory == Path("/home/somebody/.cache/falcon_ray")


ON_DEMAND = Price(usd_per_hour=0.752, date=TODAY, origin="AWS Price List, us-east-1")


def history(*entries: tuple[str, str, int]) -> Stubborn:
    """Entries are (zone, price, hours ago), each on a page of its own."""
    pages = [
        {
            "SpotPriceHistory": [
                {
                    "AvailabilityZone": zone,
                    "SpotPrice": usd,
                    "Timestamp": NOW - dt.timedelta(hours=hours),
                }
            ]
        }
        for zone, usd, hours in entries
    ]
    return Stubborn(None, "describe_spot_price_history", pages)


def spot(ec2: object) -> tuple[Price, str | None]:
    clients = clients_with(PlanPricing(), ec2=ec2)
    zones = ("us-east-1a", "us-east-1b")
    return spot_price("g4dn.2xlarge", zones, ON_DEMAND, clients=clients, now=NOW)


def test_spot_price_is_the_newest_in_the_dearest_usable_zone() -> None:
    ec2 = history(
        ("us-east-1a", "0.30", 1),
        ("us-east-1a", "0.50", 9),  # older
        ("us-east-1b", "0.28", 1),
        ("us-east-1f", "0.60", 1),  # not usable
    )
    price = Price(usd_per_hour=0.30, date=TODAY, origin="spot price history")
    assert spot(ec2) == (price, None)


@pytest.mark.parametrize("entries", [(), [("us-east-1f", "0.3", 1)], [("us-east-1a", "3.1", 1)]])
def test_without_a_spot_price_to_believe_on_demand_is_taken(
    entries: Sequence[tuple[str, str, int]],
) -> None:
    price, remark = spot(history(*entries))  # 3.1 > 4 * 0.752
    assert price == ON_DEMAND
    assert remark is not None
