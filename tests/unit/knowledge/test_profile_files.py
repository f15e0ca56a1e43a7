import json
import multiprocessing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import fs

from falcon_ray.errors import InputError
from falcon_ray.knowledge.profile import files
from falcon_ray.knowledge.profile.directory import ObjectDirectory, open_directory
from falcon_ray.knowledge.profile.files import (
    MAX_FILES,
    append_part,
    append_profile,
    check_writable,
    compact,
    default_location,
    packaged_profile,
    read_manifest,
    read_profile,
    write_profile,
)
from falcon_ray.knowledge.profile.manifest import Manifest, Source
from falcon_ray.knowledge.profile.profile import Profile
from tests.unit.knowledge.profile_rows import SOURCES, operators, rows


def append(location: Path, *changes: dict[str, object]) -> Manifest:
    return append_part(location, operators(*changes), SOURCES, clock=noon)


def noon() -> datetime:
    return datetime(2026, 3, 1, 12, tzinfo=UTC)


def only_part(location: Path) -> Path:
    (part,) = (location / "parts").iterdir()
    return part


def edit_manifest(location: Path, **changes: object) -> None:
    path = location / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def one_line(*words: str) -> str:
    """A pattern for a message of one line that has these words in this order."""
    return r"^[^\n]*" + r"[^\n]*".join(words) + r"[^\n]*$"


def test_what_is_appended_is_read_again(tmp_path: Path) -> None:
    tables = {**operators({}, {"dims": [1, 2, 3]}), **rows("constants", {}), **rows("devices", {})}
    append_part(tmp_path / "new" / "profile", tables, SOURCES)
    held = read_profile(tmp_path / "new" / "profile")
    assert held.operators.equals(tables["operators"])
    assert held.constants("roofline")[0].value("flops") == 1.5
    assert held.device("cpu-model") is not None
    assert held.sources == SOURCES


def test_parts_are_added_beside_the_old_ones_and_merged_when_read(tmp_path: Path) -> None:
    append(tmp_path, {"n": 10})
    first = only_part(tmp_path).read_bytes()
    manifest = append(tmp_path, {"n": 7, "latency_us": 99.0})
    assert len(manifest.parts) == 2
    assert first in [each.read_bytes() for each in (tmp_path / "parts").iterdir()]
    assert read_profile(tmp_path).operators.column("n").to_pylist() == [17]


def test_the_same_part_appended_again_changes_nothing(tmp_path: Path) -> None:
    first = append(tmp_path, {"n": 10})
    text = (tmp_path / "manifest.json").read_text()
    assert append(tmp_path, {"n": 10}) == first
    assert (tmp_path / "manifest.json").read_text() == text


def test_compacting_keeps_what_was_added_apart(tmp_path: Path) -> None:
    for n in (1, 2, 3):
        append(tmp_path, {"n": n, "latency_us": 100.0 + n})
    before = read_profile(tmp_path)
    manifest = compact(tmp_path)
    assert [part.rows for part in manifest.parts] == [3]
    assert len(list((tmp_path / "parts").iterdir())) == 1
    after = read_profile(tmp_path)
    assert after.operators.equals(before.operators)
    assert after.version == before.version
    append(tmp_path, {"n": 2, "latency_us": 102.0})
    assert read_profile(tmp_path).operators.column("n").to_pylist() == [6]
    assert {part.added for part in after.parts} == {"2026-03-01T12:00:00+00:00"}


def test_many_additions_do_not_become_many_files(tmp_path: Path) -> None:
    for n in range(1, MAX_FILES + 3):
        append(tmp_path, {"dims": [n]})
    assert len(list((tmp_path / "parts").iterdir())) == 2  # all but the last one, and that
    assert read_profile(tmp_path).operators.num_rows == MAX_FILES + 2


def test_a_consolidated_profile_is_known_again_after_writing(tmp_path: Path) -> None:
    append(tmp_path / "a", {"n": 1})
    append(tmp_path / "a", {"n": 2})
    whole = read_profile(tmp_path / "a").consolidated()
    write_profile(tmp_path / "b", whole)
    append_profile(tmp_path / "b", read_profile(tmp_path / "a"))
    again = read_profile(tmp_path / "b")
    assert again.version == whole.version
    assert again.operators.column("n").to_pylist() == [3]


