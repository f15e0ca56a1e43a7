"""The command that measures operators and models on the devices of a cluster."""

import json
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.status import Status
from rich.text import Text

from falcon_ray.cli.output import FORMAT, output_console
from falcon_ray.errors import InputError


@click.command()
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="MODEL",
    help="Run this model as a whole instead: a reference model or package.module:factory; "
    "repeatable.",
)
@click.option(
    "--family",
    "families",
    multiple=True,
    metavar="FAMILY",
    help="Measure operators of this family only, e.g. linear; repeatable.",
)
@click.option(
    "--store",
    help="The profile: a directory or s3://.  [default: the cluster's, else FALCON_RAY_PROFILE]",
)
@click.option(
    "--dtype", "dtypes", multiple=True, metavar="DTYPE", help="Repeatable.  [default: float32]"
)
@click.option("--threads", help="On CPUs, e.g. 1,4.  [default: 1 and all cores]")
@click.option("--batch-sizes", help="Of whole models, e.g. 1,8.  [default: 1 to 32; GPUs: 128]")
@click.option("--shares", help="Of a GPU's compute units, e.g. 0.25,1.  [default: 1]")
@click.option("--shapes-per-family", type=int, help="Operator shapes.  [default: 50]")
@click.option("--time-budget-s", type=float, help="Longest time for each device.")
@click.option("--address", help="Address of a Ray cluster.  [default: RAY_ADDRESS, else local]")
@click.option("--seed", type=int, help="Chooses the shapes.  [default: 0]")
@FORMAT
def profile(
    *,
    models: tuple[str, ...],
    families: tuple[str, ...],
    store: str | None,
    dtypes: tuple[str, ...],
    threads: str | None,
    batch_sizes: str | None,
    shares: str | None,
    shapes_per_family: int | None,
    time_budget_s: float | None,
    address: str | None,
    seed: int | None,
    output_format: str,
) -> None:
    """Measure operators and models on every distinct device of the cluster.

    What is measured is stored at once, and nothing that is stored is measured again: a run that
    was interrupted goes on where it was. The better a profile, the better the estimates.
    """
    sys.path.insert(0, str(Path.cwd()))
    from falcon_ray.runtime import profile_job
    from falcon_ray.runtime.profile_request import DEFAULT_SHAPES, ProfileRequest

    request = ProfileRequest(
        models=models,
        families=families,
        dtypes=dtypes or ("float32",),
        batch_sizes=_whole_numbers("batch-sizes", batch_sizes),
        threads=_whole_numbers("threads", threads),
        shares=_numbers("shares", shares) or (1.0,),
        location=store,
        time_budget_s=time_budget_s,
        address=address,
        shapes_per_family=DEFAULT_SHAPES if shapes_per_family is None else shapes_per_family,
        seed=seed or 0,
    )
    is_text = output_format == "text"
    console = output_console(stderr=not is_text)
    result = profile_job.profile(request, _RichProgress(console))
    if not is_text:
        click.echo(json.dumps(result.to_json()))
        return
    added = f"{result.n_operators} operators and {result.n_models} models added"
    lines = [f"Measured {', '.join(result.devices)}: {added}", f"Profile: {result.location}"]
    if result.n_left:
        lines.insert(1, f"{result.n_left} are left; go on with: {request.command}")
    console.print("\n".join(lines), soft_wrap=True, markup=False)


class _RichProgress:
    """A live line for each device on a terminal; elsewhere a line for every tenth of the work."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status: Status | None = None
        self._lines: dict[str, str] = {}
        self._tenths: dict[str, int] = {}

    def note(self, text: str) -> None:
        """See `ProfileDisplay.note`."""
        self._console.print(Text(text, style="dim"), soft_wrap=True)

    def progress(self, device: str, *, doing: str, n_done: int, n_total: int) -> None:
        """See `ProfileDisplay.progress`."""
        line = f"{device}: {n_done} of {n_total}, {doing}" if doing else f"{device}: all is known"
        if not self._console.is_terminal:
            tenth = 10 * n_done // max(n_total, 1)
            if tenth != self._tenths.get(device):
                self._tenths[device] = tenth
                self._console.print(Text(line), soft_wrap=True)
            return
        self._lines[device] = line
        text = Text("\n".join(self._lines.values()))
        if self._status is None:
            self._status = self._console.status(text)
            self._status.start()
        self._status.update(text)

    def close(self) -> None:
        """See `ProfileDisplay.close`."""
        if self._status is not None:
            self._status.stop()
            self._status = None


def _numbers(flag: str, text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in (text or "").split(",") if part)
    except ValueError:
        raise InputError(f"--{flag} {text!r}: write numbers, e.g. 0.25,0.5,1") from None


def _whole_numbers(flag: str, text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in (text or "").split(",") if part)
    except ValueError:
        raise InputError(f"--{flag} {text!r}: write whole numbers, e.g. 1,2,4") from None
