"""All that was looked up before and may be used again, in one directory of the user's cache."""

from dataclasses import dataclass
from pathlib import Path

from cluster import hardware, price_cache
from cluster.cache_file import default_directory
from cluster.hardware import HardwareCache
from cluster.price_cache import PriceCache


@dataclass(frozen=True, slots=True)
class UserCache:
    """Files in one directory.

    Attributes:
        directory: Need not exist.
    """

    directory: Path

    @classmethod
    def of_user(cls) -> "UserCache":
        """That of whoever runs us."""
        return cls(default_directory())

    @property
    def prices(self) -> PriceCache:
        """Prices on demand."""
        return PriceCache(self.directory / price_cache.FILE_NAME)

    @property
    def hardware(self) -> HardwareCache:
        """What instance types are made of."""
        return HardwareCache(self.directory / hardware.FILE_NAME)
