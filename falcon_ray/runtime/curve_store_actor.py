"""The actor that holds a cluster's profile; `curve_store.py` makes it and speaks to it.

It merges, hands out and writes profiles as wholes. It does not know what their rows mean, who
asks, or how Ray places and restarts it.
"""

import asyncio
import logging

import ray
from ray.actor import exit_actor

from falcon_ray.errors import InputError
from falcon_ray.knowledge.profile.files import (
    append_profile,
    check_writable,
    complete_sources,
    read_manifest,
    read_profile,
)
from falcon_ray.knowledge.profile.profile import Profile
from falcon_ray.runtime.metrics import STORE_BYTES, STORE_ROWS, ClusterMetrics
from falcon_ray.runtime.ray_metrics import RayMetrics

logger = logging.getLogger(__name__)

FLUSH_ROWS = 10_000
"""So many rows in memory alone are written at once."""

REFRESH_S = 5.0
"""How old what is known of the location may be."""


class CurveStore:
    """The actor behind `CurveStoreClient`; every method may be called again to no effect.

    Args:
        location: Of the profile.
        flush_s: Longest time that what was added stays in memory alone.
    """

    def __init__(self, location: str, flush_s: float) -> None:
        self._location = location
        self._flush_s = flush_s
        self._stored = Profile.empty()
        self._added = Profile.empty()
        self._handed: tuple[str, ray.ObjectRef] | None = None
        self._refreshed_at = 0.0
        self._timer: asyncio.Task[None] | None = None
        self._handing, self._writing = asyncio.Lock(), asyncio.Lock()
        self._metrics = ClusterMetrics(RayMetrics((STORE_ROWS, STORE_BYTES)))
        self._problem = self._open()
        self._tell_size()

    def _tell_size(self) -> None:
        parts = (*self._stored.parts, *self._added.parts)
        self._metrics.store_holds(
            n_rows=sum(each.rows.num_rows for each in parts),
            n_bytes=sum(each.rows.nbytes for each in parts),
        )

    def _open(self) -> str | None:
        """Read the location; what is wrong with it, where something is.

        An error raised here would end the actor and hide its reason in Ray's.
        """
        try:
            check_writable(self._location)
            self._stored = read_profile(self._location, missing_ok=True)
        except InputError as error:
            return str(error)
        return None

    async def opened(self) -> tuple[str, str | None]:
        """The location, and what is wrong with it."""
        return self._location, self._problem

    async def version(self) -> str:
        """Version of what the store holds, on disk or not yet."""
        await self._refresh()
        return self._stored.merged(self._added).version

    async def profile(self) -> tuple[str, list[ray.ObjectRef]]:
        """The version, and a reference to the profile (in a list: Ray would resolve it)."""
        await self._refresh()
        async with self._handing:
            profile = self._stored.merged(self._added)
            if self._handed is None or self._handed[0] != profile.version:
                merged = await asyncio.to_thread(profile.consolidated)
                self._handed = (profile.version, ray.put(merged))
            version, reference = self._handed
        return version, [reference]

    async def add(self, profile: Profile) -> str:
        """Take in parts, to be written soon; the version with them."""
        self._check_opened()
        known = {**self._stored.sources, **self._added.sources}
        sources = complete_sources(profile, known, where=self._location)
        self._added = self._added.merged(Profile(profile.parts, sources))
        self._tell_size()
        if sum(part.rows.num_rows for part in self._added.parts) >= FLUSH_ROWS:
            await self.flush()
        elif self._timer is None or self._timer.done():
            self._timer = asyncio.create_task(self._flush_later())
        return self._stored.merged(self._added).version

    async def flush(self) -> str:
        """Write what is in memory alone; the version on disk."""
        self._check_opened()
        async with self._writing:
            added = self._added
            if added.parts:
                await asyncio.to_thread(append_profile, self._location, added)
                self._stored = self._stored.merged(added)
                self._added = Profile(
                    tuple(part for part in self._added.parts if part not in added.parts),
                    self._added.sources,
                )
        return self._stored.version

    async def end(self) -> None:
        """Flush, and end the actor for good."""
        if self._problem is None:
            await self.flush()
        exit_actor()

    async def _flush_later(self) -> None:
        while self._added.parts:
            await asyncio.sleep(self._flush_s)
            try:
                await self.flush()
            except InputError as error:
                logger.warning("the curve store keeps %d parts: %s", len(self._added.parts), error)

    async def _refresh(self) -> None:
        """See what others wrote to the location, `falcon-ray store import` for one."""
        self._check_opened()
        now = asyncio.get_running_loop().time()
        if now - self._refreshed_at < REFRESH_S:
            return
        self._refreshed_at = now
        manifest = await asyncio.to_thread(read_manifest, self._location, missing_ok=True)
        held = {(part.table, each) for part in self._stored.parts for each in part.contents}
        if not manifest.contents <= held:
            stored = await asyncio.to_thread(read_profile, self._location, missing_ok=True)
            self._stored = self._stored.merged(stored)
            self._tell_size()

    def _check_opened(self) -> None:
        """A store that came back to a broken location tries it again at every call."""
        if self._problem is not None:
            self._problem = self._open()
        if self._problem is not None:
            raise InputError(self._problem)
