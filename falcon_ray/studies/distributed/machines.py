"""64 and 1,000 trials at once through the searcher and the ledger, on a fake clock.

The cluster has six types of GPU and a third of what the trials want at once, or less. What is
asked: that no trial is lost, none granted twice, nothing locked, and that the searcher, which
suggests one trial after the other, keeps up with the trials.
"""

import math

import numpy as np
from threadpoolctl import threadpool_limits

from falcon_ray.space.configuration import ConfigurationSpace
from falcon_ray.space.defaults import NodeShape
from falcon_ray.studies.distributed.virtual_search import (
    DURATIONS_S,
    SearchOutcome,
    VirtualSearch,
)
from falcon_ray.studies.figure import Figure

LARGEST_SHARE_PCT = 10.0
"""Of the time of a search that its suggestions may take: more would be the limit of it."""

CASES = ((64, 128), (1000, 1030))
"""Trials at once, and trials in all. What follows the first thousand is suggested with as many
pending or observed, which takes up to seconds each."""

SPACE = ConfigurationSpace.of(
    {
        "gpu_type": ("T4", "L4", "A10G", "V100", "A100", "H100"),
        "gpu_share": (0.25, 0.5, 1.0),
        "cpu_cores": (1, 2, 4),
        "batch_size": (1, 2, 4, 8, 16, 32, 64),
        "dtype": ("float32", "float16"),
        "replicas": (1, 2, 4),
    }
)

NODE_KINDS = (
    NodeShape(cpus=4, ram_gib=16.0, gpu_type="T4", n_gpus=1),
    NodeShape(cpus=8, ram_gib=32.0, gpu_type="L4", n_gpus=1),
    NodeShape(cpus=48, ram_gib=192.0, gpu_type="A10G", n_gpus=4),
    NodeShape(cpus=32, ram_gib=244.0, gpu_type="V100", n_gpus=4),
    NodeShape(cpus=96, ram_gib=1152.0, gpu_type="A100", n_gpus=8),
    NodeShape(cpus=192, ram_gib=2048.0, gpu_type="H100", n_gpus=8),
)
"""Of instances that can be rented, about."""


def cluster(parallel: int) -> dict[str, NodeShape]:
    """Nodes for so many trials at once, by node id: of each kind one for every 32 trials."""
    n_each = math.ceil(parallel / 32)
    return {f"{shape.gpu_type}-{i}": shape for shape in NODE_KINDS for i in range(n_each)}


def figures() -> list[Figure]:
    """What must not happen, and the time of a suggestion beside that of a trial."""
    found: list[Figure] = []
    with threadpool_limits(1):
        for parallel, trials in CASES:
            search = VirtualSearch(SPACE, cluster(parallel), parallel=parallel, trials=trials)
            found += case_figures(search.run(), parallel=parallel)
    return found


def case_figures(outcome: SearchOutcome, *, parallel: int) -> list[Figure]:
    """What one search comes to."""
    lost = sum(outcome.ended[f"trial{i}"] == 0 for i in range(outcome.n_suggested))
    twice = sum(n > 1 for n in (*outcome.ended.values(), *outcome.granted.values()))
    suggestion_s, tick_s = np.array(outcome.suggestion_s), np.array(outcome.tick_s)
    # The first ones fill the space, as nothing is measured yet, and cost little.
    informed_s = suggestion_s[parallel:]
    at_once = f"{parallel:,} at once: "
    return [
        Figure(
            name=at_once + "trials lost",
            value=lost,
            at_most=0,
            note=f"of {outcome.n_suggested:,}; at most {outcome.most_at_once:,} at once and "
            f"{outcome.most_holding:,} that held nodes; {outcome.n_silent} died silently, "
            f"{outcome.n_refused} were refused",
        ),
        Figure(name=at_once + "trials granted or ended twice", value=twice, at_most=0),
        Figure(
            name=at_once + "nodes that gave more than they have",
            value=outcome.n_overfull,
            at_most=0,
            note="looked at whenever something was granted",
        ),
        Figure(
            name=at_once + "deadlocks, and leases left",
            value=outcome.is_stuck + outcome.n_left,
            at_most=0,
        ),
        Figure(
            name=at_once + "suggestion, median",
            value=float(np.median(informed_s)),
            unit="s",
            note=f"on one core; a trial takes {np.median(outcome.trial_s):.0f} s (invented: "
            f"{DURATIONS_S[0]:g} to {DURATIONS_S[1]:g} s)",
        ),
        Figure(
            name=at_once + "suggestion, 95th percentile",
            value=float(np.quantile(informed_s, 0.95)),
            unit="s",
            note=f"worst {informed_s.max():.2g} s; of the {informed_s.size} once all {parallel:,} "
            f"were there; before that {np.median(suggestion_s[:parallel]):.2g} s, median",
        ),
        Figure(
            name=at_once + "time of all suggestions, of the search's",
            value=100 * float(suggestion_s.sum()) / outcome.end_s,
            unit="%",
            at_most=LARGEST_SHARE_PCT,
            note=f"{suggestion_s.sum():.0f} wall s of {outcome.end_s:.0f} fake s",
        ),
        Figure(
            name=at_once + "tick of the ledger, 95th percentile",
            value=1e3 * float(np.quantile(tick_s, 0.95)),
            unit="ms",
            note=f"worst {1e3 * tick_s.max():.0f} ms",
        ),
    ]
