"""The report on a terminal: one sentence, a table of trials, and what to know about both.

It reads well at 80 columns, and without colour where the output is no terminal. Text from
outside is never taken for markup.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement as Width
from rich.table import Table
from rich.text import Text

from falcon_ray.report.confirmation import latest_confirmations
from falcon_ray.report.contender import Standing
from falcon_ray.report.notes import notes
from falcon_ray.report.nothing_feasible import NothingFeasible
from falcon_ray.report.recommendation import Recommendation, recommend
from falcon_ray.report.record import SearchRecord
from falcon_ray.report.spend import spend_note
from falcon_ray.report.valuation import Valuation, Verdict, describe_verdict, value, value_trials
from falcon_ray.report.wording import describe_count
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.workload import Scenario

_LATENCIES = {50.0: "p50", 90.0: "p90", 95.0: "p95", 99.0: "p99", 99.9: "p999"}
_STYLES = {Verdict.FEASIBLE: "", Verdict.FAILED: "yellow"}


def print_report(console: Console, record: SearchRecord, directory: Path | None = None) -> None:
    """Print the report of a search that ended, was interrupted or is still running.

    Args:
        console: Where to.
        record: The search.
        directory: Its run directory, to say what else lies there.
    """
    found = recommend(record)
    good = isinstance(found, Recommendation)
    console.print(Text(found.sentence, style="bold green" if good else "bold yellow"))
    if record.trials:
        console.print(_table(console, record, found))
    for note in (*notes(record, found, directory), *spend_note(record)):
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
    shows_interval = header.objective.scenario is Scenario.OFFLINE
    interval = ["\n±%"] * shows_interval
    for title in ("requests\n/s", *interval, f"{latency}\nms", "USD\n/h", "requests\n/USD"):
        table.add_column(title, justify="right", no_wrap=True)

    def add(label: str, valued: Valuation) -> None:
        values = [str(valued.configuration.get(name, "")) for name in names]
        pairs = [f"{name}={each}" for name, each in zip(names, values, strict=True)]
        cells = [label, *([" ".join(pairs)] if together else values)]
        cells += _numbers(valued, latency, shows_interval=shows_interval)
        best = isinstance(found, Recommendation) and valued.configuration == found.configuration
        style = "bold green" if best and valued.score else _STYLES.get(valued.verdict, "dim")
        table.add_row(*(Text(cell) for cell in cells), style=style)

    for section in _sections(record, found):
        table.add_section()
        for label, valued in section:
            add(f"{label}{_mark(record, found, valued.configuration)}", valued)
    return table


def _sections(
    record: SearchRecord, found: Recommendation | NothingFeasible
) -> list[list[tuple[str, Valuation]]]:
    """The rows: trials, each round of fresh deployments, and the means of several rounds."""
    header = record.header
    trials = value_trials(record.trials, header.objective, header.pricing)
    sections = [
        [(str(trial.number), each) for trial, each in zip(record.trials, trials, strict=True)]
    ]
    round_number = 0
    for each in record.confirmations:
        if each.round_number != round_number:
            sections.append([])
            round_number = each.round_number
        valued = value(each.observation, header.objective, header.pricing)
        sections[-1].append(("again", valued))
    if isinstance(found, Recommendation) and _has_rounds(record):
        sections.append(
            [
                ("mean", replace(each.fresh, measurement=None))
                for each in found.contenders
                if each.standing is Standing.CONFIRMED
            ]
        )
    return sections


def _has_rounds(record: SearchRecord) -> bool:
    return len({each.round_number for each in latest_confirmations(record)}) > 1


def _mark(
    record: SearchRecord, found: Recommendation | NothingFeasible, configuration: Configuration
) -> str:
    best = isinstance(found, Recommendation) and configuration == found.configuration
    return " *" * best + " b" * (configuration == record.header.baseline)


def _numbers(valued: Valuation, latency: str, *, shows_interval: bool) -> list[str]:
    """Rate, latency, price and score; the verdict in the place of a score that there is not."""
    measured = valued.measurement
    rate = valued.rate_rps
    tail = None if measured is None else measured.metric(f"latency_{latency}_ms")
    return [
        "" if rate is None else describe_count(rate),
        *([_half_width(valued)] if shows_interval else []),
        "" if tail is None else describe_count(tail),
        f"{valued.usd_per_hour:.3g}",
        describe_verdict(valued) if valued.score is None else describe_count(valued.score),
    ]


def _half_width(valued: Valuation) -> str:
    """Half the length of the saturation throughput's interval in percent, e.g. `2.1`."""
    measured = valued.measurement
    if measured is None:
        return ""
    low, high = measured.saturation_rps_ci_low, measured.saturation_rps_ci_high
    if low is None or high is None:
        return ""
    if not math.isfinite(high):
        return "?"
    return f"{50 * (high - low) / measured.saturation_rps:.1f}"
