"""The commands of a search: run one, print its report, export what it recommends."""

import json
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from falcon_ray.cli.output import FORMAT, output_console
from falcon_ray.cli.values import choices, pairs, scalar, shape
from falcon_ray.errors import NothingFeasibleError


@click.command()
@click.argument("model", required=False)
@click.option("-f", "--file", "file", type=click.Path(path_type=Path), help="YAML file of flags.")
@click.option("--app", help="Instead of MODEL: package.module:builder of a Serve application.")
@click.option("--input-shape", help="Shape of one sample, e.g. 3,224,224.")
@click.option("--input-dtype", help="Its dtype.  [default: float32]")
@click.option(
    "--search-space", multiple=True, metavar="NAME=V,V", help="Values of a dimension; repeatable."
)
@click.option(
    "--space-constraints", multiple=True, metavar="EXPR", help="Condition on values; repeatable."
)
@click.option("--optimizer", help="mcts, bayesian (no tree) or random.  [default: mcts]")
@click.option(
    "--cost-aware/--no-cost-aware",
    default=None,
    help="Weigh what a trial may gain against what it costs.",
)
@click.option("--prior/--no-prior", default=None, help="Start from what is known of operators.")
@click.option("--store", help="Where knowledge is kept.  [default: the cluster's, or your own]")
@click.option("--max-trials", type=int, help="Trial deployments.  [default: 6]")
@click.option("--time-budget-s", type=float, help="No trial starts after so many seconds.")
@click.option("--max-cost-usd", type=float, help="Dollars that the search may cost at most.")
@click.option("--parallel", type=int, help="Trials at once.  [default: as many as fit]")
@click.option(
    "--colocate/--no-colocate",
    default=None,
    help="Let trials share a GPU or a CPU node: faster, and less exact.",
)
@click.option(
    "--provision-timeout-s",
    type=float,
    help="Longest wait for a node that the autoscaler adds.  [default: 600]",
)
@click.option(
    "--emulate",
    metavar="GPU,GPU",
    help="Emulate these GPU types, for planning: nothing is measured on a GPU.",
)
@click.option(
    "--emulate-table",
    metavar="FILE",
    help="Their times: a CSV of gpu_type,dtype,batch_size,latency_ms.  [default: predicted]",
)
@click.option(
    "--stop-early/--no-stop-early",
    default=None,
    help="Stop once one more trial is expected to bring next to nothing.  [default: stop]",
)
@click.option(
    "--scenario",
    help="offline, server or single_stream.  [default: server with a latency budget, else offline]",
)
@click.option(
    "--load-path", help="handle, http or replica.  [default: handle; replica with --emulate]"
)
@click.option("--offered-rps", type=float, help="The one rate to serve within the budget.")
@click.option(
    "--arrival-trace", metavar="FILE", help="Arrival times to follow, in seconds, one a line."
)
@click.option("--latency-budget-ms", type=float, help="Latency limit to certify a rate under.")
@click.option(
    "--latency-percentile", type=float, help="Percent of requests within it.  [default: 99]"
)
@click.option(
    "--baseline", multiple=True, metavar="NAME=V", help="Your present configuration; repeatable."
)
@click.option(
    "--confirm/--no-confirm",
    default=None,
    help="Measure the best, the runner-up and the baseline again.  [default: confirm]",
)
@click.option("--confirm-rounds", type=int, help="How often each of them is.  [default: 2]")
@click.option("--usd-per-hour", type=float, help="Price of one CPU node of this cluster.")
@click.option("--max-output-error", type=float, help="Refuse larger errors against float32.")
@click.option("--warm-up-s", type=float, help="Longest warm-up of a trial.  [default: 4]")
@click.option("--measure-s", type=float, help="Longest measurement of a trial.  [default: 8]")
@click.option("--deploy-timeout-s", type=float, help="Longest start of a trial.  [default: 120]")
@click.option("--seed", type=int, help="Makes the search repeatable.  [default: 0]")
@click.option("--output-dir", help="Run directory.  [default: a new one under runs/]")
@click.option("--resume", metavar="DIR", help="Go on with the search of a run directory.")
@click.option("--address", help="Address of a Ray cluster.  [default: RAY_ADDRESS, else local]")
@click.option("--dry-run", is_flag=True, help="Say what would be searched, and deploy nothing.")
@FORMAT
def search(
    *,
    file: Path | None,
    dry_run: bool,
    output_format: str,
    **flags: Any,  # noqa: ANN401
) -> None:
    """Search for the best configuration of MODEL with real trial deployments.

    MODEL is a reference model (bert_base, dlrm, gpt2, lstm, mobilenet_v3, ncf, resnet50,
    unet_block, vgg16, vit_b_16), package.module:factory or path/to/file.py:factory; the factory
    returns a torch.nn.Module, and beside it stands <factory>_inputs(batch_size), or give
    --input-shape.
    """
    sys.path.insert(0, str(Path.cwd()))
    values = _values(file, flags)
    from falcon_ray.report.files import report_json
    from falcon_ray.report.terminal import print_report
    from falcon_ray.runtime import search_job
    from falcon_ray.runtime.progress import RichDisplay

    if dry_run:
        lines = search_job.dry_run(values)
        click.echo(json.dumps({"plan": lines}) if output_format == "json" else "\n".join(lines))
        return
    is_text = output_format == "text"
    console = output_console(stderr=not is_text)
    result = search_job.search(values, RichDisplay(console))
    if is_text:
        console.print()
        print_report(console, result.record, result.directory)
        _print_next(console, result.directory, exported=result.exports_itself)
    else:
        click.echo(json.dumps(report_json(result.record, result.directory)))
    if result.nothing_feasible is not None:
        # The report's first sentence has said why.
        sys.exit(result.nothing_feasible.error_type.exit_code)
    if not result.is_deployable:
        sys.exit(NothingFeasibleError.exit_code)


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@FORMAT
def report(directory: Path, output_format: str) -> None:
    """Print the report of the search in DIRECTORY, also of one that runs or was interrupted."""
    from falcon_ray.report.files import report_json
    from falcon_ray.report.record import read_search
    from falcon_ray.report.terminal import print_report

    record = read_search(directory)
    if output_format == "json":
        click.echo(json.dumps(report_json(record, directory)))
    else:
        print_report(output_console(), record, directory)


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The file to write.  [default: serve.yaml in DIRECTORY]",
)
@click.option(
    "--allow-emulated",
    is_flag=True,
    help="Export a search on emulated GPUs: what it says is predicted, not measured.",
)
def export(directory: Path, output: Path | None, *, allow_emulated: bool) -> None:
    """Write the recommendation of the search in DIRECTORY as a Ray Serve config file."""
    from falcon_ray.report.record import read_search
    from falcon_ray.report.result import SearchResult

    result = SearchResult(directory, read_search(directory))
    path = result.export(output or directory / "serve.yaml", allow_emulated=allow_emulated)
    warning = "; its numbers are predicted on emulated GPUs" if result.is_emulated else ""
    click.echo(f"wrote {path}; deploy it by: serve run {path}{warning}")


def _print_next(console: Console, directory: Path, *, exported: bool) -> None:
    lines = [f"Run directory: {directory} (report.json, trials.csv, journal.jsonl)"]
    if exported:
        lines.append(f"Deploy it:     cd {directory} && serve run serve.yaml")
    console.print("\n".join(lines), soft_wrap=True, markup=False)


def _values(file: Path | None, flags: dict[str, Any]) -> dict[str, Any]:
    """Fields of the request: those of the file, and on top of them the flags that were given."""
    from falcon_ray.runtime.search_request import read_request_file

    values = {} if file is None else read_request_file(file)
    for name, value in flags.items():
        if value is None or value == ():
            continue
        if name == "search_space":
            values[name] = choices(value)
        elif name == "baseline":
            values[name] = {key: scalar(text) for key, text in pairs(name, value)}
        elif name == "input_shape":
            values[name] = shape(value)
        elif name == "emulate":
            values[name] = [each.strip() for each in value.split(",") if each.strip()]
        elif name == "space_constraints":
            values[name] = list(value)
        else:
            values[name] = value
    return values