def test_writing_replaces_a_profile_and_leaves_no_file_behind(tmp_path: Path) -> None:
    append(tmp_path, {"n": 1})
    write_profile(tmp_path, Profile.of_tables(operators({"n": 5}), SOURCES))
    assert read_profile(tmp_path).operators.column("n").to_pylist() == [5]
    assert len(list((tmp_path / "parts").iterdir())) == 1


def test_rows_measured_here_need_no_source_and_others_do(tmp_path: Path) -> None:
    manifest = append_part(tmp_path, operators({"source": "own"}), clock=noon)
    assert manifest.sources == {"own": Source.own("2026-03-01")}
    with pytest.raises(InputError, match=one_line("source 'lab'", "licence")):
        append_part(tmp_path, operators({}))
    append_part(tmp_path, operators({}), SOURCES)
    append_part(tmp_path, operators({"n": 3}))  # by now the profile knows that source
    assert read_profile(tmp_path).operators.num_rows == 2


def test_a_source_needs_a_licence_and_a_date() -> None:
    with pytest.raises(InputError, match="licence and a date"):
        Source(licence="", date="2026-03-01", description="x")
    with pytest.raises(InputError, match="licence and a date"):
        Source(licence="MIT", date="yesterday", description="x")


def test_a_crash_before_the_manifest_leaves_the_old_profile(tmp_path: Path) -> None:
    append(tmp_path, {"n": 1})
    old = (tmp_path / "manifest.json").read_bytes()
    append(tmp_path, {"n": 2})
    (tmp_path / "manifest.json").write_bytes(old)  # as if the second never had come that far
    (tmp_path / "parts" / ".operators.parquet.x").write_bytes(b"torn")
    assert read_profile(tmp_path).operators.column("n").to_pylist() == [1]
    append(tmp_path, {"n": 2})
    assert read_profile(tmp_path).operators.column("n").to_pylist() == [3]


def _append_many(location: Path, numbers: range) -> None:
    for n in numbers:
        append(location, {"dims": [n]})


def test_concurrent_processes_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ranges = [range(first, first + 5) for first in (0, 5, 10)]
    processes = [context.Process(target=_append_many, args=(tmp_path, each)) for each in ranges]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert read_profile(tmp_path).operators.num_rows == 15


def test_a_missing_profile_is_an_error_unless_it_may_be_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=one_line("no profile at", "falcon-ray profile")):
        read_profile(tmp_path / "none")
    assert read_profile(tmp_path / "none", missing_ok=True).is_empty
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"schema_version": 1, "sources": {}, "parts": []}',
        '{"schema_version": "1.0", "sources": {"a": {"url": "x"}}, "parts": []}',
        '{"schema_version": "1.0", "sources": {}, "parts": [{"table": "operators"}]}',
    ],
)
def test_a_corrupt_manifest_is_said_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=one_line("manifest")):
        read_profile(tmp_path)
    with pytest.raises(InputError, match=one_line("manifest")):
        append(tmp_path, {})
    assert (tmp_path / "manifest.json").read_text() == text


def test_a_part_outside_the_directory_is_refused(tmp_path: Path) -> None:
    append(tmp_path, {})
    (part,) = json.loads((tmp_path / "manifest.json").read_text())["parts"]
    edit_manifest(tmp_path, parts=[{**part, "file": "../../secret.parquet"}])
    with pytest.raises(InputError, match=one_line("no manifest", "secret")):
        read_profile(tmp_path)


@pytest.mark.parametrize("damage", [lambda b: b[:-20], lambda b: b[:50] + b"?" + b[51:]])
def test_a_damaged_part_is_noticed(tmp_path: Path, damage: Any) -> None:  # noqa: ANN401
    append(tmp_path, {})
    part = only_part(tmp_path)
    part.write_bytes(damage(part.read_bytes()))
    with pytest.raises(InputError, match=one_line(part.name, "is damaged", "restore it")):
        read_profile(tmp_path)


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    append(tmp_path, {})
    part = only_part(tmp_path)
    part.unlink()
    with pytest.raises(InputError, match=one_line("lacks a file", part.name)):
        read_profile(tmp_path)


