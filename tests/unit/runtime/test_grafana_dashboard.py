"""The dashboard that ships with the package shows what is exported, all of it and nothing else."""

import json
import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest

from falcon_ray.runtime.metrics import METRICS, PREFIX, Kind, Metric

DASHBOARD: dict[str, Any] = json.loads(
    (files("falcon_ray") / "data" / "grafana" / "falcon_ray.json").read_text("utf-8")
)
SHOWN = re.compile(rf"\b{PREFIX}[a-z_]+")


def queries() -> list[str]:
    """What the panels ask."""
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def sources(node: object) -> Iterator[object]:
    """Every data source that is named anywhere in the dashboard."""
    if isinstance(node, dict):
        for name, child in node.items():
            if name == "datasource":
                yield child
            yield from sources(child)
    elif isinstance(node, list):
        for child in node:
            yield from sources(child)


def grouping(query: str) -> set[str]:
    """The labels that a query keeps."""
    return set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", query))))


def metric_of(name: str) -> Metric:
    """The metric that exports a name."""
    return next(each for each in METRICS if name in each.exported)


def test_every_exported_metric_is_shown() -> None:
    shown = {name for query in queries() for name in SHOWN.findall(query)}
    assert [each.name for each in METRICS if shown.isdisjoint(each.exported)] == []


def test_nothing_is_asked_for_that_is_not_exported() -> None:
    exported = {name for each in METRICS for name in each.exported}
    asked = {name for query in queries() for name in SHOWN.findall(query)}
    asked |= {
        name
        for variable in DASHBOARD["templating"]["list"]
        for name in SHOWN.findall(str(variable["query"]))
    }
    assert asked <= exported


@pytest.mark.parametrize("query", queries())
def test_a_query_uses_the_labels_that_its_metric_has(query: str) -> None:
    names = SHOWN.findall(query)
    assert names
    metrics = [metric_of(name) for name in names]
    given = {label for each in metrics for label in each.labels}
    if any(each.kind is Kind.HISTOGRAM for each in metrics):
        given.add("le")
    matched = set(re.findall(r"(\w+)=~", query))
    assert grouping(query) | matched <= given
    # What belongs to a search follows the choice of searches.
    assert ("search" in matched) == ("search" in given)


def test_a_legend_names_labels_that_are_left_after_grouping() -> None:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert named <= grouping(target["expr"]), panel["title"]


def test_its_data_source_and_searches_are_chosen_where_it_is_opened() -> None:
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    assert variables["search"]["multi"]
    found = list(sources(DASHBOARD))
    assert found
    assert all(each == {"type": "prometheus", "uid": "${datasource}"} for each in found)


def test_no_two_panels_overlap_or_share_an_id() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for at in (panel["gridPos"],)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_importing_makes_a_new_dashboard() -> None:
    assert DASHBOARD["id"] is None
    assert DASHBOARD["title"] == "falcon_ray"
    assert DASHBOARD["schemaVersion"] >= 39
