"""Which price is believed: today's, one that was looked up before, or the catalogue's own.

A price never fails a plan: where AWS does not say, an older one holds, and its date and origin
say so. The module does not know how many machines there are.
"""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cluster.clients import Clients
from cluster.planned import Price
from cluster.price_cache import PriceCache
from cluster.price_list import on_demand_usd_per_hour, spot_usd_per_hour
from falcon_ray.errors import ClusterError, InputError
from falcon_ray.space.catalogue import Instance

_FRESH = dt.timedelta(days=1)
# Prices were cut to about half in a single step before; a factor of four is a mistake.
_LARGEST_JUMP = 4.0


@dataclass(frozen=True, slots=True)
class Priced:
    """Prices by instance type.

    Attributes:
        prices: On demand, one for every type that was asked for.
        remarks: Why a price is not today's, where one is not.
    """

    prices: Mapping[str, Price]
    remarks: tuple[str, ...]


def known_prices(
    instances: Sequence[Instance], region: str, cache: PriceCache
) -> tuple[dict[str, Price], list[str]]:
    """The newest prices known without asking anybody, and what is wrong with the cache."""
    remarks: list[str] = []
    try:
        cached = cache.read()
    except InputError as error:
        cached, remarks = {}, [str(error)]
    prices: dict[str, Price] = {}
    for each in instances:
        shipped = _shipped(each, region)
        found = cached.get((region, each.instance_type))
        prices[each.instance_type] = shipped
        if found is None or (each.region == region and found.date < shipped.date):
            continue
        if jump := _jump(found.usd_per_hour, shipped):
            remarks.append(f"{each.instance_type}, as kept in {cache.path}: {jump}")
            continue
        prices[each.instance_type] = found
    return prices, remarks


def on_demand_prices(
    instances: Sequence[Instance],
    clients: Clients,
    *,
    cache: PriceCache,
    now: dt.datetime,
    refresh: bool = False,
) -> Priced:
    """The best prices that can be had now; new ones are kept in the cache.

    Args:
        instances: Rows of the catalogue.
        clients: Of the region.
        cache: Where prices of the last day are found, and older ones if nobody answers.
        now: With its time zone.
        refresh: Ask for all, however new the cached ones are.
    """
    region = clients.region
    prices, remarks = known_prices(instances, region, cache)
    today = now.astimezone(dt.UTC).date()
    asked = [
        each.instance_type
        for each in instances
        if refresh or not _is_fresh(prices[each.instance_type], region, today)
    ]
    new: dict[str, Price] = {}
    for name in asked:
        try:
            usd = on_demand_usd_per_hour(clients, name)
        except ClusterError as error:
            remarks.append(f"{error}; older prices hold")
            if error.__cause__ is not None:
                break  # nobody answers, so the others need not be asked
            continue
        if jump := _jump(usd, prices[name]):
            remarks.append(f"{name}: {jump}; correct its row in data/instances.csv if it is right")
            continue
        new[name] = Price(usd_per_hour=usd, date=today, origin=f"AWS Price List, {region}")
    if new:
        try:
            cache.add({(region, name): price for name, price in new.items()})
        except InputError as error:
            remarks.append(str(error))
    return Priced(prices | new, tuple(remarks))


def spot_price(
    instance_type: str,
    zones: Iterable[str],
    on_demand: Price,
    *,
    clients: Clients,
    now: dt.datetime,
) -> tuple[Price, str | None]:
    """Today's spot price in the dearest of some zones, and a remark where it is not known.

    Where it is not, or is beyond belief, the price on demand stands for it: without a price
    limit of ours nobody pays more for spot.
    """
    try:
        history = spot_usd_per_hour(clients, instance_type, now)
    except ClusterError as error:
        return on_demand, f"{error}; the price on demand is taken instead"
    found = [usd for zone, usd in history.items() if zone in set(zones) and usd > 0]
    if not found:
        return on_demand, f"{instance_type} has no spot price in these zones; on demand is taken"
    if max(found) > _LARGEST_JUMP * on_demand.usd_per_hour:
        return on_demand, (
            f"{instance_type}: a spot price of {max(found):g} USD/h is more than "
            f"{_LARGEST_JUMP:g} times the one on demand and was not believed"
        )
    today = now.astimezone(dt.UTC).date()
    return Price(usd_per_hour=max(found), date=today, origin="spot price history"), None


def _shipped(instance: Instance, region: str) -> Price:
    elsewhere = "" if instance.region == region else f"price of {instance.region}: "
    return Price(
        usd_per_hour=instance.usd_per_hour,
        date=instance.price_date or dt.date.min,
        origin=f"{elsewhere}{instance.price_source}",
    )


def _is_fresh(price: Price, region: str, today: dt.date) -> bool:
    return price.origin == f"AWS Price List, {region}" and today - price.date < _FRESH


def _jump(usd: float, before: Price) -> str | None:
    ratio = usd / before.usd_per_hour
    if 1 / _LARGEST_JUMP <= ratio <= _LARGEST_JUMP:
        return None
    return (
        f"a price of {usd:g} USD/h is {ratio:.2g} times that of {before.date} "
        f"({before.usd_per_hour:g} USD/h) and was not believed"
    )
