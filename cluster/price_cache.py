"""Prices that were looked up before, in the user's cache directory, each with its date and origin.

The module keeps and reads. It does not know whether a price is believable, or how old is too old.
"""

import contextlib
import datetime as dt
import json
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.planned import Price
from falcon_ray.errors import InputError

_VERSION = 1


def default_path() -> Path:
    """prices.json of falcon_ray in the user's cache directory."""
    # The XDG base directory specification calls a relative path invalid.
    given = Path(os.environ.get("XDG_CACHE_HOME") or "")
    cache = given if given.is_absolute() else Path.home() / ".cache"
    return cache / "falcon_ray" / "prices.json"


@dataclass(frozen=True, slots=True)
class PriceCache:
    """On-demand prices by (region, instance type), in one JSON file.

    Attributes:
        path: Of the file; neither it nor its directory need exist.
    """

    path: Path

    def read(self) -> Mapping[tuple[str, str], Price]:
        """All prices; none where there is no file.

        Raises:
            InputError: The file is damaged.
        """
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            return _prices(content)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{self.path} holds no prices that can be read ({error}); delete it"
            ) from None

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
            for (region, instance_type), price in sorted(kept.items())
        ]
        text = json.dumps({"version": _VERSION, "prices": records}, indent=1) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _replace(self.path, text)
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be written: {error.strerror}; set XDG_CACHE_HOME to a "
                "directory that can"
            ) from None


def _prices(content: Mapping[str, Any]) -> dict[tuple[str, str], Price]:
    if content["version"] != _VERSION:
        raise ValueError(f"version {content['version']!r}")
    return {(each["region"], each["instance_type"]): _price(each) for each in content["prices"]}


def _price(record: Mapping[str, Any]) -> Price:
    usd = float(record["usd_per_hour"])
    if not (math.isfinite(usd) and usd > 0):
        raise ValueError(f"usd_per_hour {usd!r}")
    return Price(
        usd_per_hour=usd,
        date=dt.date.fromisoformat(record["date"]),
        origin=str(record["origin"]),
    )


def _replace(path: Path, text: str) -> None:
    """By way of a file beside it, so that no reader and no kill ever sees half of one."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
