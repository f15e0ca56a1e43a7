"""The commands of the store: look at what is known, carry it elsewhere, bring it together."""

import json
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from falcon_ray.cli.output import FORMAT, output_console
from falcon_ray.errors import InputError

STORE = click.option(
    "--store",
    "location",
    metavar="LOCATION",
    help="Directory or s3://bucket/prefix.  [default: FALCON_RAY_PROFILE, else in ~/.cache]",
)


@click.group()
def store() -> None:
    """Show, export, import and merge profiles: what was measured on which devices."""


@store.command()
@STORE
@click.option("--packaged", is_flag=True, help="Show the profile that comes with falcon_ray.")
@FORMAT
def show(location: str | None, packaged: bool, output_format: str) -> None:
    """Print what a profile holds: rows, devices, sources with their licences, and size."""
    from falcon_ray.knowledge.profile import files

    if packaged and location is not None:
        raise InputError("give either --store or --packaged, not both")
    # Nothing measured yet is no mistake; a location that was named should be there.
    is_named = location is not None
    place = files.packaged_location() if packaged else location
    summary = _summary(place or files.default_location(), missing_ok=not is_named)
    if output_format == "json":
        click.echo(json.dumps(summary))
    else:
        _print_summary(output_console(), summary)


@store.command()
@click.argument("output")
@STORE
@click.option("--packaged", is_flag=True, help="Export the profile that comes with falcon_ray.")
@FORMAT
def export(output: str, location: str | None, packaged: bool, output_format: str) -> None:
    """Write the profile to OUTPUT, a new directory or s3://bucket/prefix, one file per table."""
    from falcon_ray.knowledge.profile import files

    if packaged and location is not None:
        raise InputError("give either --store or --packaged, not both")
    place = files.packaged_location() if packaged else location
    profile = files.read_profile(place or files.default_location())
    _check_new(output)
    files.write_profile(output, profile)
    _say(output, "wrote", output_format)


@store.command(name="import")
@click.argument("sources", nargs=-1, required=True, metavar="PROFILE...")
@STORE
@FORMAT
def import_(sources: tuple[str, ...], location: str | None, output_format: str) -> None:
    """Add every PROFILE to the store; what it holds already is not counted twice."""
    from falcon_ray.knowledge.profile import files

    place = location or files.default_location()
    # All of them are read before anything is written.
    first, *others = [files.read_profile(each) for each in sources]
    files.append_profile(place, first.merged(*others))
    _say(place, "imported into", output_format)


@store.command()
@click.argument("profiles", nargs=-1, required=True, metavar="PROFILE...")
@click.option("-o", "--output", required=True, help="A new directory or s3://bucket/prefix.")
@FORMAT
def merge(profiles: tuple[str, ...], output: str, output_format: str) -> None:
    """Write several profiles as one; what they share counts once."""
    from falcon_ray.knowledge.profile import files

    first, *others = [files.read_profile(each) for each in profiles]
    _check_new(output)
    files.write_profile(output, first.merged(*others))
    _say(output, "wrote", output_format)


def _check_new(output: str) -> None:
    from falcon_ray.knowledge.profile.files import read_manifest

    if read_manifest(output, missing_ok=True).parts:
        raise InputError(
            f"there is a profile at {output} already; choose another place, or add to it by "
            "falcon-ray store import"
        )


def _say(location: str, done: str, output_format: str) -> None:
    summary = _summary(location, missing_ok=True)
    if output_format == "json":
        click.echo(json.dumps(summary))
        return
    n_rows = sum(each["rows"] for each in summary["tables"].values())
    click.echo(f"{done} {summary['location']}: {n_rows} rows, version {summary['version']}")


def _summary(location: str, *, missing_ok: bool) -> dict[str, Any]:
    """What a profile holds, as plain JSON values; rows are counted after merging."""
    from falcon_ray.knowledge.profile import files
    from falcon_ray.knowledge.profile.schemas import TABLES

    manifest = files.read_manifest(location, missing_ok=missing_ok)
    profile = files.read_profile(location, missing_ok=missing_ok)
    tables = {name: profile.table(name) for name in TABLES}
    added = sorted(part.added for part in profile.parts if part.added)
    return {
        "location": files.resolved_location(location),
        "version": profile.version,
        "schema_version": ".".join(str(each) for each in manifest.schema_version),
        "size_bytes": sum(part.bytes for part in manifest.parts),
        "files": len(manifest.parts),
        "first_added": added[0] if added else None,
        "last_added": added[-1] if added else None,
        "tables": {
            name: {
                "rows": table.num_rows,
                "devices": _values(table, "device"),
                "dtypes": _values(table, "dtype"),
            }
            for name, table in tables.items()
        },
        "sources": {key: source.to_json() for key, source in sorted(profile.sources.items())},
    }


def _values(table: Any, column: str) -> list[str]:  # noqa: ANN401 - a pyarrow.Table
    if column not in table.column_names:
        return []
    return sorted(table.column(column).unique().to_pylist())


def _print_summary(console: Console, summary: dict[str, Any]) -> None:
    n_rows = sum(each["rows"] for each in summary["tables"].values())
    console.print(Text(f"Profile at {summary['location']}", style="bold"), soft_wrap=True)
    if not n_rows:
        console.print("It is empty: nobody has measured anything for it. Run falcon-ray profile.")
        return
    dates = sorted({(summary[key] or "")[:10] for key in ("first_added", "last_added")} - {""})
    console.print(
        f"version {summary['version']}, schema {summary['schema_version']}, "
        f"{summary['size_bytes'] / 1e6:.2f} MB in {summary['files']} files"
        + (f", added {' to '.join(dates)}" if dates else "")
    )
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("table")
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("devices", overflow="fold")
    table.add_column("dtypes", overflow="fold")
    for name, each in summary["tables"].items():
        cells = (name, str(each["rows"]), ", ".join(each["devices"]), ", ".join(each["dtypes"]))
        table.add_row(*(Text(cell) for cell in cells))
    console.print(table)
    for key, source in summary["sources"].items():
        origin = f" {source['url']}" if source["url"] else ""
        commit = f" ({source['commit'][:12]})" if source["commit"] else ""
        line = f"source {key}: {source['description']}; {source['licence']}, {source['date']}"
        console.print(Text(line + origin + commit), soft_wrap=True)
