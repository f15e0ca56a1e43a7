"""Prices that were looked up before, each with its date and origin.

The module keeps and reads. It does not know whether a price is believable, or how old is too old.
"""

import contextlib
import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import cache_file
from cluster.planned import Price
from falcon_ray.errors import InputError

FILE_NAME = "prices.json"


@dataclass(frozen=True, slots=True)
class PriceCache:
    """On-demand prices by (region, instance type), in one file.

    Attributes:
        path: Of the file; neither it nor its directory need exist.
    """

    path: Path

    def read(self) -> Mapping[tuple[str, str], Price]:
        """All prices; none where there is no file.

        Raises:
            InputError: The file is damaged.
        """
        return dict(cache_file.read(self.path, _price))

    def add(self, prices: Mapping[tuple[str, str], Price]) -> None:
        """Keep these prices, and all others that are there; a damaged file is replaced.

        Raises:
            InputError: The file cannot be written.
        """
        kept: dict[tuple[str, str], Price] = {}
        with contextlib.suppress(InputError):
            kept.update(self.read())
        kept.update(prices)
        records = [
            {
                "region": region,
                "instance_type": instance_type,
                "usd_per_hour": price.usd_per_hour,
                "date": price.date.isoformat(),
                "origin": price.origin,
            }
            for (region, instance_type), price in sorted(kept.items(), key=lambda each: each[0])
        ]
        cache_file.write(self.path, records)


def _price(record: Mapping[str, Any]) -> tuple[tuple[str, str], Price]:
    usd = float(record["usd_per_hour"])
    if not (math.isfinite(usd) and usd > 0):
        raise ValueError(f"usd_per_hour {usd!r}")
    price = Price(
        usd_per_hour=usd,
        date=dt.date.fromisoformat(record["date"]),
        origin=str(record["origin"]),
    )
    return (str(record["region"]), str(record["instance_type"])), price
