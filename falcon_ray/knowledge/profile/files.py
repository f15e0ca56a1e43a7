"""Profiles on disk or in an object store: `manifest.json` and append-only Parquet parts.

A location is a local path or a URI such as `s3://bucket/prefix`. Part files are written first and
the manifest last, each whole or not at all, so that a reader sees the profile before or after,
and a crash leaves no more than a file that no manifest names. Parts keep the hash of what was
added, also after `compact`: what arrives twice counts once. Nothing is pickled.
"""

import hashlib
import importlib.resources
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet

from falcon_ray.errors import InputError
from falcon_ray.knowledge.profile.directory import (
    CHECK_NAME,
    ProfileDirectory,
    explained,
    first_line,
    open_directory,
)
from falcon_ray.knowledge.profile.manifest import (
    OWN_SOURCE,
    SCHEMA_VERSION,
    Manifest,
    PartFile,
    Segment,
    Source,
    newest_sources,
)
from falcon_ray.knowledge.profile.profile import Part, Profile
from falcon_ray.knowledge.profile.schemas import TABLES
from falcon_ray.knowledge.profile.tables import checked_table

Location: TypeAlias = str | Path
Clock: TypeAlias = Callable[[], datetime]

MANIFEST_NAME = "manifest.json"
LOCATION_VARIABLE = "FALCON_RAY_PROFILE"

MAX_FILES = 32
"""Where additions made more files than these, they are brought into one per table."""

_PARQUET: Any = pyarrow.parquet  # its stubs leave half of the types open


def utc_now() -> datetime:
    """The time of day that parts are stamped with."""
    return datetime.now(UTC)


def default_location() -> str:
    """FALCON_RAY_PROFILE, else falcon_ray/profile in the user's cache directory."""
    if given := os.environ.get(LOCATION_VARIABLE):
        return given
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return str(Path(cache) / "falcon_ray" / "profile")


def packaged_profile() -> Profile:
    """The profile that comes with falcon_ray; empty where it has none.

    Raises:
        InputError: It is damaged.
    """
    return read_profile(packaged_location(), missing_ok=True)


def packaged_location() -> str:
    """Where the profile that comes with falcon_ray lies."""
    return str(importlib.resources.files("falcon_ray") / "data" / "profile")


def resolved_location(location: Location) -> str:
    """One name for one place: an absolute path without links, or the URI.

    Raises:
        InputError: It is no location.
    """
    return open_directory(location).name


def check_writable(location: Location) -> None:
    """Make sure that a profile can be written there, before anything is measured for it.

    Raises:
        InputError: It cannot, or what is there is damaged or of a newer version.
    """
    directory = open_directory(location)
    with explained(directory.name, "written"), directory.lock():
        _writable_manifest(directory)
        directory.write(CHECK_NAME, b"")
        directory.delete(CHECK_NAME)


def read_manifest(location: Location, *, missing_ok: bool = False) -> Manifest:
    """The manifest at a location (with `missing_ok`: an empty one where there is none).

    Raises:
        InputError: There is none, it is damaged, or it is of a newer version.
    """
    directory = open_directory(location)
    manifest = _manifest(directory)
    if manifest is None and not missing_ok:
        raise InputError(
            f"there is no profile at {directory.name} ({MANIFEST_NAME} is missing); measure one "
            "by falcon-ray profile, or name another location"
        )
    return manifest or Manifest.empty()


def read_profile(location: Location, *, missing_ok: bool = False) -> Profile:
    """The profile at a location (with `missing_ok`: an empty one where there is none).

    Raises:
        InputError: There is none, a file is missing or damaged, or it is of a newer version.
    """
    directory = open_directory(location)
    manifest = read_manifest(location, missing_ok=missing_ok)
    while True:
        try:
            return _profile(directory, manifest)
        except FileNotFoundError as error:
            # Another process may have compacted the profile since its manifest was read.
            again = read_manifest(location, missing_ok=missing_ok)
            if again.parts == manifest.parts:
                raise InputError(
                    f"the profile at {directory.name} lacks a file that its manifest names "
                    f"({Path(str(error.filename or error)).name}); restore it from a copy, or "
                    "measure again into a new location"
                ) from None
            manifest = again


def write_profile(location: Location, profile: Profile, *, clock: Clock = utc_now) -> Manifest:
    """Write a profile, in place of one that is there, with one file per table.

    Raises:
        InputError: The location cannot be written, or rows name an unknown source.
    """
    with _writing(location) as (directory, old):
        sources = complete_sources(profile, {}, where=directory.name, clock=clock)
        return _replace(directory, old, Profile(profile.parts, sources))


def append_part(
    location: Location,
    tables: Mapping[str, pa.Table],
    sources: Mapping[str, Source] | None = None,
    *,
    clock: Clock = utc_now,
) -> Manifest:
    """Add rows to the profile at a location, which is made where there is none; all or nothing.

    Rows measured here name the source `manifest.OWN_SOURCE`, which need not be given. Adding the
    same content again changes nothing.

    Args:
        location: Of the profile.
        tables: Rows by the name of their table, e.g. {"operators": ..., "environments": ...}.
        sources: Those that the rows name and the profile may not know yet.
        clock: Stamps the part.

    Raises:
        InputError: Rows do not fit their schema or name an unknown source, or the location
            cannot be read or written.
    """
    return append_profile(location, Profile.of_tables(tables, sources), clock=clock)


