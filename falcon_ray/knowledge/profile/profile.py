"""A profile: what is known of operators, models and devices, in the five tables of `schemas`.

It is made of parts that were added at some time. Parts are known by the hash of their content,
so that one that arrives twice counts once, and rows are merged only when a table is asked for.
The module reads and writes nothing; `files.py` does.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa

from falcon_ray.knowledge.constants import Constants
from falcon_ray.knowledge.device import Device
from falcon_ray.knowledge.profile.manifest import Source, newest_sources
from falcon_ray.knowledge.profile.merge import merged_rows
from falcon_ray.knowledge.profile.schemas import TABLES
from falcon_ray.knowledge.profile.tables import checked_table, content_hash, device_of_row

VERSION_LENGTH = 16


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Rows of one table that were added together.

    Attributes:
        table: Its name.
        contents: Hashes of the contents in it; several where contents were merged into one.
        rows: Checked rows.
        added: ISO date and time in UTC of when they were added; "" where nobody knows.
        is_merged: Whether no key occurs twice, so that nothing is left to merge.
    """

    table: str
    contents: tuple[str, ...]
    rows: pa.Table
    added: str = ""
    is_merged: bool = False


@dataclass(frozen=True, eq=False)
class Profile:
    """Parts of a profile and the sources that their rows name; immutable.

    Attributes:
        parts: In no particular order, no content twice; `merged` sees to that.
        sources: By the key that rows name them by.
    """

    parts: tuple[Part, ...] = ()
    sources: Mapping[str, Source] = field(default_factory=dict[str, Source])

    @classmethod
    def empty(cls) -> "Profile":
        """A profile that knows nothing."""
        return cls()

    @classmethod
    def of_tables(
        cls,
        tables: Mapping[str, pa.Table],
        sources: Mapping[str, Source] | None = None,
        *,
        where: str = "the rows given",
    ) -> "Profile":
        """A profile of one part per table.

        Args:
            tables: Rows by the name of their table.
            sources: Those that the rows name.
            where: Where the tables come from, for messages.

        Raises:
            InputError: A table does not fit its schema.
        """
        parts: list[Part] = []
        for name, table in tables.items():
            rows = checked_table(name, table, where)
            if rows.num_rows:
                parts.append(Part(name, (content_hash(name, rows),), rows))
        return cls(tuple(parts), dict(sources or {}))

    def merged(self, *others: "Profile") -> "Profile":
        """This profile and others as one; their order does not matter.

        What several of them hold counts once. The exception: of two consolidated profiles that
        share some of their contents, but not all, the shared ones count twice, for they cannot be
        told apart any more. Profiles at a location are never in that state unless one was
        written so.
        """
        several = (self, *others)
        parts = [part for profile in several for part in profile.parts]
        kept: list[Part] = []
        held: set[tuple[str, str]] = set()
        for part in sorted(parts, key=lambda each: (-len(each.contents), each.contents)):
            contents = {(part.table, content) for content in part.contents}
            if not contents <= held:
                kept.append(part)
                held |= contents
        return Profile(tuple(kept), newest_sources(each.sources for each in several))

    def consolidated(self) -> "Profile":
        """The same knowledge with every table merged into one part, so that readers need not."""
        parts: list[Part] = []
        for name in TABLES:
            own = [part for part in self.parts if part.table == name]
            if own:
                contents = {each for part in own for each in part.contents}
                added = max(part.added for part in own)
                rows = self.table(name).combine_chunks()
                parts.append(Part(name, tuple(sorted(contents)), rows, added, is_merged=True))
        return Profile(tuple(parts), self.sources)

    @cached_property
    def version(self) -> str:
        """Short hash of what the profile holds: equal where the contents are."""
        contents = {f"{part.table} {content}" for part in self.parts for content in part.contents}
        return hashlib.sha256("\n".join(sorted(contents)).encode()).hexdigest()[:VERSION_LENGTH]

    @property
    def is_empty(self) -> bool:
        """Whether it has no rows at all."""
        return not any(part.rows.num_rows for part in self.parts)

    def table(self, name: str) -> pa.Table:
        """Merged rows of one of `schemas.TABLES`, one per key.

        `relative_sd` is positive and finite, whatever was measured.
        """
        if name not in self._tables:
            self._tables[name] = self._merged(name)
        return self._tables[name]

    @property
    def operators(self) -> pa.Table:
        """Measured times of operators: `schemas.OPERATORS`."""
        return self.table("operators")

    @property
    def models(self) -> pa.Table:
        """Measured times of whole models: `schemas.MODELS`."""
        return self.table("models")

    @property
    def environments(self) -> pa.Table:
        """Software and machines that measurements name: `schemas.ENVIRONMENTS`."""
        return self.table("environments")

    def devices(self) -> tuple[Device, ...]:
        """Facts of devices that the profile brings, by name; the catalogue has those of GPUs."""
        return tuple(device_of_row(row) for row in self.table("devices").to_pylist())

    def device(self, name: str) -> Device | None:
        """Facts of one device, or None where the profile has none."""
        return next((each for each in self.devices() if each.name == name), None)

    def constants(self, predictor: str | None = None) -> tuple[Constants, ...]:
        """Fitted constants by predictor, device, dtype, mode, threads and share.

        Args:
            predictor: Whose constants; None for all.
        """
        rows = self.table("constants").to_pylist()
        return tuple(
            Constants.from_row(row)
            for row in rows
            if predictor is None or row["predictor"] == predictor
        )

    def named_sources(self) -> frozenset[str]:
        """Keys of the sources that rows name; facts of devices say theirs in words."""
        return frozenset(
            str(key)
            for part in self.parts
            if part.table in ("operators", "models", "constants")
            for key in part.rows.column("source").unique().to_pylist()
        )

    @cached_property
    def _tables(self) -> dict[str, pa.Table]:
        return {}

    def _merged(self, name: str) -> pa.Table:
        parts = [part for part in self.parts if part.table == name]
        if not parts:
            return TABLES[name].empty_table()
        if len(parts) == 1 and parts[0].is_merged:
            return parts[0].rows
        parts.sort(key=lambda part: part.contents)
        return merged_rows(name, pa.concat_tables([part.rows for part in parts]), self.sources)

    def __reduce__(self) -> tuple[object, ...]:
        return Profile, (self.parts, dict(self.sources))
