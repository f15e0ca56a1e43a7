"""A picture of regret over trials, a line and a band for every method.

It needs matplotlib, of the `bench` extra, and says so where that is missing.
"""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from falcon_ray.studies.search.comparison import regret_columns

BAND = (0.1, 0.9)
"""Between these quantiles over tasks lies the band."""
_N_COLOURS = 10
_LINE_STYLES = ("solid", "dashed", "dotted")


def draw_regrets(runs: pd.DataFrame, *, budget: int, title: str, path: Path) -> str:
    """Draw mean regret over tasks after every trial, with a band from 10 to 90 % of tasks.

    Args:
        runs: From `compare`; seeds of a task are averaged first.
        budget: Of the runs.
        title: Above the picture.
        path: Where to write it, as PNG.

    Returns:
        One line: where it is, or that matplotlib is missing.
    """
    try:
        figures: Any = importlib.import_module("matplotlib.figure")
    except ModuleNotFoundError:
        return "no picture: matplotlib is not installed; run scripts/environment bench"
    columns = regret_columns(budget)
    by_task = runs.groupby(["method", "task"], sort=False)[columns].mean()
    # A figure of its own, without pyplot: no window, no state of a module.
    figure = figures.Figure(figsize=(9, 6), layout="constrained")
    axes = figure.add_subplot()
    trials = np.arange(1, budget + 1)
    for i, name in enumerate(runs["method"].unique()):
        own = by_task.loc[name]
        low, high = (own.quantile(level) for level in BAND)
        # There are ten colours, so every further ten methods have a dash of their own.
        style = _LINE_STYLES[i // _N_COLOURS % len(_LINE_STYLES)]
        (line,) = axes.plot(trials, own.mean(), label=name, linestyle=style)
        axes.fill_between(trials, low, high, color=line.get_color(), alpha=0.08, linewidth=0)
    axes.set(
        title=f"{title}: {runs['task'].nunique()} tasks, bands hold 80 % of them",
        xlabel="trial",
        ylabel="regret: share of the best score that is missing",
        xlim=(1, max(budget, 2)),
        ylim=(0, 1),
    )
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)
    return f"picture: {path}"
