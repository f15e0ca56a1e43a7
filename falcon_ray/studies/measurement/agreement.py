"""How far reported numbers lie from the true ones, ours and those of the three-window rule.

It knows trials of a service whose answer is known. It does not know whether they were real.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from falcon_ray.space.configuration import FloatArray
from falcon_ray.studies.figure import Figure
from falcon_ray.studies.measurement.three_windows import three_windows
from falcon_ray.studies.measurement.truth import saturated_percentile_ms
from falcon_ray.studies.measurement.virtual_trials import TrialOutcome
from falcon_ray.trial.known_service import KnownService

THROUGHPUT_GOAL_PCT = 2.0
P99_GOAL_PCT = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class Agreement:
    """Of each trial, relative to the truth; shapes (n,).

    Attributes:
        throughput_pct: Error of the throughput, in percent.
        p99_pct: Error of the 99th percentile, in percent.
        covers: Whether the true throughput lies in the stated interval.
        half_width_pct: Half of that interval.
        load_s: Seconds of load that the trial took.
    """

    throughput_pct: FloatArray
    p99_pct: FloatArray
    covers: FloatArray
    half_width_pct: FloatArray
    load_s: FloatArray


def agreement(service: KnownService, outcomes: Sequence[TrialOutcome]) -> Agreement:
    """Hold what trials said against the truth."""
    true_rps, true_p99_ms = service.saturation_rps, saturated_percentile_ms(service)
    rows: list[tuple[float, ...]] = []
    for each in outcomes:
        said = each.measurement
        low, high = said.saturation_rps_ci_low, said.saturation_rps_ci_high
        assert low is not None, "the recipe states an interval"
        assert high is not None, "likewise"
        assert said.latency_p99_ms is not None, "likewise"
        rows.append(
            (
                100 * (said.saturation_rps / true_rps - 1),
                100 * (said.latency_p99_ms / true_p99_ms - 1),
                float(low <= true_rps <= high),
                50 * (high - low) / said.saturation_rps,
                float(np.ptp(each.saturated.done_s)),
            )
        )
    return Agreement(*np.asarray(rows).T)


def our_figures(
    found: Agreement, case: str, *, note: str, covers_at_least: int, worst_within: bool
) -> list[Figure]:
    """What our trials made of one service.

    Args:
        found: Of all of them.
        case: Which service, for people.
        note: How they were run.
        covers_at_least: Intervals that have to hold the truth.
        worst_within: Whether the goal is set for the worst trial, else for the median one.
    """
    errors, tails = np.abs(found.throughput_pct), np.abs(found.p99_pct)
    n = errors.size
    load_s, half_pct = found.load_s.mean(), found.half_width_pct.mean()
    seconds = f"{load_s:.1f} s of load each, intervals of +-{half_pct:.1f} %"
    return [
        Figure(
            name=f"{case}: intervals that hold the true throughput",
            value=float(found.covers.sum()),
            unit=f"of {n}",
            at_least=covers_at_least,
            note=f"{note}; {seconds}",
        ),
        Figure(
            name=f"{case}: error of throughput, {'worst' if worst_within else 'median'}",
            value=float(errors.max() if worst_within else np.median(errors)),
            unit="%",
            at_most=THROUGHPUT_GOAL_PCT,
            note=(
                f"median {np.median(errors):.2f} %, worst {errors.max():.2f} %, "
                f"mean {found.throughput_pct.mean():+.2f} %"
            ),
        ),
        Figure(
            name=f"{case}: error of p99, {'worst' if worst_within else 'median'}",
            value=float(tails.max() if worst_within else np.median(tails)),
            unit="%",
            at_most=P99_GOAL_PCT,
            note=(
                f"median {np.median(tails):.2f} %, worst {tails.max():.2f} %, "
                f"mean {found.p99_pct.mean():+.2f} %; truth from a million requests"
            ),
        ),
    ]


def three_window_figures(
    service: KnownService, outcomes: Sequence[TrialOutcome], case: str, *, window_s: float
) -> list[Figure]:
    """What the three-window rule makes of the very same requests; no goal is set for it."""
    errors: list[float] = []
    tails: list[float] = []
    ends_s: list[float] = []
    n_unstable = 0
    for each in outcomes:
        log = each.saturated
        said = three_windows(log, start_s=float(log.intended_s.min()), window_s=window_s)
        if said is None:
            continue
        errors.append(100 * (said.throughput_rps / service.saturation_rps - 1))
        tails.append(100 * (said.latency_p99_ms / saturated_percentile_ms(service) - 1))
        ends_s.append(said.ended_s)
        n_unstable += not said.stable
    if not errors:
        return []
    return [
        Figure(
            name=f"{case}: {window_s:g} s windows, three in a row: error of throughput",
            value=float(np.median(np.abs(errors))),
            unit="%",
            note=(
                f"the same requests, {len(errors)} of {len(outcomes)} long enough, {n_unstable} "
                f"never stable; mean {np.mean(errors):+.2f} %, worst {np.abs(errors).max():.2f} %, "
                f"after {np.mean(ends_s):.1f} s; p99 off by {np.median(np.abs(tails)):.2f} %, "
                f"worst {np.abs(tails).max():.2f} %"
            ),
        )
    ]
