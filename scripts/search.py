#!/usr/bin/env python
r"""Searches for the best configuration of a model, as a job of a Ray cluster or by itself.

Usage: python scripts/search.py MODEL [OPTION...]    options of `falcon-ray search`
       ray job submit --address http://127.0.0.1:8265 --working-dir . -- \
           python scripts/search.py MODEL [OPTION...]

Prints progress, and as its last line one JSON object: run directory, recommended configuration,
requests per dollar with their interval, dollars spent, exit code. Exit codes are those of
`falcon-ray`. A job loses the directory that it runs in, so its run directory is made under
FALCON_RAY_RUNS, by default ~/falcon_ray/runs on the node that the job runs on.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Beside this file, Python's own `profile` would be hidden by ours.
sys.path[:] = [str(HERE.parent), *(each for each in sys.path if Path(each).resolve() != HERE)]

from falcon_ray.cli import job  # noqa: E402

if __name__ == "__main__":
    sys.exit(job.search(sys.argv[1:]))
