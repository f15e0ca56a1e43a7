#!/usr/bin/env python
r"""Prints the report of a search that a job has run, or runs, as one line of JSON.

Usage: python scripts/report.py DIRECTORY
       ray job submit --address http://127.0.0.1:8265 --working-dir . -- \
           python scripts/report.py DIRECTORY

DIRECTORY is the run directory that the search named; a relative one counts from where runs are
kept, see scripts/search.py.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Beside this file, Python's own `profile` would be hidden by ours.
sys.path[:] = [str(HERE.parent), *(each for each in sys.path if Path(each).resolve() != HERE)]

from falcon_ray.cli import job  # noqa: E402

if __name__ == "__main__":
    sys.exit(job.report(sys.argv[1:]))
