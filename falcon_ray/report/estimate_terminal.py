"""An estimate on a terminal: best configurations, key operators with their curves, warnings.

It reads well at 80 columns, and without colour where the output is no terminal.
"""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement as Width
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from falcon_ray.knowledge.curves.resource_curve import ResourceCurve, sparkline
from falcon_ray.knowledge.curves.shape import Direction, Shape
from falcon_ray.report.estimate import (
    INTERVAL_PERCENT,
    Estimate,
    Expected,
    ExpectedConfiguration,
    OperatorPart,
)

_N_OPERATORS = 12
_LEAST_SHOWN_SHARE = 5e-4
_ARROWS = {Direction.RISING: "↑", Direction.FALLING: "↓", Direction.FLAT: "↕"}
_HEADERS = {
    "service_time_ms": "batch\nms",
    "saturation_rps": "requests\n/s",
    "capacity_rps": "within\nSLO /s",
    "floor_latency_ms": "idle\nms",
    "throughput_rps": "requests\n/s",
    "ttft_ms": "TTFT\nms",
    "tpot_ms": "TPOT\nms",
}
_ALWAYS_SHOWN = frozenset({"batch_size", "dtype"})


def print_estimate(console: Console, estimate: Estimate) -> None:
    """Print what is expected, how sure that is, and what is not known."""
    console.print(Text(_sentence(estimate), style="bold"))
    console.print(Text(f"{estimate.target}: {estimate.model}"))
    if estimate.best_by_device:
        console.print(_configurations(console, "best on", estimate.best_by_device))
    if len(estimate.top) > 1:
        console.print(_configurations(console, "best of all", estimate.top))
    if estimate.operators is not None:
        part = estimate.operators
        console.print(Text(f"Key operators on {part.point}, by {part.basis}:"))
        console.print(_operators(part))
    _print_list(console, "Does not fit:", estimate.unfit)
    _print_list(console, "Thin knowledge:", estimate.warnings)
    _print_list(console, "From:", estimate.knowledge)


def _sentence(estimate: Estimate) -> str:
    if not estimate.best_by_device:
        return f"None of {estimate.n_candidates:,} configurations is expected to work" + (
            f"; {estimate.closest}." if estimate.closest else "."
        )
    best = estimate.best_by_device[0]
    return (
        f"Expected best of {estimate.n_candidates:,} configurations, without a trial and without "
        "Serve's own path: "
        f"{_words(best)}, {_figure(best.requests_per_dollar.median)} "
        f"requests per dollar ({INTERVAL_PERCENT} %: {_range(best.requests_per_dollar)})."
    )


def _configurations(console: Console, title: str, rows: Sequence[ExpectedConfiguration]) -> Table:
    """One column per dimension where that fits the width, else one for the configuration."""
    wide = _filled(title, rows, together=False)
    unlimited = console.options.update(max_width=1000)
    if Width.get(console, unlimited, wide).maximum <= console.width:
        return wide
    return _filled(title, rows, together=True)


def _filled(title: str, rows: Sequence[ExpectedConfiguration], *, together: bool) -> Table:
    names = _shown_dimensions(rows)
    metrics = list(rows[0].metrics)
    table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column(title)
    if together:
        table.add_column("configuration", overflow="fold")
    else:
        for name in names:
            table.add_column(name.replace("_", "\n"), justify="right", no_wrap=True)
    for name in metrics:
        table.add_column(_HEADERS.get(name, name), justify="right", no_wrap=True)
    for header in ("GiB", "USD\n/h", f"requests/USD\n({INTERVAL_PERCENT} %)"):
        table.add_column(header, justify="right", no_wrap=True)
    for each in rows:
        values = [str(each.configuration.get(name, "")) for name in names]
        pairs = [f"{name}={value}" for name, value in zip(names, values, strict=True)]
        cells = [
            each.device,
            *([" ".join(pairs)] if together else values),
            *(_figure(each.metrics[name].median) for name in metrics),
            f"{each.memory_gib:.1f}",
            f"{each.usd_per_hour:.2f}",
            f"{_figure(each.requests_per_dollar.median)} ({_range(each.requests_per_dollar)})",
        ]
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _shown_dimensions(rows: Sequence[ExpectedConfiguration]) -> list[str]:
    """The dimensions in which the rows differ, and those that always matter."""
    names = dict.fromkeys(name for each in rows for name in each.configuration)
    return [
        name
        for name in names
        if name in _ALWAYS_SHOWN
        or (name != "gpu_type" and len({each.configuration.get(name) for each in rows}) > 1)
    ]


def _operators(part: OperatorPart) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column("operator")
    table.add_column("of", overflow="fold")
    table.add_column("calls", justify="right")
    table.add_column("time", justify="right")
    table.add_column(_curve_header(part), no_wrap=True)
    for each in part.operators[:_N_OPERATORS]:
        curves = "\n".join(_curve(curve, alone=len(each.curves) == 1) for curve in each.curves)
        cells = (each.name, each.detail, str(each.calls), f"{each.share:.1%}", curves)
        table.add_row(*(Text(cell) for cell in cells))
    hidden = part.operators[_N_OPERATORS:]
    if hidden:
        share = sum(each.share for each in hidden)
        table.add_row(Text(f"{len(hidden)} more key operators"), "", "", f"{share:.1%}", "")
    if part.n_others:
        table.add_row(Text(f"{part.n_others} others"), "", "", f"{part.others_share:.1%}", "")
    if part.host_share > _LEAST_SHOWN_SHARE:
        table.add_row(Text("host, between the calls"), "", "", f"{part.host_share:.1%}", "")
    return table


def _curve_header(part: OperatorPart) -> str:
    curves = part.operators[0].curves
    over = curves[0].describe().partition(":")[0] if len(curves) == 1 else "resources"
    return f"throughput per dollar\nover {over}; good"


def _curve(curve: ResourceCurve, *, alone: bool) -> str:
    """A curve in few signs, e.g. "▂▄▆██ concave ↑ from 16"."""
    words = [sparkline(curve.throughput), curve.shape.value]
    if curve.shape is not Shape.PLANE:
        words += [_ARROWS[curve.direction], curve.describe_good()]
    return " ".join(words if alone else [f"{curve.resource.partition('_')[0]}:", *words])


def _print_list(console: Console, title: str, lines: Sequence[str]) -> None:
    if not lines:
        return
    console.print(Text(title))
    for line in lines:
        console.print(Padding(Text(line), (0, 0, 0, 2)))


def _words(expected: ExpectedConfiguration) -> str:
    """Device and configuration, the device said once."""
    values = [f"{name}={value}" for name, value in expected.configuration.items()]
    return " ".join([expected.device, *(each for each in values if "gpu_type" not in each)])


def _range(expected: Expected) -> str:
    return f"{_figure(expected.low)}-{_figure(expected.high)}"


def _figure(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e9:,.1f}G" if value >= 1e9 else f"{value / 1e6:,.1f}M"
    if value >= 1e4:
        return f"{value / 1e3:,.0f}k"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
