"""Where a search stands, as the part of a terminal that is drawn again and again.

It draws a state. It does not know where that comes from, nor when it is drawn.
"""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from falcon_ray.runtime.progress.state import RunningTrial, SearchProgress, Stage
from falcon_ray.runtime.progress.wording import best_so_far, spend
from falcon_ray.space.observation import TrialStatus

MAX_LISTED = 10
"""So many trials are listed; the rest is counted."""

_STAGES = (Stage.RUNNING, Stage.WAITING, Stage.PROVISIONING)
_STATUSES = (TrialStatus.MEASURED, TrialStatus.INFEASIBLE, TrialStatus.FAILED)
_LINES_BESIDE = 6
"""Lines that are neither an accelerator's nor a trial's: headings, gaps, the best, the spend."""


def live_table(progress: SearchProgress, *, now_s: float, height: int) -> RenderableType:
    """Counts by accelerator type, the trials that run, the best so far and the spend.

    Args:
        progress: What is drawn.
        now_s: By the clock that gave the trials their starts.
        height: Lines that there are; fewer trials are listed where they do not fit.
    """
    counts = _counts(progress)
    fitting = height - counts.row_count - _LINES_BESIDE
    return Group(
        counts,
        Text(""),
        *_trials(progress.running, now_s=now_s, n_listed=max(1, min(MAX_LISTED, fitting))),
        _line(best_so_far(progress)),
        _line(spend(progress)),
    )


def _counts(progress: SearchProgress) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("")
    for each in (*_STAGES, *_STATUSES):
        table.add_column(each.value, justify="right", no_wrap=True)
    for group in progress.counts():
        counted = [group.stages[each] for each in _STAGES]
        counted += [group.statuses[each] for each in _STATUSES]
        table.add_row(group.name, *(f"{n}" if n else "[dim]-[/dim]" for n in counted))
    return table


def _trials(
    running: tuple[RunningTrial, ...], *, now_s: float, n_listed: int
) -> list[RenderableType]:
    # Those that do something come first; a sort keeps the order in which they started.
    ordered = sorted(running, key=lambda each: each.stage is not Stage.RUNNING)
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True, max_width=32)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for each in ordered[:n_listed]:
        table.add_row(
            Text(each.label, style="bold"),
            Text(f"{now_s - each.start_s:.0f} s"),
            Text(each.phase),
            Text(f"{each.configuration}", style="dim"),
        )
    drawn: list[RenderableType] = [table]
    if (n_more := len(ordered) - n_listed) > 0:
        drawn.append(Text(f"and {n_more} more", style="dim"))
    return drawn if ordered else []


def _line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")
