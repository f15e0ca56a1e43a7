"""Searches for device, layout, dtype and compiler of a vision model, on real throughput."""

from falcon_ray.studies.figure import Figure
from falcon_ray.studies.search.goals import ablations, fewer_than, ours
from falcon_ray.studies.search.methods import (
    OURS,
    PERMUTED,
    PRIOR_OFF,
    TREE_OFF,
)
from falcon_ray.studies.search.options import SearchStudyOptions
from falcon_ray.studies.search.table_study import run_table_study
from falcon_ray.studies.search.vision_tasks import vision_tasks

_LABEL = "vision"
_METHODS = (
    OURS,
    TREE_OFF,
    PRIOR_OFF,
    PERMUTED,
    "random",
    "gp_ei",
)
_N_SEEDS = 1
"""There are many tasks; seeds add little to them."""


def figures(options: SearchStudyOptions) -> list[Figure]:
    """Trials of the methods that are fast enough for many tasks, with goals for ours."""
    study = run_table_study(
        "vision", vision_tasks(), options, default_methods=_METHODS, default_seeds=_N_SEEDS
    )
    return [
        *ours(study, _LABEL, median=1, p90=2),
        *fewer_than(study, _LABEL, ("gp_ei",), who="black-box peer", budget=options.budget),
        *ablations(study, _LABEL),
        *study.figures(),
    ]
