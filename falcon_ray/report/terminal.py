"""The report on a terminal: one sentence, a table of trials, and what to know about both.

It reads well at 80 columns, and without colour where the output is no terminal. Text from
outside is never taken for markup.
"""

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement as Width
from rich.table import Table
from rich.text import Text

from falcon_ray.report.recommendation import NothingFeasible, Recommendation, recommend
from falcon_ray.report.record import SearchRecord, machinery_overhead_s
from falcon_ray.report.sensitivity import price_sensitivity
from falcon_ray.report.valuation import Valuation, Verdict, value, value_trials
from falcon_ray.report.wording import describe_count, describe_fixed, describe_percent
from falcon_ray.space.configuration import Configuration

_LATENCIES = {50.0: "p50", 90.0: "p90", 95.0: "p95", 99.0: "p99", 99.9: "p999"}
_STYLES = {Verdict.FEASIBLE: "", Verdict.FAILED: "yellow"}


def print_report(console: Console, record: SearchRecord) -> None:
    """Print the report of a search that ended, was interrupted or is still running."""
    found = recommend(record)
    good = isinstance(found, Recommendation)
    console.print(Text(found.sentence, style="bold green" if good else "bold yellow"))
    if record.trials:
        console.print(_table(console, record, found))
    for note in _notes(record, found):
        console.print(Text(note))


def _table(
    console: Console, record: SearchRecord, found: Recommendation | NothingFeasible
) -> Table:
    """One column per dimension where that fits the width, else one for the configuration."""
    space = record.header.space
    names = [each.name for each in space.dimensions if len(each.values) > 1]
    names = names or [each.name for each in space.dimensions]
    wide = _filled(record, found, names, together=False)
    unlimited = console.options.update(max_width=1000)
    if Width.get(console, unlimited, wide).maximum <= console.width:
        return wide
    return _filled(record, found, names, together=True)


def _filled(
    record: SearchRecord,
    found: Recommendation | NothingFeasible,
    names: Sequence[str],
    *,
    together: bool,
) -> Table:
    header = record.header
    slo = header.objective.slo
    latency = _LATENCIES.get(99.0 if slo is None else slo.latency_percentile, "p99")
    table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column("trial")
    if together:
        table.add_column("configuration", overflow="fold")
    else:
        for name in names:
            table.add_column(name.replace("_", "\n"), justify="right")
    for title in ("requests\n/s", f"{latency}\nms", "USD\n/h", "requests\n/USD"):
        table.add_column(title, justify="right", no_wrap=True)

    def add(label: str, valued: Valuation) -> None:
        values = [str(valued.configuration.get(name, "")) for name in names]
        pairs = [f"{name}={each}" for name, each in zip(names, values, strict=True)]
        cells = [label, *([" ".join(pairs)] if together else values), *_numbers(valued, latency)]
        best = isinstance(found, Recommendation) and valued.configuration == found.configuration
        style = "bold green" if best and valued.score else _STYLES.get(valued.verdict, "dim")
        table.add_row(*(Text(cell) for cell in cells), style=style)

    trials = value_trials(record.trials, header.objective, header.pricing)
    for trial, valued in zip(record.trials, trials, strict=True):
        add(f"{trial.number}{_mark(record, found, valued.configuration)}", valued)
    if record.confirmations:
        table.add_section()
    for each in record.confirmations:
        valued = value(each.observation, header.objective, header.pricing)
        add(f"again{_mark(record, found, valued.configuration)}", valued)
    return table


def _mark(
    record: SearchRecord, found: Recommendation | NothingFeasible, configuration: Configuration
) -> str:
    best = isinstance(found, Recommendation) and configuration == found.configuration
    return " *" * best + " b" * (configuration == record.header.baseline)


