"""Writes what runs of a comparison say: every run as Parquet, a table in Markdown, a picture.

It knows the columns of `compare` and the fields of a summary. It runs nothing.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from falcon_ray.studies.search.picture import draw_regrets
from falcon_ray.studies.search.summary import MethodSummary

_COLUMNS = (
    "method",
    "runs",
    "mean",
    "median",
    "p90",
    "within 6",
    "mean to 10 %",
    "regret at trial 1",
    "wasted",
    "ms",
)


def write_results(
    runs: pd.DataFrame,
    summaries: Sequence[MethodSummary],
    *,
    name: str,
    conditions: str,
    budget: int,
    output_dir: Path,
) -> list[str]:
    """Write NAME.parquet, NAME.md and NAME.png.

    Args:
        runs: From `compare`.
        summaries: Of them.
        name: Of the study.
        conditions: How they were run, one line.
        budget: Of the runs.
        output_dir: Made where it is missing.

    Returns:
        One line for each file: where it is, or why it is missing.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    table = output_dir / f"{name}.parquet"
    runs.to_parquet(table, index=False)
    text = output_dir / f"{name}.md"
    text.write_text(markdown(summaries, runs, name=name, conditions=conditions), encoding="utf-8")
    picture = draw_regrets(runs, budget=budget, title=name, path=output_dir / f"{name}.png")
    return [f"every run: {table}", f"table: {text}", picture]


def markdown(
    summaries: Sequence[MethodSummary], runs: pd.DataFrame, *, name: str, conditions: str
) -> str:
    """The table of all methods, intervals in brackets."""
    of_what = (
        f"{runs['task'].nunique()} tasks of {runs['model'].nunique()} models in "
        f"{runs['family'].nunique()} families; {conditions}. Trials until a configuration within "
        "5 % of the best feasible one has been tried; a miss counts one more than the budget in "
        "the mean and 99 in quantiles. Wasted: median of the trials without a score before the "
        "first with one. Brackets: 95 % intervals under resampled models."
    )
    lines = [
        f"# {name}",
        "",
        of_what,
        "",
        f"| {' | '.join(_COLUMNS)} |",
        f"|---|{'--:|' * (len(_COLUMNS) - 1)}",
    ]
    for each in summaries:
        cells = (
            each.method,
            f"{each.n_runs:,}",
            each.mean,
            each.median,
            each.p90,
            each.within_6,
            each.mean_to_10,
            each.first_regret,
            each.wasted,
            f"{each.suggestion_ms:.2g}",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"
