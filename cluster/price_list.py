"""What AWS itself says an instance costs: the Price List on demand, the history of spot prices.

The module asks and reads answers. It does not judge them, keep them, or know what to do when
nobody answers.
"""

import datetime as dt
import json
from collections.abc import Iterator, Mapping
from typing import Any

from cluster.aws_errors import calling
from cluster.clients import Clients
from falcon_ray.errors import ClusterError

# Of the products of one instance type, the one that an ordinary Linux machine is billed as.
_PLAIN_LINUX = {
    "operatingSystem": "Linux",
    "preInstalledSw": "NA",
    "tenancy": "Shared",
    "capacitystatus": "Used",
}


def on_demand_usd_per_hour(clients: Clients, instance_type: str) -> float:
    """What an hour of an instance costs in the clients' region, by the Price List.

    Raises:
        ClusterError: The Price List cannot be asked, or does not name exactly one price.
    """
    products = _products(clients, {"instanceType": instance_type, "regionCode": clients.region})
    found = sorted({usd for product in products for usd in _hourly_prices(product)})
    if len(found) != 1:
        raise ClusterError(
            f"the Price List names {len(found)} prices of {instance_type} in "
            f"{clients.region}, not one"
        )
    return found[0]


def regions_with(clients: Clients, instance_type: str) -> tuple[str, ...]:
    """The regions in which the Price List sells an instance type by the hour.

    Raises:
        ClusterError: The Price List cannot be asked.
    """
    products = _products(clients, {"instanceType": instance_type})
    return tuple(
        sorted({each["product"]["attributes"]["regionCode"] for each in products if _sold(each)})
    )


def spot_usd_per_hour(
    clients: Clients, instance_type: str, now: dt.datetime
) -> Mapping[str, float]:
    """Today's spot price of an instance by availability zone; empty where there is none.

    Raises:
        ClusterError: The history cannot be asked.
    """
    latest: dict[str, tuple[dt.datetime, float]] = {}
    with calling(f"looking up spot prices of {instance_type}"):
        pages = clients.ec2.get_paginator("describe_spot_price_history").paginate(
            InstanceTypes=[instance_type],
            ProductDescriptions=["Linux/UNIX"],
            StartTime=now,
            EndTime=now,
        )
        for page in pages:
            for each in page["SpotPriceHistory"]:
                zone = each["AvailabilityZone"]
                entry = (each["Timestamp"], float(each["SpotPrice"]))
                latest[zone] = max(latest.get(zone, entry), entry)
    return {zone: usd for zone, (_, usd) in sorted(latest.items())}


def _products(clients: Clients, wanted: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
    filters = [
        {"Type": "TERM_MATCH", "Field": field, "Value": value}
        for field, value in (_PLAIN_LINUX | dict(wanted)).items()
    ]
    with calling("asking the Price List"):
        pages = clients.pricing.get_paginator("get_products").paginate(
            ServiceCode="AmazonEC2", Filters=filters
        )
        for page in pages:
            for text in page["PriceList"]:
                yield json.loads(text)


def _hourly_prices(product: Mapping[str, Any]) -> Iterator[float]:
    """Those that are not zero: capacity that was paid for beforehand is listed at nothing."""
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in term["priceDimensions"].values():
            usd = float(dimension["pricePerUnit"].get("USD", 0))
            if usd > 0 and dimension["unit"] == "Hrs":
                yield usd


def _sold(product: Mapping[str, Any]) -> bool:
    return "regionCode" in product["product"]["attributes"] and any(_hourly_prices(product))
