"""Searches among 1,100 to 3,000 deployments of language models, some of which run out of memory.

The tables are composed from measured operators, not measured end to end: a test of scale and of
how infeasible candidates are handled, not evidence. SMAC, Ax and Optuna's Gaussian
process are left out unless they are named: each suggestion takes them a second or more.
"""

from falcon_ray.studies.figure import Figure
from falcon_ray.studies.search.goals import ablations, ours
from falcon_ray.studies.search.llm_tasks import llm_tasks
from falcon_ray.studies.search.methods import (
    OURS,
    PERMUTED,
    PRIOR_OFF,
    TRANSFER_PEERS,
    TREE_OFF,
)
from falcon_ray.studies.search.options import SearchStudyOptions
from falcon_ray.studies.search.table_study import run_table_study

_LABEL = "LLM, large"
_METHODS = (
    OURS,
    TREE_OFF,
    PRIOR_OFF,
    PERMUTED,
    "random",
    *TRANSFER_PEERS,
    "gp_ei",
    "optuna_tpe",
)
_N_SEEDS = 2
"""Fits to a thousand candidates and more are slow."""


def figures(options: SearchStudyOptions) -> list[Figure]:
    """Trials of the methods that scale, with goals for ours."""
    tasks = llm_tasks(("large",))
    study = run_table_study(
        "llm_large", tasks, options, default_methods=_METHODS, default_seeds=_N_SEEDS
    )
    return [
        *ours(study, _LABEL, median=2, p90=7, within_6=0.90, wasted=1),
        *ablations(study, _LABEL),
        *study.figures(),
    ]
