"""How rules of limits are written, in penstock.yaml as elsewhere. Pure."""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from penstock.contract.limits import Enforcement, Metric
from penstock.kit.moments import format_time, microseconds

MAX_RULES = 64
"""Of one owner or plan."""
_WINDOW_S = 60
"""Of a rule that names none, but for concurrency."""


def default_window_s(metric: str) -> int:
    """Return the window of a rule that names none."""
    return 0 if metric == Metric.CONCURRENCY else _WINDOW_S


def shorten_rules(rules: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rules as a file has them: without what is left out anyway, in one order."""
    return sorted(map(_shorten, rules), key=lambda rule: json.dumps(rule, sort_keys=True))


def _shorten(rule: dict[str, Any]) -> dict[str, Any]:
    usual = {
        "window_s": default_window_s(rule["metric"]),
        "enforcement": Enforcement.HARD.value,
    }
    short = {
        name: value
        for name, value in rule.items()
        if value is not None and usual.get(name) != value
    }
    if "raised_until" in short:
        until_us = microseconds(datetime.fromisoformat(short["raised_until"])) or 0
        short["raised_until"] = format_time(until_us - until_us % 1_000_000)
    return short
