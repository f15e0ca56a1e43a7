"""The command that answers before the first trial."""

import json
import sys
from pathlib import Path

import click

from falcon_ray.cli.output import FORMAT, output_console
from falcon_ray.cli.values import choices, shape
from falcon_ray.errors import NothingFeasibleError


@click.command()
@click.argument("model")
@click.option(
    "--device",
    "devices",
    multiple=True,
    help="A GPU type, or cpu for this machine; repeatable.  [default: all that are known]",
)
@click.option(
    "--search-space", multiple=True, metavar="NAME=V,V", help="Values of a dimension; repeatable."
)
@click.option(
    "--space-constraints", multiple=True, metavar="EXPR", help="Condition on values; repeatable."
)
@click.option(
    "--latency-budget-ms",
    type=float,
    help="Latency limit to predict a rate under; of an LLM, of a whole answer as expected.",
)
@click.option(
    "--latency-percentile",
    type=float,
    default=99.0,
    show_default=True,
    help="Percent of requests within it.",
)
@click.option("--input-shape", help="Shape of one sample, e.g. 3,224,224.")
@click.option("--input-dtype", default="float32", show_default=True, help="Its dtype.")
@click.option("--isl", type=int, default=1024, show_default=True, help="Tokens of a prompt (LLM).")
@click.option("--osl", type=int, default=256, show_default=True, help="Tokens of an answer (LLM).")
@click.option("--top", type=int, default=5, show_default=True, help="Configurations to show.")
@click.option("--store", help="Profile to read beside the packaged one.  [default: your own]")
@FORMAT
def estimate(
    *,
    model: str,
    devices: tuple[str, ...],
    search_space: tuple[str, ...],
    space_constraints: tuple[str, ...],
    latency_budget_ms: float | None,
    latency_percentile: float,
    input_shape: str | None,
    input_dtype: str,
    isl: int,
    osl: int,
    top: int,
    store: str | None,
    output_format: str,
) -> None:
    """Say what to expect of MODEL on every GPU, without a trial and without a GPU.

    MODEL is a reference model, package.module:factory, path/to/file.py:factory, or the
    config.json of a language model on Hugging Face (for which --latency-percentile, input shape
    and dtype have no meaning).
    """
    sys.path.insert(0, str(Path.cwd()))
    from falcon_ray.report.estimate_terminal import print_estimate
    from falcon_ray.runtime import estimate_job
    from falcon_ray.runtime.estimate_request import EstimateRequest

    found = estimate_job.estimate(
        EstimateRequest(
            model=model,
            devices=devices,
            search_space=choices(search_space),
            space_constraints=space_constraints,
            latency_budget_ms=latency_budget_ms,
            latency_percentile=latency_percentile,
            input_shape=None if input_shape is None else shape(input_shape),
            input_dtype=input_dtype,
            isl=isl,
            osl=osl,
            top=top,
            store=store,
        )
    )
    if output_format == "json":
        click.echo(json.dumps(found.to_json()))
    else:
        print_estimate(output_console(), found)
    if not found.best_by_device:
        sys.exit(NothingFeasibleError.exit_code)
