"""What is said of a search in single lines; it does not know where they are shown."""

from falcon_ray.report.record import SearchHeader
from falcon_ray.report.valuation import Valuation
from falcon_ray.runtime.progress.state import SearchProgress
from falcon_ray.space.objective import Objective
from falcon_ray.space.observation import Measurement, Observation, TrialStatus
from falcon_ray.space.workload import Scenario


def opening(header: SearchHeader, *, n_done: int, max_trials: int) -> str:
    """What is searched, how far it may go, and for what."""
    done = f" ({n_done} done before)" if n_done else ""
    emulated = "; GPUs are emulated: rates are predicted, not measured" if header.emulated else ""
    return (
        f"Search {header.search_id}: {header.target}, {len(header.space)} configurations, up to "
        f"{max_trials} trials{done}; aim: most requests per dollar"
        f"{_conditions(header.objective)}{emulated}"
    )


def outcome(
    observation: Observation,
    valued: Valuation | None,
    *,
    is_best: bool,
    wall_s: float,
    usd: float | None,
    emulated: bool = False,
) -> str:
    """How a trial ended, how long it took and what it cost, or would have on real GPUs."""
    parts = "; ".join(_outcome(observation, valued, is_best=is_best))
    cost = "" if usd is None else f", {dollars(usd)} USD{' on real GPUs' if emulated else ''}"
    return f"{' '.join(parts.split())}, {wall_s:.0f} s{cost}"


def dollars(usd: float) -> str:
    """An amount with two decimals, and four where it is small."""
    return f"{usd:,.2f}" if usd >= 0.1 or usd == 0 else f"{usd:.4f}"


def best_so_far(progress: SearchProgress) -> str:
    """The highest score and what has it."""
    best = progress.best
    if best is None or best.score is None:
        return "Best so far: none"
    label = f"{progress.best_label}, " if progress.best_label else ""
    predicted = ", predicted" if _is_emulated(progress) else ""
    return (
        f"Best so far: {best.score:,.0f} requests per dollar{predicted}: "
        f"{label}{best.configuration}"
    )


def spend(progress: SearchProgress) -> str:
    """How much of the search is done, and what it cost of what it may, or would on real GPUs."""
    budget = ""
    if progress.max_cost_usd is not None:
        budget = f" of {dollars(progress.max_cost_usd)}"
    spent, real = "spent", ""
    if _is_emulated(progress):
        spent, real = "would have spent", " on real GPUs"
    return (
        f"{progress.n_ended} of {progress.max_trials} trials ended; {spent} "
        f"{dollars(progress.usd)}{budget} USD{real}"
    )


def _is_emulated(progress: SearchProgress) -> bool:
    return progress.header is not None and progress.header.emulated


def _outcome(observation: Observation, valued: Valuation | None, *, is_best: bool) -> list[str]:
    measured = observation.measurement
    if measured is None or valued is None:
        word = "infeasible" if observation.status is TrialStatus.INFEASIBLE else "failed"
        return [f"{word}: {observation.reason}"]
    parts = [_rates(measured)]
    if measured.slo_verdict is not None:
        parts.append(f"SLO {measured.slo_verdict}")
    if valued.score is not None:
        best = ", best so far" if is_best else ""
        parts.append(f"{valued.score:,.0f} requests per dollar{best}")
    elif valued.reason:
        parts.append(valued.reason)
    if measured.cut_short:
        parts.append(f"cut short: {measured.cut_short}")
    return parts


def _conditions(objective: Objective) -> str:
    """Which rate counts, as the end of a sentence."""
    slo, offered_rps = objective.slo, objective.offered_rps
    if objective.scenario is Scenario.OFFLINE:
        return " at saturation"
    alone = " with one in flight" if objective.scenario is Scenario.SINGLE_STREAM else ""
    given = "" if offered_rps is None else f" at {offered_rps:g}/s"
    if slo is None:
        return alone + given
    limit = f"p{slo.latency_percentile:g} within {slo.latency_budget_ms:g} ms"
    return f"{alone}{given}{' and' if alone else ' with'} {limit}"


def _rates(measured: Measurement) -> str:
    rate = f"{measured.saturation_rps:.4g} requests/s at saturation"
    if (low := measured.saturation_rps_ci_low) is not None:
        half = 100 * (measured.saturation_rps - low) / measured.saturation_rps
        rate += f" (±{half:.1f} %)"
    if measured.single_stream_rps is not None:
        rate += f", {measured.single_stream_rps:.4g}/s with one in flight"
    if measured.capacity_rps is not None:
        rate += f", {measured.capacity_rps:.4g}/s certified"
    return rate
