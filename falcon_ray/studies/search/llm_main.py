"""Searches on real measured deployments of language models, each family held out.

37 tasks of six models in four families stand behind every figure; tasks of one model share rows.
"""

from collections.abc import Sequence

from falcon_ray.optimizers.replay import ReplayTask
from falcon_ray.studies.figure import Figure
from falcon_ray.studies.search.comparison import compare
from falcon_ray.studies.search.goals import ablations, fewer_than, ours
from falcon_ray.studies.search.llm_tasks import llm_tasks
from falcon_ray.studies.search.methods import BLACK_BOX_PEERS, OURS, TRANSFER_PEERS, methods
from falcon_ray.studies.search.options import SearchStudyOptions
from falcon_ray.studies.search.prices import repriced
from falcon_ray.studies.search.summary import MethodSummary, summarise
from falcon_ray.studies.search.table_study import run_table_study

_LABEL = "LLM"
_NOISE_SD = 0.1
_BATCH = 4
_N_SEEDS = 20


def figures(options: SearchStudyOptions) -> list[Figure]:
    """Trials of every method, goals for ours, and ours under noise and in batches."""
    tasks = llm_tasks(("main",))
    study = run_table_study("llm_main", tasks, options)
    found = [
        *ours(study, _LABEL, mean=2.6, p90=5, within_6=0.93, first_regret=0.27, wasted=1),
        *fewer_than(
            study,
            _LABEL,
            BLACK_BOX_PEERS,
            who="black-box peer",
            budget=options.budget,
            at_least=77,
        ),
        *fewer_than(
            study,
            _LABEL,
            TRANSFER_PEERS,
            who="transfer peer",
            budget=options.budget,
            at_least=60,
        ),
        *ablations(study, _LABEL, tree=0.1),
    ]
    if OURS in study.summaries and options.noise_sd == 0 and options.batch_size == 1:
        found += _conditions(repriced(tasks, options.prices), options)
    return [*found, *study.figures()]


def _conditions(tasks: Sequence[ReplayTask], options: SearchStudyOptions) -> list[Figure]:
    """Ours under noise and four at a time, with the same seeds."""
    n_seeds = options.n_seeds or _N_SEEDS
    chosen = methods([OURS], n_seeds=n_seeds, permute_prior=options.permute_prior)

    def run(batch_size: int, noise_sd: float) -> MethodSummary:
        runs = compare(
            chosen,
            tasks,
            budget=options.budget,
            batch_size=batch_size,
            noise_sd=noise_sd,
            n_jobs=options.n_jobs,
        )
        return summarise(runs, budget=options.budget)[0]

    quiet, noisy, batched = run(1, 0.0), run(1, _NOISE_SD), run(_BATCH, 0.0)
    return [
        Figure(
            name=f"{_LABEL}: {_NOISE_SD:.0%} noise, more trials in the mean",
            value=100 * (noisy.mean.value / quiet.mean.value - 1),
            unit="%",
            at_most=15,
            note=f"{noisy.mean} trials over {n_seeds} seeds, {quiet.mean} without noise",
        ),
        Figure(
            name=f"{_LABEL}: rounds of {_BATCH} to within 5 %, p90",
            value=float(-(-batched.p90.value // _BATCH)),
            at_most=2,
            note=f"p90 {batched.p90} trials",
        ),
    ]