def append_profile(location: Location, profile: Profile, *, clock: Clock = utc_now) -> Manifest:
    """Add the parts of a profile to that at a location; see `append_part`."""
    with _writing(location) as (directory, old):
        sources = complete_sources(profile, old.sources, where=directory.name, clock=clock)
        stamp = clock().astimezone(UTC).isoformat(timespec="seconds")
        new = [
            replace(part, added=part.added or stamp)
            for part in profile.parts
            if not {(part.table, each) for each in part.contents} <= old.contents
        ]
        if not new and sources == old.sources:
            return old
        files = _write_parts(directory, new)
        manifest = Manifest(
            schema_version=SCHEMA_VERSION, sources=sources, parts=(*old.parts, *files)
        )
        directory.write(MANIFEST_NAME, manifest.to_text().encode())
        if len(manifest.parts) <= MAX_FILES:
            return manifest
        return _replace(directory, manifest, _profile(directory, manifest))


def compact(location: Location) -> Manifest:
    """Bring the many small files of a profile into one per table; nothing is lost.

    Raises:
        InputError: There is no profile, or it cannot be read or written.
    """
    read_manifest(location)
    with _writing(location) as (directory, old):
        return _replace(directory, old, _profile(directory, old))


def complete_sources(
    profile: Profile, known: Mapping[str, Source], *, where: str, clock: Clock = utc_now
) -> dict[str, Source]:
    """The sources known so far and those of a profile, among them all that its rows name.

    Raises:
        InputError: Rows name a source that neither has.
    """
    sources = newest_sources((profile.sources, known))
    named = profile.named_sources()
    if OWN_SOURCE in named and OWN_SOURCE not in sources:
        sources[OWN_SOURCE] = Source.own(clock().astimezone(UTC).date().isoformat())
    unknown = sorted(named - set(sources))
    if unknown:
        raise InputError(
            f"{where}: rows name the source {unknown[0]!r}, which is not given; say its URL, "
            "licence and date"
        )
    return sources


@contextmanager
def _writing(location: Location) -> Generator[tuple[ProfileDirectory, Manifest]]:
    """The locked directory of a location, and the manifest in it that may be replaced."""
    directory = open_directory(location)
    with explained(directory.name, "written"), directory.lock():
        yield directory, _writable_manifest(directory)


def _writable_manifest(directory: ProfileDirectory) -> Manifest:
    manifest = _manifest(directory) or Manifest.empty()
    if manifest.schema_version > SCHEMA_VERSION:
        major, minor = manifest.schema_version
        raise InputError(
            f"the profile at {directory.name} was written by a newer falcon_ray (schema "
            f"{major}.{minor}), so that adding to it would lose something; upgrade falcon_ray, or "
            "choose another location"
        )
    return manifest


def _manifest(directory: ProfileDirectory) -> Manifest | None:
    with explained(directory.name, "read"):
        try:
            content = directory.read(MANIFEST_NAME)
        except (FileNotFoundError, NotADirectoryError):
            return None
    where = f"{directory.name}/{MANIFEST_NAME}"
    return Manifest.from_text(content.decode("utf-8", errors="replace"), where)


def _profile(directory: ProfileDirectory, manifest: Manifest) -> Profile:
    """Read all parts; `FileNotFoundError` where one is gone."""
    several = [Profile((), manifest.sources)]
    for file in manifest.parts:
        where = f"{directory.name}/{file.file}"
        try:
            content = directory.read(file.file)
        except FileNotFoundError:
            raise FileNotFoundError(file.file) from None
        except OSError as error:
            with explained(where, "read"):
                raise error from None
        rows = _rows(content, file, where)
        start = 0
        for each in file.segments:
            segment = rows.slice(start, each.rows)
            part = Part(file.table, each.contents, segment, each.added, each.is_merged)
            several.append(Profile((part,)))
            start += each.rows
    return Profile.empty().merged(*several)


def _rows(content: bytes, file: PartFile, where: str) -> pa.Table:
    advice = "restore it from a copy, or measure again into a new location"
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise InputError(
            f"{where} is damaged: it has {len(content)} of {file.bytes} bytes and another SHA-256 "
            f"than its manifest says; {advice}"
        )
    try:
        table = _PARQUET.read_table(pa.BufferReader(content))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{where} is no Parquet file ({first_line(error)}); {advice}") from None
    rows = checked_table(file.table, table, where)
    if rows.num_rows != file.rows:
        raise InputError(
            f"{where} has {rows.num_rows} rows, its manifest says {file.rows}; {advice}"
        )
    return rows


def _replace(directory: ProfileDirectory, old: Manifest, profile: Profile) -> Manifest:
    files = _write_parts(directory, profile.parts)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION, sources=dict(profile.sources), parts=tuple(files)
    )
    directory.write(MANIFEST_NAME, manifest.to_text().encode())
    for name in {each.file for each in old.parts} - {each.file for each in files}:
        directory.delete(name)
    return manifest


def _write_parts(directory: ProfileDirectory, parts: Sequence[Part]) -> list[PartFile]:
    """Write one file per table; which rows were added together stands in the manifest."""
    files: list[PartFile] = []
    for name in TABLES:
        own = sorted((part for part in parts if part.table == name), key=lambda p: p.contents)
        if not own:
            continue
        sink = pa.BufferOutputStream()
        _PARQUET.write_table(
            pa.concat_tables([part.rows for part in own]), sink, compression="zstd"
        )
        content = sink.getvalue().to_pybytes()
        sha256 = hashlib.sha256(content).hexdigest()
        file = f"parts/{name}-{sha256[:16]}.parquet"
        directory.write(file, content)
        segments = tuple(
            Segment(part.contents, part.rows.num_rows, part.added, part.is_merged) for part in own
        )
        files.append(
            PartFile(file=file, table=name, sha256=sha256, bytes=len(content), segments=segments)
        )
    return files
