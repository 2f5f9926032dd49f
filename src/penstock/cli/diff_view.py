"""Shows what an application did, or would do, to people."""

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from penstock.cli.output import console

if TYPE_CHECKING:
    from penstock.cli.control_client import Row

_SIGNS = {"create": ("+", "green"), "update": ("~", "yellow"), "rotate": ("~", "yellow")}
_DELETE = ("-", "red")
_DONE = {"create": "created", "update": "changed", "rotate": "given a new secret"}
_MAX_VALUE_CHARS = 200
_MAX_LEFTOVERS = 20


def show_changes(applied: "Row") -> None:
    """Print a line an object, and one below it for each of its members."""
    out = console()
    for change in applied["changes"]:
        sign, style = _SIGNS.get(change["action"], _DELETE)
        more = ": new secret" if change["action"] == "rotate" else ""
        out.print(f"{sign} {describe(change['object'])}{more}", style=style, markup=False)
        if change["action"] in {"create", "update"}:
            for name, member in change["members"].items():
                out.print(f"    {name}: {_difference(change['action'], member)}", markup=False)


def show_outcome(applied: "Row") -> None:
    """Print in a sentence what was done or would be, and what is left over."""
    out = console()
    counts = Counter(_DONE.get(change["action"], "removed") for change in applied["changes"])
    said = ", ".join(f"{count} {done}" for done, count in counts.items())
    if not said:
        out.print("Nothing to change.", markup=False)
    elif applied["is_dry_run"]:
        out.print(f"To be {said}. Nothing was changed.", style="bold", markup=False)
    else:
        out.print(f"{said[0].upper()}{said[1:]}.", style="bold", markup=False)
    leftovers = [describe(one) for one in applied["leftovers"]]
    if leftovers:
        hidden = len(leftovers) - _MAX_LEFTOVERS
        listed = "; ".join(leftovers[:_MAX_LEFTOVERS]) + (
            f"; and {hidden} more" if hidden > 0 else ""
        )
        out.print(f"Not in these files any more, and removed with --prune: {listed}.", markup=False)


def describe(row: "Row") -> str:
    """Return what an object is called, e.g. `key ci (organization acme, project web)`."""
    names = dict(row["names"])
    kind = str(row["kind"]).replace("_", " ")
    own = next((name for name in ("name", "subject", "alias") if name in names), None)
    said = f"{kind} {names.pop(own)}" if own else kind
    owners = ", ".join(f"{name} {value}" for name, value in names.items())
    return f"{said} ({owners})" if owners else said


def _difference(action: str, member: "Row") -> str:
    after = _value(member["after"])
    return after if action == "create" else f"{_value(member['before'])} -> {after}"


def _value(value: Any) -> str:
    match value:
        case None | [] | {}:
            return "none"
        case str() if value.isprintable():
            shown = value
        case list() if all(isinstance(one, str) for one in value):
            shown = ", ".join(value)
        case _:
            shown = json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= _MAX_VALUE_CHARS else f"{shown[:_MAX_VALUE_CHARS]}..."
