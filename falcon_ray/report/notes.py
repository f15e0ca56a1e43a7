"""What to know beside the table: how trials were loaded, limited and judged, and what they cost.

Each note is one line of plain text that stands by itself. The module does not know terminals.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from falcon_ray.report.files import request_files
from falcon_ray.report.nothing_feasible import NothingFeasible
from falcon_ray.report.overhead import machinery_overhead_s
from falcon_ray.report.recommendation import Recommendation
from falcon_ray.report.record import SearchRecord
from falcon_ray.report.sensitivity import price_sensitivity
from falcon_ray.report.valuation import describe_verdict, value_trials
from falcon_ray.report.wording import describe_count, describe_fixed, describe_percent
from falcon_ray.space.observation import Measurement
from falcon_ray.space.workload import LoadPath, Scenario

KeyT = TypeVar("KeyT", bound=Hashable)

_PATHS = {
    LoadPath.HANDLE.value: "through a Serve deployment handle",
    LoadPath.HTTP.value: "through Serve's HTTP proxy",
    LoadPath.REPLICA.value: "inside the replica, without Serve's request path",
}
_SCENARIOS = {
    Scenario.OFFLINE: "closed loop with every queue full",
    Scenario.SERVER: "open loop, latency from the intended send time",
    Scenario.SINGLE_STREAM: "one request at a time",
}
_SHARED_BY = {"compute": "gpu_share", "memory": "gpu_memory_gib"}
"""Limits that matter only where this dimension is searched."""
_ELSEWHERE = frozenset({"cores", "nodes", "warning"})
"""Facts that differ from trial to trial and are no part of the line on the environment."""


def notes(
    record: SearchRecord, found: Recommendation | NothingFeasible, directory: Path | None = None
) -> Iterator[str]:
    """All notes on a search, the most important ones first.

    Args:
        record: The search.
        found: What it recommends.
        directory: The run directory, to say what else lies there; None where that is not known.
    """
    yield from _emulated(record)
    yield from _legend(record, found)
    if isinstance(found, Recommendation) and found.note:
        yield found.note
    yield from _reasons(record)
    yield from _verdicts(record)
    yield from _load(record)
    yield from _limits(record)
    yield from _environment(record)
    if isinstance(found, Recommendation):
        yield from _serve_overhead(record, found)
    yield from _unsettled(record)
    yield from _path_limited(record)
    overhead = machinery_overhead_s(record)
    if overhead.median_s is not None:
        yield (
            f"Overhead: deploying, deleting and bookkeeping took {overhead.median_s:.1f} s per "
            f"trial (median of {len(overhead.seconds_by_trial)}), beside warm-up and measurement."
        )
    yield from _prices(record)
    yield from _end(record)
    n_files = 0 if directory is None else len(request_files(directory))
    if n_files:
        yield f"Raw requests: {n_files} Parquet files in {directory}/requests."


def _emulated(record: SearchRecord) -> Iterator[str]:
    if record.header.emulated:
        yield (
            "Emulated: no GPU did any work. Replicas took the times and the memory that their "
            "batches are predicted to take, so the numbers are for planning; search on real GPUs "
            "before you rely on them. Nothing is exported unless you say --allow-emulated."
        )


def _legend(record: SearchRecord, found: Recommendation | NothingFeasible) -> Iterator[str]:
    marks = ["* recommended"] * isinstance(found, Recommendation)
    if record.header.baseline is not None:
        marks.append("b baseline")
    if record.header.objective.scenario is Scenario.OFFLINE:
        marks.append("±% half of the 95 % interval within one deployment")
    if record.confirmations:
        marks.append("again: measured afresh at the end, by rounds")
    if fixed := describe_fixed(record.header.space):
        marks.append(f"the same everywhere: {fixed}")
    if record.trials and marks:
        yield ", ".join(marks)


def _reasons(record: SearchRecord) -> Iterator[str]:
    header = record.header
    trials = value_trials(record.trials, header.objective, header.pricing)
    for trial, valued in zip(record.trials, trials, strict=True):
        if valued.score is None:
            yield f"Trial {trial.number}, {describe_verdict(valued)}: {valued.reason}"
    for why, cut in _trials_by(record, lambda measured: measured.cut_short).items():
        if why:
            yield f"Cut short, {why}: {', '.join(cut)}."
    for each in record.interrupted:
        yield f"Trial {each.number}, no end recorded: {each.configuration}"


def _verdicts(record: SearchRecord) -> Iterator[str]:
    groups = _trials_by(record, lambda measured: measured.slo_verdict)
    told = [
        f"{verdict} in {', '.join(groups[verdict])}"
        for verdict in ("met", "violated", "undecided")
        if verdict in groups
    ]
    if told:
        yield f"SLO by trial: {'; '.join(told)}."
    yield from _certified_rates(record)


def _certified_rates(record: SearchRecord) -> Iterator[str]:
    """How near the certified rates are to the highest ones, where that was looked for."""
    step = record.header.capacity_step
    if record.header.objective.scenario is not Scenario.SERVER or step is None:
        return
    groups = _trials_by(record, _is_resolved)
    if True in groups:
        yield (
            "Certified rates: the next rate that was tried, at most "
            f"{100 * step:g} % higher, was not certified ({_named(groups[True])})."
        )
    if False in groups:
        yield (
            f"Certified rates of {_named(groups[False])}: lower bounds, as no higher rates were "
            "tried once they could not win."
        )


def _is_resolved(measured: Measurement) -> bool | None:
    """Whether a certified rate was searched to the end; None where there is none."""
    return None if measured.capacity_rps is None else not measured.cut_short


def _load(record: SearchRecord) -> Iterator[str]:
    how = _SCENARIOS[record.header.objective.scenario]
    paths = _trials_by(record, lambda measured: measured.load_path)
    for path, trials in paths.items():
        where = "" if len(paths) == 1 else f" ({_named(trials)})"
        yield f"Load: {_PATHS.get(path, path)}{where}, {how}."
    drivers = _trials_by(record, lambda measured: measured.n_drivers)
    several = [f"{n} in {', '.join(trials)}" for n, trials in sorted(drivers.items()) if n > 1]
    if several:
        yield f"Drivers, where more than one sent the load: {'; '.join(several)}."


def _limits(record: SearchRecord) -> Iterator[str]:
    names = {each.name for each in record.header.space.dimensions}
    groups = _trials_by(record, lambda measured: _enforced(measured.enforcement, names))
    for (held, missing), trials in groups.items():
        if not held and not missing:
            continue
        where = "" if len(groups) == 1 else f" ({_named(trials)})"
        open_ = f"; not enforced: {', '.join(missing)}" if missing else ""
        yield f"Limits{where}: {', '.join(held)}{open_}."


def _enforced(
    enforcement: Mapping[str, str], dimensions: set[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """How limits were held, and which that the search relies on were not."""
    held: list[str] = []
    missing: list[str] = []
    for limit, how in sorted(enforcement.items()):
        searched = _SHARED_BY.get(limit) in dimensions
        if how == "none" and searched:
            missing.append(limit)
        elif limit != "compute" or searched or how != "none":
            held.append(f"{limit} {how}")
    return tuple(held), tuple(missing)


def _environment(record: SearchRecord) -> Iterator[str]:
    found: dict[str, dict[str, None]] = {}
    for trial in record.trials:
        measured = trial.observation.measurement
        if measured is None:
            continue
        for name, told in measured.environment.items():
            if name not in trial.observation.configuration and name not in _ELSEWHERE:
                found.setdefault(name, {})[told] = None
    parts = [f"{name} {' or '.join(values)}" for name, values in found.items()]
    parts += [
        f"{name} {told}" for name, told in record.header.versions.items() if name not in found
    ]
    if record.trials and parts:
        yield f"Environment: {', '.join(parts)}."
    warned = _trials_by(record, lambda measured: measured.environment.get("warning"))
    for warning, trials in warned.items():
        if warning:
            yield f"Warning in {_named(trials)}: {warning}"


def _serve_overhead(record: SearchRecord, found: Recommendation) -> Iterator[str]:
    measured = [
        each.measurement
        for each in record.observations
        if each.configuration == found.configuration and each.measurement is not None
    ]
    for each in measured[-1:]:
        if each.model_rps is None or each.load_path == LoadPath.REPLICA.value:
            continue
        share = each.saturation_rps / each.model_rps
        yield (
            f"Serve's path delivers {describe_count(each.saturation_rps)} of the "
            f"{describe_count(each.model_rps)} requests/s that the model answers behind its "
            f"own queue ({describe_percent(share)})."
        )


def _unsettled(record: SearchRecord) -> Iterator[str]:
    if cold := _trials_by(record, lambda measured: measured.warm).get(False):
        yield f"Still drifting when the warm-up's time was up: {', '.join(cold)}."
    if vague := _trials_by(record, _ran_out_of_time).get(True):
        yield f"Interval still wider than asked when the time was up: {', '.join(vague)}."


def _ran_out_of_time(measured: Measurement) -> bool:
    return not measured.precise and not measured.cut_short


def _path_limited(record: SearchRecord) -> Iterator[str]:
    limited = _trials_by(record, lambda measured: measured.path_limited).get(True)
    if limited:
        every = len(limited) == len(record.trials) > 1
        yield (
            f"Serve's path (the load's driver included), not the model, set the rate of "
            f"{'all trials' if every else _named(limited)}: a faster model buys little there."
        )


def _prices(record: SearchRecord) -> Iterator[str]:
    header = record.header
    trials = value_trials(record.trials, header.objective, header.pricing)
    used = {each.instance_type for each in trials}
    for each in header.pricing.instances:
        if each.instance_type in used:
            dated = "undated" if each.price_date is None else f"{each.price_date}"
            yield (
                f"Price: {each.instance_type} {each.usd_per_hour:.4g} USD/h, {each.region}, "
                f"{dated} ({each.price_source})."
            )
    if used:
        yield price_sensitivity(record.trials, header.objective, header.pricing).sentence


def _end(record: SearchRecord) -> Iterator[str]:
    yield f"Stopped: {record.end_reason or 'not yet; it is running, or was interrupted'}."
    end = record.conclusion
    if end is None or end.expected_gain is None:
        return
    chance = end.probability_of_better
    beyond = (
        ""
        if chance is None
        else f"; anything untried is more than 5 % better with probability {100 * chance:.0f} %"
    )
    yield f"One more trial was expected to gain {100 * end.expected_gain:.1f} %{beyond}."


def _named(numbers: Sequence[str]) -> str:
    return f"trial{'s' * (len(numbers) > 1)} {', '.join(numbers)}"


def _trials_by(record: SearchRecord, key: Callable[[Measurement], KeyT]) -> dict[KeyT, list[str]]:
    """The numbers of the measured trials, by something that their measurements say."""
    groups: dict[KeyT, list[str]] = {}
    for trial in record.trials:
        if trial.observation.measurement is not None:
            groups.setdefault(key(trial.observation.measurement), []).append(str(trial.number))
    return groups
