"""A short benchmark that guards our numbers: every third real LLM task, our CPU tables, speed.

Its limits are the goals of the full studies with slack, for a few tasks scatter more than many.
Where the public tables are missing, what stands on them is left out and said to be.
"""

from falcon_ray.errors import InputError
from falcon_ray.studies.figure import Figure
from falcon_ray.studies.public_tables import public_table
from falcon_ray.studies.search import speed
from falcon_ray.studies.search.cpu_tasks import cpu_tasks
from falcon_ray.studies.search.goals import ablations, ours
from falcon_ray.studies.search.llm_tasks import llm_tasks
from falcon_ray.studies.search.methods import OURS, POPULARITY, TREE_OFF
from falcon_ray.studies.search.options import SearchStudyOptions
from falcon_ray.studies.search.table_study import run_table_study

_EVERY = 3
_METHODS = (OURS, TREE_OFF, "random", POPULARITY)
_TABLE = "llm_serving.parquet"


def figures(options: SearchStudyOptions) -> list[Figure]:
    """Ours beside two yardsticks, with limits that a mistake would break."""
    found = _language_models(options)
    study = run_table_study(
        "quick_cpu", cpu_tasks(), options, default_methods=_METHODS, default_seeds=3
    )
    found += ours(study, "CPU, quick", median=3, p90=8)
    # Times on a busy machine: four times the goals of the full study.
    for each in speed.figures(options):
        limit = None if each.at_most is None else 4 * each.at_most
        found.append(Figure(name=each.name, value=each.value, unit=each.unit, at_most=limit))
    return found


def _language_models(options: SearchStudyOptions) -> list[Figure]:
    try:
        public_table(_TABLE)
    except InputError:
        return [Figure(name=f"LLM tasks, left out without {_TABLE}", value=0)]
    tasks = llm_tasks(("main",))[::_EVERY]
    study = run_table_study("quick", tasks, options, default_methods=_METHODS, default_seeds=3)
    return [
        *ours(study, "LLM, quick", mean=3.5, within_6=0.85, first_regret=0.4),
        *ablations(study, "LLM, quick", tree=1.0),
    ]