def _numbers(valued: Valuation, latency: str) -> list[str]:
    """Rate, latency, price and score; the verdict in the place of a score that there is not."""
    measured = valued.measurement
    rate = valued.rate_rps
    tail = None if measured is None else measured.metric(f"latency_{latency}_ms")
    return [
        "" if rate is None else describe_count(rate),
        "" if tail is None else describe_count(tail),
        f"{valued.usd_per_hour:.3g}",
        _verdict(valued) if valued.score is None else describe_count(valued.score),
    ]


def _verdict(valued: Valuation) -> str:
    return "over SLO" if valued.verdict is Verdict.OVER_SLO else valued.verdict.value


def _notes(record: SearchRecord, found: Recommendation | NothingFeasible) -> Iterator[str]:
    yield from _legend(record, found)
    yield from _reasons(record)
    if isinstance(found, Recommendation):
        yield from _serve_overhead(found)
    yield from _unsettled(record)
    yield from _path_limited(record)
    overhead = machinery_overhead_s(record)
    if overhead.median_s is not None:
        yield (
            f"Overhead: deploying, deleting and bookkeeping took {overhead.median_s:.1f} s per "
            f"trial (median of {len(overhead.seconds_by_trial)}), beside warm-up and measurement."
        )
    yield from _prices(record)
    yield f"Stopped: {record.end_reason or 'not yet; it is running, or was interrupted'}."
    if (end := record.conclusion) is not None and end.expected_gain is not None:
        chance = end.probability_of_better
        beyond = (
            ""
            if chance is None
            else f"; anything untried is more than 5 % better with probability {100 * chance:.0f} %"
        )
        yield f"One more trial was expected to gain {100 * end.expected_gain:.1f} %{beyond}."


def _legend(record: SearchRecord, found: Recommendation | NothingFeasible) -> Iterator[str]:
    marks = ["* recommended"] * isinstance(found, Recommendation)
    if record.header.baseline is not None:
        marks.append("b baseline")
    if record.confirmations:
        marks.append("again: measured afresh at the end")
    if fixed := describe_fixed(record.header.space):
        marks.append(f"the same everywhere: {fixed}")
    if record.trials and marks:
        yield ", ".join(marks)


def _reasons(record: SearchRecord) -> Iterator[str]:
    header = record.header
    trials = value_trials(record.trials, header.objective, header.pricing)
    for trial, valued in zip(record.trials, trials, strict=True):
        if valued.score is None:
            yield f"Trial {trial.number}, {_verdict(valued)}: {valued.reason}"
    for each in record.interrupted:
        yield f"Trial {each.number}, no end recorded: {each.configuration}"


def _serve_overhead(found: Recommendation) -> Iterator[str]:
    measured = found.chosen.measurement
    if measured is not None and measured.model_rps is not None:
        share = measured.saturation_rps / measured.model_rps
        yield (
            f"Serve's path delivers {describe_count(measured.saturation_rps)} of the "
            f"{describe_count(measured.model_rps)} requests/s that the model answers behind its "
            f"own queue ({describe_percent(share)})."
        )


def _unsettled(record: SearchRecord) -> Iterator[str]:
    measured = [
        (str(trial.number), trial.observation.measurement)
        for trial in record.trials
        if trial.observation.measurement is not None
    ]
    if cold := [number for number, each in measured if not each.warm]:
        yield f"Still drifting when the warm-up's time was up: {', '.join(cold)}."
    if vague := [number for number, each in measured if not each.precise]:
        yield f"Interval still wider than asked when the time was up: {', '.join(vague)}."


def _path_limited(record: SearchRecord) -> Iterator[str]:
    limited = [
        str(trial.number)
        for trial in record.trials
        if (measured := trial.observation.measurement) is not None and measured.path_limited
    ]
    if limited:
        every = len(limited) == len(record.trials) > 1
        which = f"trial{'s' * (len(limited) > 1)} {', '.join(limited)}"
        yield (
            f"Serve's path (the load's driver included), not the model, set the rate of "
            f"{'all trials' if every else which}: a faster model buys little there."
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
