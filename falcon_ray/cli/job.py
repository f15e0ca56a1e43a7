"""Commands as jobs: progress in plain lines, and the result as one line of JSON at the end.

The commands are those of `falcon-ray`; nothing of them is repeated here.
"""

import contextlib
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from falcon_ray.cli.entry_point import commands
from falcon_ray.errors import FalconRayError, InputError, SearchInterruptedError


def search(arguments: Sequence[str]) -> int:
    """Run `falcon-ray search`; its last line names the run directory and what was found.

    Returns:
        The exit code, which that line holds as well.
    """
    from falcon_ray.runtime.job_package import is_job, package_size

    _write_lines_at_once()
    directory, arguments = _with_directory(arguments)
    if is_job():
        click.echo(f"Working directory: {Path.cwd()} ({package_size(Path.cwd())})")
    if directory is not None:
        click.echo(f"Run directory: {directory}")
    exit_code, error = _run(["search", *arguments])
    line = {"command": "search", "exit_code": exit_code, "error": error}
    # What cannot work is refused before it has a directory: there may be another search.
    found = _found(None if exit_code == InputError.exit_code else directory)
    click.echo(json.dumps(line | found, allow_nan=False))
    return exit_code


def profile(arguments: Sequence[str]) -> int:
    """Run `falcon-ray profile`; its last line says what was added to which profile.

    Returns:
        The exit code, which that line holds as well.
    """
    exit_code, error, result = _run_for_json(["profile", *arguments])
    line = {"command": "profile", "exit_code": exit_code, "error": error}
    click.echo(json.dumps(line | result))
    return exit_code


def report(arguments: Sequence[str]) -> int:
    """Run `falcon-ray report`; its last line is the report as JSON, or why there is none.

    Returns:
        The exit code.
    """
    exit_code, error, result = _run_for_json(["report", *_from_where_runs_are(arguments)])
    line = {"command": "report", "exit_code": exit_code, "error": error}
    click.echo(json.dumps(result or line))
    return exit_code


def _run(arguments: Sequence[str]) -> tuple[int, str | None]:
    """Run a command as `falcon-ray` does.

    Returns:
        The exit code, and the error in one line where there was one.
    """
    try:
        commands.main(list(arguments), prog_name="falcon-ray", standalone_mode=False)
    except FalconRayError as error:
        return _failed(str(error), error.exit_code)
    except click.exceptions.Abort:
        return _failed("interrupted", SearchInterruptedError.exit_code)
    except click.ClickException as error:
        return _failed(error.format_message(), error.exit_code)
    except SystemExit as error:
        return (error.code if isinstance(error.code, int) else int(error.code is not None)), None
    return 0, None


def _failed(reason: str, exit_code: int) -> tuple[int, str]:
    line = " ".join(reason.split())
    click.echo(f"falcon-ray: {line}", err=True)
    return exit_code, line


def _run_for_json(arguments: Sequence[str]) -> tuple[int, str | None, dict[str, Any]]:
    """Run a command that prints JSON, with its progress on standard output.

    Returns:
        The exit code, the error if any, and what it printed.
    """
    _write_lines_at_once()
    printed, progress = io.StringIO(), sys.stdout
    with contextlib.redirect_stderr(progress), contextlib.redirect_stdout(printed):
        exit_code, error = _run([*arguments, "--format", "json"])
    lines = printed.getvalue().strip().splitlines()
    try:
        result = json.loads(lines[-1]) if lines else {}
    except json.JSONDecodeError:  # such as the text of --help
        click.echo("\n".join(lines))
        return exit_code, error, {}
    return exit_code, error, result


def _write_lines_at_once() -> None:
    """Show lines as they come, also where standard output is a file, as a job's is."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)


def _parsed(name: str, arguments: Sequence[str]) -> dict[str, Any]:
    """The values of a command's parameters; what is wrong with them is left to the command."""
    group = click.Context(commands, **commands.context_settings)
    command = commands.commands[name]
    return command.make_context(name, list(arguments), parent=group, resilient_parsing=True).params


def _with_directory(arguments: Sequence[str]) -> tuple[Path | None, list[str]]:
    """Decide the run directory before the command does, so that it is known however that ends."""
    from falcon_ray.runtime.job_package import run_directory

    given = _parsed("search", arguments)
    if given["dry_run"] or any(each in arguments for each in ("-h", "--help")):
        return None, list(arguments)
    if resume := given["resume"] or _in_file(given["file"], "resume"):
        directory = run_directory(resume)
        return directory, [*arguments, "--resume", str(directory)]
    directory = run_directory(given["output_dir"] or _in_file(given["file"], "output_dir"))
    return directory, [*arguments, "--output-dir", str(directory)]


def _from_where_runs_are(arguments: Sequence[str]) -> list[str]:
    """The same with the directory that `search` would have made of that name."""
    from falcon_ray.runtime.job_package import run_directory

    given = _parsed("report", arguments)["directory"]
    if given is None:
        return list(arguments)
    return [str(run_directory(each)) if each == str(given) else each for each in arguments]


def _in_file(file: Path | None, name: str) -> Any:  # noqa: ANN401 - whatever it holds
    from falcon_ray.runtime.search_request import read_request_file

    try:
        return None if file is None else read_request_file(file).get(name)
    except FalconRayError:
        return None  # the command will say why


def _found(directory: Path | None) -> dict[str, Any]:
    """What a run directory says of its search; next to nothing where that never began."""
    from falcon_ray.report.journal import holds_journal
    from falcon_ray.report.recommendation import Recommendation, recommend
    from falcon_ray.report.record import read_search
    from falcon_ray.report.spend import spend_json
    from falcon_ray.space.objective import SECONDS_PER_HOUR

    if directory is None or not holds_journal(directory):
        return {"directory": None}
    record = read_search(directory)
    line: dict[str, Any] = {
        "directory": str(directory.absolute()),
        "trials": len(record.trials),
        "usd": spend_json(record)["total_usd"],
        "emulated": record.header.emulated,
    }
    best = recommend(record)
    if not isinstance(best, Recommendation):
        return line | {"recommended": None, "sentence": best.sentence}
    per_rps = SECONDS_PER_HOUR / best.chosen.usd_per_hour
    rates = [each.rate for each in best.contenders if each.configuration == best.configuration]
    interval = None
    if rates and rates[0] is not None:
        interval = [rates[0].ci_low_rps * per_rps, rates[0].ci_high_rps * per_rps]
    return line | {
        "recommended": dict(best.configuration),
        "standing": best.standing.value,
        "requests_per_dollar": best.requests_per_dollar,
        "requests_per_dollar_interval": interval,
        "sentence": best.sentence,
    }
