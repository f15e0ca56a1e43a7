"""Runs our own benchmarks and prints every figure beside its goal.

Usage: scripts/benchmark knowledge [STUDY...]
       scripts/benchmark search [STUDY...] [--tables PATH] [--help]
       scripts/benchmark measurement [STUDY...] [--runs N] [--deployments N] [--repeat N]
       scripts/benchmark distributed [STUDY...] [--repeat N]

Exit code 0 when every goal is met, 1 when one is missed or a study could not run.
"""

import argparse
import sys

from falcon_ray.errors import InputError
from falcon_ray.studies.benchmark import STUDIES, StudyResult, run_studies
from falcon_ray.studies.distributed import options as distributed_options
from falcon_ray.studies.figure import Figure
from falcon_ray.studies.measurement import options as measurement_options
from falcon_ray.studies.search.arguments import add_arguments, read_options

MARKS = {True: "met", False: "MISSED", None: ""}


def goal(figure: Figure) -> str:
    """The goal in words."""
    limits = {"<=": figure.at_most, ">=": figure.at_least}
    return " and ".join(f"{sign} {limit:g}" for sign, limit in limits.items() if limit is not None)


def show(result: StudyResult) -> None:
    """Print the figures of one study."""
    print(f"\n{result.name} ({result.wall_s:.0f} s)")
    if result.problem:
        print(f"  could not run: {result.problem}")
    for each in result.figures:
        value = f"{each.value:.4g} {each.unit}".strip()
        print(f"  {each.name:<58} {value:>12}  {goal(each):<18} {MARKS[each.is_met]}")
        if each.note:
            print(f"      {each.note}")


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description="Run our own benchmarks.")
    subjects = parser.add_subparsers(dest="subject", required=True)
    for subject, names in STUDIES.items():
        own = subjects.add_parser(subject)
        own.add_argument("study", nargs="*", help=f"only these: {', '.join(names)}")
        if subject == "search":
            add_arguments(own)
        if subject == "measurement":
            measurement_options.add_arguments(own)
        if subject == "distributed":
            distributed_options.add_arguments(own)
    arguments = parser.parse_args()
    good = True
    try:
        options, studies = None, arguments.study
        if arguments.subject == "search":
            options = read_options(arguments)
            studies = studies or ["tables"] * bool(options.tables) or ["quick"] * options.quick
        if arguments.subject == "measurement":
            options = measurement_options.read_options(arguments)
        if arguments.subject == "distributed":
            options = distributed_options.read_options(arguments)
        for result in run_studies(arguments.subject, studies, options=options):
            show(result)
            good &= not result.problem and all(each.is_met is not False for each in result.figures)
            sys.stdout.flush()
    except InputError as error:
        print(f"scripts/benchmark: {error}", file=sys.stderr)
        return error.exit_code
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
