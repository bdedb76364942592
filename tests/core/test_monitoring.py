"""The files for Prometheus and Grafana ask for metrics that there are, by labels that these have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from absurd.metrics import METRICS
from absurd.monitoring import ALERTS, DASHBOARD

_NAME = re.compile(r"\babsurd_[a-z_]+")
_SELECTED = re.compile(r"\b(absurd_[a-z_]+)\{([^}]*)\}")
_GROUPED = re.compile(r"\b(?:by|on) \(([^)]*)\)")
PARTS = ("_bucket", "_sum", "_count")


def metric_of(name: str) -> str:
    """The metric of a sample's name; histograms are asked for by their parts alone."""
    for part in PARTS:
        base = name.removesuffix(part)
        if base != name and METRICS.get(base, METRICS["absurd_slots"]).kind == "histogram":
            return base
    assert METRICS[name].kind != "histogram", name
    return name


def expressions() -> Iterator[tuple[str, str]]:
    """All expressions of both files, with what each is of."""
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for variable in dashboard["templating"]["list"]:
        yield variable["name"], re.sub(r"label_values\((\w+), (\w+)\)", r"max by (\2) (\1)", variable["query"]["query"])


@pytest.mark.parametrize(("of", "expression"), list(expressions()))
def test_expressions_name_what_there_is(of: str, expression: str) -> None:
    """Each metric is in the table with the labels it is selected and grouped by; what rises is asked for by rate."""
    names = {metric_of(name) for name in _NAME.findall(expression)}
    assert names, of
    labels = {label for name in names for label in METRICS[name].labels} | {"le"}
    for name, selectors in _SELECTED.findall(expression):
        assert set(re.findall(r"(\w+)\s*[=!]~?", selectors)) <= {*METRICS[metric_of(name)].labels}, of
    for group in _GROUPED.findall(expression):
        assert {each.strip() for each in group.split(",")} <= labels, of
    for name in names:
        if METRICS[name].kind != "gauge":
            asked = re.findall(rf"(\w+)\({name}\w*(?:{{[^}}]*}})?(\[\w+\])?", expression)
            assert asked, of
            assert {call for call, _ in asked} <= {"rate", "increase"}, of
            assert all(window for _, window in asked), of


def test_the_dashboard_shows_every_metric() -> None:
    """Nothing is measured that nobody could see."""
    shown = {
        metric_of(name)
        for panel in json.loads(DASHBOARD.read_text())["panels"]
        for target in panel["targets"]
        for name in _NAME.findall(target["expr"])
    }

    assert set(METRICS) == shown


def test_panels_stand_apart() -> None:
    """No two have one number, and none covers another in the grid of 24 columns."""
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    taken = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]

    assert len(panels) == len({panel["id"] for panel in panels})
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) < 24


def test_each_alert_tells_what_to_do() -> None:
    """A summary, a severity and a command or place to look."""
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]

    assert len(rules) == len({rule["alert"] for rule in rules})
    for rule in rules:
        assert rule["labels"]["severity"] in ("warning", "critical", "{{ $labels.severity }}")
        assert rule["annotations"]["summary"].endswith(".")
        assert rule["annotations"]["action"]
