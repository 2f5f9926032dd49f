"""Writes the files for Prometheus and Grafana, and the list of runbooks, anew.

usage: python -m deploy.generate
"""

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from deploy.alerts import ALERTS, BURNS, OBJECTIVES, RECORDS, Alert, Objective
from deploy.dashboards import DASHBOARDS, Dashboard, as_grafana_reads

ROOT = Path(__file__).resolve().parents[1]
_HEAD = "# Written by `make docs` from deploy/alerts.py.\n"
_RUNBOOKS = "docs/runbooks"
_RUNBOOKS_HEAD = """\
# Runbooks

A page for each alert of [penstock.rules.yml](../../deploy/prometheus/penstock.rules.yml): what it
means, what to look at, what to do. `page` wakes somebody up, `ticket` waits for the morning. Those
with both are about a share of requests, or of time, that may go wrong within 30 days: the page
comes when it would be used up in five days or sooner, the ticket when it would not last.

| Alert | Severity | Says |
|---|---|---|
"""
_PLACE = re.compile(r"\{\{ \$labels\.(\w+) \}\}")

Rule = dict[str, Any]


def rules() -> str:
    """Return Prometheus' recording and alerting rules."""
    groups = [{"name": "penstock-objectives", "rules": _ratios()}]
    groups.append({"name": "penstock-burn", "rules": _burns()})
    groups += [
        {"name": name, "rules": [_alert(alert) for alert in alerts]}
        for name, alerts in ALERTS.items()
    ]
    document = yaml.safe_dump({"groups": groups}, sort_keys=False, width=1_000)
    return _HEAD + document


def _ratios() -> list[Rule]:
    windows = dict.fromkeys(window for burn in BURNS for window in (burn.short, burn.long))
    records = [{"record": name, "expr": expression} for name, expression in RECORDS.items()]
    return records + [
        {
            "record": _ratio_name(objective, window),
            "expr": objective.ratio.replace("WINDOW", window),
        }
        for objective in OBJECTIVES
        for window in windows
    ]


def _burns() -> list[Rule]:
    severities = dict.fromkeys(burn.severity for burn in BURNS)
    return [
        _alert(Alert(objective.name, severity, objective.summary, _too_fast(objective, severity)))
        for objective in OBJECTIVES
        for severity in severities
    ]


def _too_fast(objective: Objective, severity: str) -> str:
    """Return whether any burn of a severity is seen in both of its windows."""
    return " or ".join(
        " and ".join(
            f"{_ratio_name(objective, window)} > {burn.factor * objective.allowed:g}"
            for window in (burn.short, burn.long)
        )
        for burn in BURNS
        if burn.severity == severity
    )


def _ratio_name(objective: Objective, window: str) -> str:
    return f"{objective.record}:ratio{window}"


def _alert(alert: Alert) -> Rule:
    return {
        "alert": alert.name,
        "expr": alert.expression,
        "for": alert.held_for,
        "labels": {"severity": alert.severity},
        "annotations": {
            "summary": alert.summary,
            "runbook": f"{_RUNBOOKS}/{alert.name}.md",
        },
    }


def runbooks() -> str:
    """Return the list of runbooks."""
    both = ", ".join(dict.fromkeys(burn.severity for burn in BURNS))
    rows = [(one.name, both, one.summary) for one in OBJECTIVES]
    rows += [(one.name, one.severity, one.summary) for group in ALERTS.values() for one in group]
    lines = [f"| [{name}]({name}.md) | {severity} | {says} |\n" for name, severity, says in rows]
    return _RUNBOOKS_HEAD + _PLACE.sub(r"`\1`", "".join(lines))


def dashboard_file(dashboard: Dashboard) -> str:
    """Return a dashboard as Grafana imports it."""
    return json.dumps(as_grafana_reads(dashboard), indent=1) + "\n"


FILES: dict[str, Callable[[], str]] = {
    "deploy/prometheus/penstock.rules.yml": rules,
    f"{_RUNBOOKS}/README.md": runbooks,
    **{f"deploy/grafana/{one.name}.json": partial(dashboard_file, one) for one in DASHBOARDS},
}
"""What is written, by its path in the repository."""


def main() -> None:
    """Write every file."""
    for name, content in FILES.items():
        (ROOT / name).write_text(content(), encoding="utf-8")


if __name__ == "__main__":
    main()
