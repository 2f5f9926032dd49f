"""Alerts and dashboards: what they name is there, and each alert has a page of what to do."""

import re

import pytest
import yaml
from deploy.alerts import ALERTS, OBJECTIVES, RECORDS
from deploy.dashboards import DASHBOARDS
from deploy.generate import FILES
from docs.generate import metrics
from tests.house.sources import ROOT, expect_none, text

from penstock.contract.metrics import Metric

RULES = ROOT / "deploy" / "prometheus" / "penstock.rules.yml"
RUNBOOKS = ROOT / "docs" / "runbooks"
NAMES = {one.name for group in ALERTS.values() for one in group} | {one.name for one in OBJECTIVES}

OF_TARGETS = {"instance", "job"}
"""Labels that Prometheus gives to all series of a target."""
NAME = re.compile(r"\b(?:penstock[\w:]+|gen_ai_(?:client|server)_\w+|up\b)(?:\{[^}]*\})?")
MATCHER = re.compile(r'(\w+)=~?"([^"]*)"')
GROUPED = re.compile(r"\bby \(([^)]*)\)")
SHOWN = re.compile(r"\{\{ ?(?:\$labels\.)?(\w+) ?\}\}")


def known() -> dict[str, Metric]:
    """Return each metric by the names of its series."""
    found = {}
    for metric in metrics():
        ends = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
        found.update({metric.name + end: metric for end in ends})
    return found


def problems(expression: str, says: str = "") -> list[str]:
    """Return what an expression, or what is said of it, names and no metric has."""
    found, labels = [], set(OF_TARGETS)
    for use in NAME.findall(expression):
        name = use.partition("{")[0]
        if name == "up" or name in RECORDS:
            continue
        recorded = next((o for o in OBJECTIVES if name.startswith(f"{o.record}:ratio")), None)
        if recorded:  # has the labels that it is summed by
            labels |= {label for by in GROUPED.findall(recorded.ratio) for label in by.split(", ")}
            continue
        metric = known().get(name)
        if metric is None:
            found.append(f"{name} is no metric")
            continue
        labels |= {*metric.labels, "le"} if metric.buckets else {*metric.labels}
        for label, value in MATCHER.findall(use):
            if label == "le" and metric.buckets:
                if value not in map(str, metric.buckets):
                    found.append(f"{name} has no bucket {value}")
            elif label not in metric.labels:
                found.append(f"{name} has no label {label}")
    asked = {label for by in GROUPED.findall(expression) for label in by.split(", ")}
    asked |= set(SHOWN.findall(says))
    return found + [f"nothing has the label {label}" for label in sorted(asked - labels)]


@pytest.mark.parametrize("name", FILES)
def test_delivered_files_are_current(name: str) -> None:
    """Each file says what its description says now (`make docs` writes it anew)."""
    assert text(ROOT / name) == FILES[name]()


def test_rules_name_what_is_there() -> None:
    """Every metric, label and bucket that a rule or a summary names is one that is shown."""
    groups = yaml.safe_load(text(RULES))["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {rule["alert"] for rule in rules if "alert" in rule} == NAMES
    expect_none(
        [
            f"{rule.get('alert') or rule['record']}: {problem}"
            for rule in rules
            for problem in problems(rule["expr"], rule.get("annotations", {}).get("summary", ""))
        ]
    )


def test_dashboards_name_what_is_there() -> None:
    """Every metric, label and bucket that a graph or its legend names is one that is shown."""
    expect_none(
        [
            f"{page.title}: {panel.title}: {problem}"
            for page in DASHBOARDS
            for panel in page.panels
            for legend, expression in panel.series.items()
            for problem in problems(expression, legend)
        ]
    )


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("penstock_worker_ready == 0", "penstock_worker_ready is no metric"),
        ('penstock_errors_total{kode="x"} > 0', "penstock_errors_total has no label kode"),
        ("sum by (tenant) (penstock_requests_total) > 0", "nothing has the label tenant"),
        (
            'penstock_overhead_seconds_bucket{le="0.007"} > 0',
            "penstock_overhead_seconds_bucket has no bucket 0.007",
        ),
        ("penstock_overhead_seconds > 1", "penstock_overhead_seconds is no metric"),
    ],
)
def test_what_is_not_there_is_found(expression: str, expected: str) -> None:
    """A rule with a wrong metric, label or bucket is found out."""
    assert problems(expression) == [expected]


def test_each_alert_has_its_page() -> None:
    """Every alert has a page that says what to look at and what to do; no page is left over."""
    pages = {path.stem: text(path) for path in RUNBOOKS.glob("Penstock*.md")}
    assert set(pages) == NAMES
    expect_none(
        [
            f"{name}: {part}"
            for name, page in pages.items()
            for part in (f"# {name}\n", "\n## Look at\n", "\n## Do\n")
            if part not in page
        ]
    )
