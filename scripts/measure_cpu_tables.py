"""Measures our own CPU tables, or builds them from a journal.

Usage: scripts/measure_cpu_tables [--journal DIRECTORY] [--output DIRECTORY] [--build-only]
"""

import argparse
import sys
from pathlib import Path

from falcon_ray.errors import FalconRayError
from falcon_ray.studies.search.cpu_measurement import build, measure
from falcon_ray.studies.search.cpu_trials import RecordedTrial

ROOT = Path(__file__).parent.parent


def show(number: int, each: RecordedTrial) -> None:
    """Print how one trial ended."""
    observation, measured = each.observation, each.observation.measurement
    what = observation.reason if measured is None else f"{measured.saturation_rps:.1f} requests/s"
    print(
        f"{number:>4}  repeat {each.trial.repeat}  {each.trial.model:<12} "
        f"{each.trial.configuration}: {what} ({each.wall_s:.1f} s)",
        flush=True,
    )


def main() -> int:
    """Measure what is missing, then build."""
    parser = argparse.ArgumentParser(description="Measure our own CPU tables.")
    parser.add_argument("--journal", type=Path, default=ROOT / "runs" / "cpu_tables")
    parser.add_argument("--output", type=Path, default=ROOT / "falcon_ray" / "data" / "tables")
    parser.add_argument("--repeats", type=int, default=2, help="of every configuration")
    parser.add_argument(
        "--again-beyond", type=float, default=0.1, help="measure once more what differs by more"
    )
    parser.add_argument("--build-only", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    try:
        if not arguments.build_only:
            trials = measure(
                arguments.journal,
                n_repeats=arguments.repeats,
                again_beyond=arguments.again_beyond,
            )
            for number, each in enumerate(trials, start=1):
                show(number, each)
        for path in build(arguments.journal, arguments.output):
            print(path)
    except FalconRayError as error:
        print(f"scripts/measure_cpu_tables: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
