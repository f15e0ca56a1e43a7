"""One study of searches: all methods on the tasks of a table, written down and summarised.

It knows how options, methods, comparison and results go together. It does not know what any of
the tables is about, nor a goal.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from falcon_ray.errors import InputError
from falcon_ray.optimizers.replay import ReplayTask
from falcon_ray.studies.figure import Figure
from falcon_ray.studies.search.comparison import compare
from falcon_ray.studies.search.methods import expert_names, installed, methods
from falcon_ray.studies.search.options import SearchStudyOptions
from falcon_ray.studies.search.prices import repriced
from falcon_ray.studies.search.results import write_results
from falcon_ray.studies.search.summary import MethodSummary, summarise


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TableStudy:
    """What a study found.

    Attributes:
        runs: One row per run; see `compare`.
        summaries: By method, in the order in which they ran.
        notes: Where results are and what was left out, one line each.
    """

    runs: pd.DataFrame
    summaries: dict[str, MethodSummary]
    notes: tuple[str, ...]

    def figures(self) -> list[Figure]:
        """Mean trials of every method, the other numbers in the note, without goals."""
        found = [
            Figure(
                name=f"{each.method}: trials to within 5 %, mean",
                value=each.mean.value,
                unit="trials",
                note=f"95 % interval {each.mean.low:.3g} to {each.mean.high:.3g}; median "
                f"{each.median.value:g}, p90 {each.p90.value:g}, within 6 {each.within_6.value:.2f}"
                f", regret at trial 1 {each.first_regret.value:.2f}; {each.n_runs:,} runs",
            )
            for each in self.summaries.values()
        ]
        if found and self.notes:
            last = found[-1]
            found[-1] = Figure(
                name=last.name,
                value=last.value,
                unit=last.unit,
                note="\n      ".join([last.note, *self.notes]),
            )
        return found


def run_table_study(
    name: str,
    tasks: Sequence[ReplayTask],
    options: SearchStudyOptions,
    *,
    default_methods: Sequence[str] = (),
    default_seeds: int | None = None,
    sources: Sequence[ReplayTask] | None = None,
) -> TableStudy:
    """Compare methods on tasks as the options say, and write the results.

    Each expert that all priors have becomes a method that has it alone.

    Args:
        name: Of the study and of its files.
        tasks: What is searched.
        options: See there.
        default_methods: Where the options name none; all when empty.
        default_seeds: Where the options give no number; None leaves each method its own.
        sources: What is learnt from, `tasks` where they are left out.

    Raises:
        InputError: A method is unknown, or none can run.
    """
    varied = repriced(tasks, options.prices)
    chosen, left_out = installed(
        methods(
            options.methods or default_methods,
            experts=expert_names(tasks),
            n_seeds=default_seeds if options.n_seeds is None else options.n_seeds,
            permute_prior=options.permute_prior,
        )
    )
    if not chosen:
        raise InputError(left_out)
    runs = compare(
        chosen,
        varied,
        sources=None if sources is None else repriced(sources, options.prices),
        budget=options.budget,
        batch_size=options.batch_size,
        noise_sd=options.noise_sd,
        n_jobs=options.n_jobs,
    )
    found = summarise(runs, budget=options.budget)
    written = write_results(
        runs,
        found,
        name=name,
        conditions=_conditions(options),
        budget=options.budget,
        output_dir=options.output_dir,
    )
    return TableStudy(
        runs=runs,
        summaries={each.method: each for each in found},
        notes=tuple(each for each in (left_out, *written) if each),
    )


def _conditions(options: SearchStudyOptions) -> str:
    said = [
        f"budget {options.budget}",
        f"batches of {options.batch_size}",
        f"noise {options.noise_sd:.0%}",
        f"prices {options.prices}",
    ]
    if options.permute_prior:
        said.append("our priors permuted")
    return ", ".join(said)
