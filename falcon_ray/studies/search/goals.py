"""Figures of a study beside the goals that a search is held to.

A figure whose methods did not run is left out. It knows methods by name and summaries. It does
not know which goal belongs to which table.
"""

from collections.abc import Sequence

from falcon_ray.studies.figure import Figure
from falcon_ray.studies.search.methods import OURS, PERMUTED, TREE_OFF
from falcon_ray.studies.search.summary import Estimate, saved_trials
from falcon_ray.studies.search.table_study import TableStudy


def ours(
    study: TableStudy,
    label: str,
    *,
    mean: float | None = None,
    median: float | None = None,
    p90: float | None = None,
    within_6: float | None = None,
    first_regret: float | None = None,
    wasted: float | None = None,
) -> list[Figure]:
    """Our own numbers on a table; each argument is a goal, or None where there is none.

    Args:
        study: What ran.
        label: The table, for people.
        mean: Trials to within 5 % at most.
        median: Likewise.
        p90: Likewise.
        within_6: Share of searches at least.
        first_regret: Mean regret after the first trial at most.
        wasted: Median of trials without a score before the first with one, at most.
    """
    own = study.summaries.get(OURS)
    if own is None:
        return []
    trials = "trials to within 5 %"
    return [
        _figure(f"{label}: {trials}, mean", own.mean, at_most=mean),
        _figure(f"{label}: {trials}, median", own.median, at_most=median),
        _figure(f"{label}: {trials}, p90", own.p90, at_most=p90),
        _figure(f"{label}: share within 6 trials", own.within_6, at_least=within_6),
        _figure(f"{label}: regret at trial 1", own.first_regret, at_most=first_regret),
        _figure(f"{label}: trials before the first success, median", own.wasted, at_most=wasted),
    ]


def fewer_than(
    study: TableStudy,
    label: str,
    opponents: Sequence[str],
    *,
    who: str,
    budget: int,
    at_least: float | None = None,
) -> list[Figure]:
    """How many trials ours saves against the opponent with the lowest mean.

    Args:
        study: What ran.
        label: The table, for people.
        opponents: Names of methods; those that did not run are left out.
        who: What they have in common, for people.
        budget: Of the runs.
        at_least: Goal, in per cent; not judged unless all opponents ran.
    """
    ran = [name for name in opponents if name in study.summaries]
    if not ran or OURS not in study.summaries:
        return []
    best = min(ran, key=lambda name: study.summaries[name].mean.value)
    saved = saved_trials(study.runs, OURS, best, budget=budget)
    return [
        Figure(
            name=f"{label}: fewer trials than the best {who}",
            value=100 * saved.value,
            unit="%",
            at_least=at_least if len(ran) == len(opponents) else None,
            note=f"95 % interval {100 * saved.low:.0f} to {100 * saved.high:.0f} under resampled "
            f"models; of {', '.join(ran)}: {best}, mean {study.summaries[best].mean}",
        )
    ]


def ablations(study: TableStudy, label: str, *, tree: float | None = None) -> list[Figure]:
    """What the tree costs, and what a wrong prior costs against none of either.

    Args:
        study: What ran.
        label: The table, for people.
        tree: Goal for the difference in mean trials to the search without a tree, at most.
    """
    found: list[Figure] = []
    own, flat, wrong, plain = (
        study.summaries.get(name) for name in (OURS, TREE_OFF, PERMUTED, "gp_ei")
    )
    if own is not None and flat is not None:
        found.append(
            Figure(
                name=f"{label}: the tree, difference in mean trials",
                value=own.mean.value - flat.mean.value,
                unit="trials",
                at_most=tree,
                note=f"{own.mean} with it, {flat.mean} without",
            )
        )
    if wrong is not None and plain is not None:
        found.append(
            Figure(
                name=f"{label}: a permuted prior against GP-EI, mean trials",
                value=wrong.mean.value - plain.mean.value,
                unit="trials",
                at_most=0.0,
                note=f"{wrong.mean} with it, GP-EI {plain.mean}",
            )
        )
    return found


def _figure(
    name: str,
    estimate: Estimate,
    *,
    at_most: float | None = None,
    at_least: float | None = None,
    note: str = "",
) -> Figure:
    interval = f"95 % interval {estimate.low:.3g} to {estimate.high:.3g} under resampled models"
    return Figure(
        name=name,
        value=estimate.value,
        at_most=at_most,
        at_least=at_least,
        note=f"{interval}; {note}" if note else interval,
    )
