"""The command line of the search benchmark: words in, `SearchStudyOptions` out."""

import argparse
from dataclasses import fields
from pathlib import Path

from falcon_ray.studies.search import table_file
from falcon_ray.studies.search.methods import methods
from falcon_ray.studies.search.options import SearchStudyOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the search benchmark, and the format of tables below them."""
    default = SearchStudyOptions()
    known = "; ".join(each.name for each in methods())
    options = parser.add_argument_group("how to search")
    options.add_argument(
        "--tables",
        action="append",
        type=Path,
        default=[],
        metavar="PATH",
        help="a Parquet or CSV table with its YAML beside it, format below; may be repeated",
    )
    options.add_argument("--methods", default="", metavar="A,B", help=f"only these: {known}")
    options.add_argument(
        "--seeds", dest="n_seeds", type=int, metavar="N", help="runs of each method on each task"
    )
    options.add_argument("--budget", type=int, default=default.budget, help="trials of a search")
    options.add_argument(
        "--batch-size", type=int, default=default.batch_size, help="trials at a time"
    )
    options.add_argument(
        "--noise",
        dest="noise_sd",
        type=float,
        default=default.noise_sd,
        metavar="SD",
        help="relative sd of noise on every metric, e.g. 0.1",
    )
    options.add_argument(
        "--prices",
        default=default.prices,
        help="recorded, equal, shuffled-SEED, or a YAML file of factors: gpu_type: {L4: 0.5}",
    )
    options.add_argument(
        "--permute-prior", action="store_true", help="give our methods a wrong prior"
    )
    options.add_argument(
        "--jobs", dest="n_jobs", type=int, default=default.n_jobs, metavar="N", help="processes"
    )
    options.add_argument("--output-dir", type=Path, default=default.output_dir, metavar="DIR")
    options.add_argument(
        "--quick", action="store_true", help="only the short study that guards the figures"
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"Tables:\n{table_file.__doc__}"


def read_options(arguments: argparse.Namespace) -> SearchStudyOptions:
    """The options of a command line that was parsed with `add_arguments`.

    Raises:
        InputError: A value is out of range.
    """
    given = {each.name: getattr(arguments, each.name) for each in fields(SearchStudyOptions)}
    given["tables"] = tuple(arguments.tables)
    given["methods"] = tuple(each.strip() for each in arguments.methods.split(",") if each.strip())
    return SearchStudyOptions(**given)
