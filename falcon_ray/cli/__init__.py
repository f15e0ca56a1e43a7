"""The command line, `falcon-ray`.

Commands import what they need when they run, so that `--help` loads neither Ray nor torch.
Exit codes: 0 done, 2 bad input, 3 nothing feasible, 4 cluster, 5 interrupted and resumable.
"""

from falcon_ray.cli.entry_point import commands, main

__all__ = ["commands", "main"]
