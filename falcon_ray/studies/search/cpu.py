"""Searches on our own table of real Serve trials on a CPU machine."""

from falcon_ray.studies.figure import Figure
from falcon_ray.studies.search.cpu_tasks import cpu_tasks
from falcon_ray.studies.search.goals import ablations, ours
from falcon_ray.studies.search.options import SearchStudyOptions
from falcon_ray.studies.search.table_study import run_table_study

_LABEL = "CPU"


def figures(options: SearchStudyOptions) -> list[Figure]:
    """Trials of every method, with goals for ours."""
    study = run_table_study("cpu", cpu_tasks(), options)
    return [
        *ours(study, _LABEL, median=2, p90=4),
        *ablations(study, _LABEL),
        *study.figures(),
    ]
