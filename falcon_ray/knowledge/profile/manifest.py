"""The manifest of a profile: which files it consists of, and where their rows come from.

It knows names, hashes and sources. It reads and writes no file (`files.py` does) and does
not know what a row means.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, cast

from falcon_ray.errors import InputError
from falcon_ray.knowledge.profile.schemas import TABLES

SCHEMA_VERSION = (1, 0)
"""Major and minor version of what this falcon_ray writes: a newer major is refused, a newer minor
is read as far as it is known."""

OWN_SOURCE = "own"
"""Key of the source of what was measured here; a profile knows it without being told."""

UNITS: Mapping[str, str] = MappingProxyType(
    {
        "latency_us": "microseconds, median of one call",
        "relative_sd": "1, standard deviation of that median over the median",
        "share": "1, part of the compute units",
        "flops": "floating-point operations of one call",
        "bytes": "bytes read and written by one call",
        "peak_memory_bytes": "bytes",
        "memory_bytes": "bytes",
        "bandwidth_bytes_per_s": "bytes per second",
        "peak_flops_per_s": "floating-point operations per second, dense",
        "values": "1, multiples of ideal time, or seconds where the predictor says so",
        "residual_sd": "1, of natural logarithms",
    }
)
"""Units of the columns that have one."""

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where rows come from, and what may be done with them.

    Attributes:
        url: Of the origin; "" for one's own measurements.
        commit: Of a repository, or another version; "" where there is none.
        licence: An SPDX name, or words.
        date: ISO date of when the rows were measured or fetched.
        description: One line for people.
        sha256: Of the original file; None where there is none.

    Raises:
        InputError: There is no licence, or the date is none.
    """

    licence: str
    date: str
    description: str
    url: str = ""
    commit: str = ""
    sha256: str | None = None

    def __post_init__(self) -> None:
        if not self.licence or not _DATE.fullmatch(self.date):
            raise InputError(
                f"a source needs a licence and a date such as 2026-01-31, got {self.licence!r} "
                f"and {self.date!r}"
            )

    @classmethod
    def own(cls, date: str) -> "Source":
        """One's own measurements, first taken on an ISO date."""
        return cls(licence="own measurement", date=date, description="measured by falcon_ray")

    def to_json(self) -> dict[str, str | None]:
        """The source as plain JSON values."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Source":
        """Read what `to_json` wrote; unknown keys are ignored.

        Raises:
            InputError: A required key is missing or no text.
        """
        known = {each.name: record[each.name] for each in fields(cls) if each.name in record}
        sha256 = known.pop("sha256", None)
        if not {"licence", "date", "description"} <= set(known) or not all(
            isinstance(each, str) for each in (*known.values(), sha256 or "")
        ):
            raise InputError(f"a source needs licence, date and description, got {dict(record)}")
        return cls(**known, sha256=sha256)


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive rows of a file that were added together.

    Attributes:
        contents: Hashes of the contents in them; several where these were merged into one.
        rows: How many rows there are.
        added: ISO date and time in UTC of when they were added; "" where nobody knows.
        is_merged: Whether no key occurs twice in them, so that they need not be merged again.
    """

    contents: tuple[str, ...]
    rows: int
    added: str = ""
    is_merged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PartFile:
    """One file of a profile.

    Attributes:
        file: Path relative to the manifest, e.g. `parts/operators-<hash>.parquet`.
        table: Name of the table that its rows belong to.
        sha256: Of the file.
        bytes: Its length.
        segments: What its rows are, in order.
    """

    file: str
    table: str
    sha256: str
    bytes: int
    segments: tuple[Segment, ...]

    @property
    def rows(self) -> int:
        """Rows in the file."""
        return sum(each.rows for each in self.segments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a profile on disk consists of.

    Attributes:
        schema_version: Major and minor.
        sources: By the key that rows name them by.
        parts: The files.
    """

    schema_version: tuple[int, int]
    sources: Mapping[str, Source]
    parts: tuple[PartFile, ...]

    @classmethod
    def empty(cls) -> "Manifest":
        """Of a profile without rows."""
        return cls(schema_version=SCHEMA_VERSION, sources={}, parts=())

    @property
    def contents(self) -> frozenset[tuple[str, str]]:
        """Table and hash of every content in it."""
        return frozenset(
            (part.table, content)
            for part in self.parts
            for segment in part.segments
            for content in segment.contents
        )

    def to_text(self) -> str:
        """The manifest as JSON."""
        major, minor = self.schema_version
        record = {
            "schema_version": f"{major}.{minor}",
            "sources": {key: self.sources[key].to_json() for key in sorted(self.sources)},
            "units": dict(UNITS),
            "parts": [
                {
                    "file": part.file,
                    "table": part.table,
                    "sha256": part.sha256,
                    "rows": part.rows,
                    "bytes": part.bytes,
                    "segments": [
                        {
                            "contents": list(each.contents),
                            "rows": each.rows,
                            "added": each.added,
                            "is_merged": each.is_merged,
                        }
                        for each in part.segments
                    ],
                }
                for part in self.parts
            ],
        }
        return json.dumps(record, indent=1) + "\n"

    @classmethod
    def from_text(cls, text: str, where: str) -> "Manifest":
        """Read what `to_text` wrote; unknown keys, tables and a newer minor version are ignored.

        Args:
            text: JSON.
            where: Path of the file, for messages.

        Raises:
            InputError: It was written by a newer falcon_ray, or is no manifest.
        """
        try:
            record: Any = json.loads(text)
            version = _version(record["schema_version"])
            if version[0] > SCHEMA_VERSION[0]:
                raise InputError(
                    f"{where} was written by a newer falcon_ray (schema "
                    f"{record['schema_version']}; this one reads {SCHEMA_VERSION[0]}.x); "
                    "upgrade falcon_ray"
                )
            sources = {key: _source(each) for key, each in record["sources"].items()}
            parts = tuple(_part_file(each) for each in record["parts"] if each["table"] in TABLES)
        except (AttributeError, KeyError, TypeError, json.JSONDecodeError, _NotAManifestError) as e:
            raise InputError(
                f"{where} is no manifest of a profile ({type(e).__name__}: {e}); restore it from "
                "a copy, or choose another directory"
            ) from None
        return cls(schema_version=version, sources=sources, parts=parts)


def newest_sources(several: Iterable[Mapping[str, Source]]) -> dict[str, Source]:
    """All sources of several profiles; of two with one key the later one, whatever the order."""
    newest: dict[str, Source] = {}
    for sources in several:
        for key, source in sources.items():
            held = newest.get(key)
            if held is None or _age(held) < _age(source):
                newest[key] = source
    return newest


def _age(source: Source) -> tuple[str, ...]:
    return (source.date, *(str(each) for each in source.to_json().values()))


class _NotAManifestError(Exception):
    """A value in the manifest is none that a manifest has."""


def _version(text: object) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)\.(\d+)", text) if isinstance(text, str) else None
    if match is None:
        raise _NotAManifestError(f"schema_version {text!r}")
    return int(match[1]), int(match[2])


def _source(record: Mapping[str, Any]) -> Source:
    try:
        return Source.from_json(record)
    except InputError as error:
        raise _NotAManifestError(str(error)) from None


def _part_file(record: Mapping[str, Any]) -> PartFile:
    file, rows, length = record["file"], record["rows"], record["bytes"]
    # Names are read from the file and joined to its directory: none may lead out of it.
    if not (isinstance(file, str) and re.fullmatch(r"parts/[\w.-]+\.parquet", file)):
        raise _NotAManifestError(f"part {file!r}")
    segments = tuple(
        Segment(
            tuple(cast("list[str]", each["contents"])),
            int(each["rows"]),
            added=str(each.get("added", "")),
            is_merged=bool(each.get("is_merged", False)),
        )
        for each in record["segments"]
    )
    part = PartFile(
        file=file,
        table=record["table"],
        sha256=record["sha256"],
        bytes=length,
        segments=segments,
    )
    if part.rows != rows or any(each.rows < 0 or not each.contents for each in segments):
        raise _NotAManifestError(f"the rows of {file}")
    return part