def test_a_newer_major_version_is_refused_and_a_newer_minor_is_read(tmp_path: Path) -> None:
    append(tmp_path, {})
    edit_manifest(tmp_path, schema_version="1.7", novelty={"a": 1})
    assert read_profile(tmp_path).operators.num_rows == 1
    with pytest.raises(InputError, match=one_line("newer falcon_ray", r"1\.7", "upgrade")):
        append(tmp_path, {"n": 2})
    edit_manifest(tmp_path, schema_version="2.0")
    with pytest.raises(InputError, match=one_line("newer falcon_ray", r"2\.0", "upgrade")):
        read_profile(tmp_path)


def test_an_unwritable_location_is_noticed_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for write in (check_writable, lambda place: append(place, {})):
        with pytest.raises(InputError, match=one_line("file/profile", "cannot be written")):
            write(tmp_path / "file" / "profile")


def test_checking_a_location_leaves_no_profile(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    assert read_profile(tmp_path / "a" / "b", missing_ok=True).is_empty
    assert [each.name for each in (tmp_path / "a" / "b").iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("", "needs a location"),
        ("nope://bucket/x", "no location of a profile"),
        ("s3://", "no location of a profile"),
        ("s3://key:secret@bucket/x", "must not hold keys"),
    ],
)
def test_what_is_no_location_is_refused(location: str, words: str) -> None:
    with pytest.raises(InputError, match=one_line(words)) as caught:
        read_profile(location)
    assert "secret" not in str(caught.value)


def test_a_file_uri_is_a_local_path(tmp_path: Path) -> None:
    append(tmp_path, {})
    assert read_profile(f"file://{tmp_path}").operators.num_rows == 1
    assert open_directory(f"file://{tmp_path}").name == str(tmp_path.resolve())


def test_an_object_store_holds_files_as_a_directory_does(tmp_path: Path) -> None:
    store = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    directory = ObjectDirectory(store, "bucket/prefix/", "s3://bucket/prefix/")
    assert directory.name == "s3://bucket/prefix"
    with pytest.raises(FileNotFoundError):
        directory.read("manifest.json")
    with directory.lock():
        directory.write("parts/a.parquet", b"one")
        directory.write("parts/a.parquet", b"two")
    assert directory.read("parts/a.parquet") == b"two"
    assert (tmp_path / "bucket" / "prefix" / "parts" / "a.parquet").read_bytes() == b"two"
    directory.delete("parts/a.parquet")
    directory.delete("parts/a.parquet")
    with pytest.raises(FileNotFoundError):
        directory.read("parts/a.parquet")


def test_the_default_location_is_named_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("FALCON_RAY_PROFILE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_location() == str(tmp_path / "falcon_ray" / "profile")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_location() == str(tmp_path / "home" / ".cache" / "falcon_ray" / "profile")
    monkeypatch.setenv("FALCON_RAY_PROFILE", "s3://bucket/profile")
    assert default_location() == "s3://bucket/profile"


def test_the_packaged_profile_names_a_source_for_every_row() -> None:
    held = packaged_profile()
    assert held.named_sources() <= set(held.sources)
    assert files.packaged_location().endswith("falcon_ray/data/profile")


def test_no_units_or_versions_are_left_out_of_the_manifest(tmp_path: Path) -> None:
    append(tmp_path, {})
    record = json.loads((tmp_path / "manifest.json").read_text())
    assert record["schema_version"] == "1.0"
    assert record["units"]["latency_us"].startswith("microseconds")
    (part,) = record["parts"]
    assert part["table"] == "operators"
    assert part["rows"] == 1
    assert part["bytes"] == only_part(tmp_path).stat().st_size
    assert part["file"] == f"parts/operators-{part['sha256'][:16]}.parquet"
    assert Manifest.from_text((tmp_path / "manifest.json").read_text(), "") == read_manifest(
        tmp_path
    )


def test_a_part_with_columns_of_a_newer_minor_version_is_read(tmp_path: Path) -> None:
    table = operators({})["operators"].append_column("novelty", pa.array([1]))
    append_part(tmp_path, {"operators": table}, SOURCES)
    assert read_profile(tmp_path).operators.num_rows == 1
