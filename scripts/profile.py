#!/usr/bin/env python
r"""Measures operators and models on every device of a cluster, as a job of it or by itself.

Usage: python scripts/profile.py [OPTION...]    options of `falcon-ray profile`
       ray job submit --address http://127.0.0.1:8265 --working-dir . -- \
           python scripts/profile.py [OPTION...]

Prints progress, and as its last line one JSON object: what was added to which profile, exit code.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Beside this file, Python's own `profile` would be hidden by ours.
sys.path[:] = [str(HERE.parent), *(each for each in sys.path if Path(each).resolve() != HERE)]

from falcon_ray.cli import job  # noqa: E402

if __name__ == "__main__":
    sys.exit(job.profile(sys.argv[1:]))
