"""Errors: each has a code that everybody can look up, and none is swallowed."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from docs.generate import error_codes
from tests.house.sources import expect_none, label, nodes, python_files

CODE = re.compile(r"err:(?P<plane>[a-z]+):[a-z_]+:[a-z_]+")
PLANES = {"gateway", "node", "control", "cli"}

BROAD_EXCEPTS: dict[str, tuple[int, str]] = {
    "src/penstock/control/broker_usage.py": (
        1,
        "reads a broker for ever: what anybody may have written there must not end that",
    ),
    "src/penstock/control/chores.py": (
        1,
        "does for ever what is due: what is wrong with one chore must not end the others",
    ),
    "src/penstock/gateway/dispatch.py": (
        1,
        "tells callers how requests failed: a bug in that would have them wait until they leave",
    ),
    "src/penstock/gateway/journal.py": (
        1,
        "calls back every request of a batch: the bug of one must not strand the others",
    ),
    "src/penstock/gateway/record.py": (
        1,
        "ends every request: what a bug leaves undone there would be held until the worker ends",
    ),
    "src/penstock/gateway/worker.py": (
        1,
        "looks at every connection's deadlines: the bug of one must not keep the others for ever",
    ),
    "src/penstock/node/caches/subscription.py": (
        1,
        "listens to an engine for ever: a task that ends by a bug would follow it no more, unsaid",
    ),
    "src/penstock/node/caches/tokens.py": (
        1,
        "runs a model's template over what callers wrote: what comes of it is no token",
    ),
    "src/penstock/metering/intake.py": (
        1,
        "stores several batches at once: what is wrong with one must not strand the others",
    ),
}
"""Process edges that may catch everything: path -> how often, and why."""


def _is_broad(expression: ast.expr | None) -> bool:
    match expression:
        case None | ast.Name(id="Exception" | "BaseException"):
            return True
        case ast.Tuple(elts=members):
            return any(_is_broad(member) for member in members)
    return False


def _broad_excepts(path: Path) -> Iterator[int]:
    """Return the lines that catch everything and go on; to clean up and raise again is fine."""
    for node in nodes(path):
        match node:
            case ast.ExceptHandler(type=caught, body=[*_, last]) if _is_broad(caught):
                if not isinstance(last, ast.Raise):
                    yield node.lineno
            case ast.Call(
                func=ast.Name(id="suppress") | ast.Attribute(attr="suppress"), args=caught
            ):
                if any(_is_broad(member) for member in caught):
                    yield node.lineno


def test_everything_is_caught_at_process_edges_only() -> None:
    """Nothing but an allow-listed process edge catches every exception and goes on."""
    found = {
        label(path): lines for path in python_files("src") if (lines := list(_broad_excepts(path)))
    }
    counts = {path: len(lines) for path, lines in found.items()}
    allowed = {path: count for path, (count, _) in BROAD_EXCEPTS.items()}
    assert counts == allowed, f"lines: {found}"


def test_error_codes_have_one_form() -> None:
    """Every code reads `err:<plane>:<category>:<specific>`, with a plane that exists."""
    wrong = [
        error.code
        for error in error_codes()
        if (match := CODE.fullmatch(error.code)) is None or match["plane"] not in PLANES
    ]
    expect_none(wrong)


def test_error_codes_are_unique() -> None:
    """No two declarations share a code."""
    counts = Counter(error.code for error in error_codes())
    expect_none([code for code, count in counts.items() if count > 1])


def test_error_codes_help() -> None:
    """Every code says to the public what happened, and why, and what each side can do."""
    silent = [
        f"{error.code}: {member}"
        for error in error_codes()
        for member in ("public", "cause", "caller_action", "operator_action")
        if not str(getattr(error, member)).strip().endswith(".")
    ]
    expect_none(silent)


def test_error_codes_fit_their_status() -> None:
    """Infrastructure trouble is never the caller's fault: 5xx, or 429 where it lacks room."""
    wrong = [
        error.code
        for error in error_codes()
        if error.source != "downstream" and error.status not in (429, *range(500, 600))
    ]
    expect_none(wrong)


def test_codes_in_the_source_are_declared() -> None:
    """Every code that a module writes out is declared in an `errors.py`."""
    declared = {error.code for error in error_codes()}
    unknown = [
        f"{label(path, node.lineno)}: {node.value}"
        for path in python_files("src")
        for node in nodes(path)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and CODE.fullmatch(node.value)
        and node.value not in declared
    ]
    expect_none(unknown)
