"""`penstock trace`: the whole story of one request."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.errors import BAD_OPTION, NOT_FOUND, CommandError
from penstock.cli.instance import DataOption, NodeOption, connect, node_folder
from penstock.cli.options import option
from penstock.cli.output import JsonOption, console, examples, print_json, print_table, printable
from penstock.cli.trace_log import find_lines, names
from penstock.cli.trace_steps import list_steps

if TYPE_CHECKING:
    from penstock.cli.control_client import Row
    from penstock.node.trail import Trail

EXAMPLES = examples(
    "penstock trace 01977f5e-3c00-7a4b-9d21-5b8e0c7f1a00",
    "penstock trace 4bf92f3577b34da6a3ce929d0e0e4736 --node /var/lib/penstock",
    "penstock trace my-request-1 --json",
)
PATH = "/api/v1/requests"
_SECOND_MS = 1_000
_LONG_MS = 120_000


def trace(
    *,
    name: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="The `x-request-id` of the request, its `event_id`, or its trace's id.",
            show_default=False,
        ),
    ],
    node: NodeOption = None,
    log: Annotated[
        Path | None,
        option("--log", "Access log to look in; else `logs/access.log` of that node.", "FILE"),
    ] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell what became of a request: where it waited and went, what it cost, where that is booked.

    Usage, charges, transfers and the invoice come from the control plane, as far as the token may
    see them. The journals of a node on this machine say the rest: waits, endpoints, which limit
    refused it, and requests whose usage is still on its way; its access log has those that were
    refused before any engine was asked. Only these two know trace ids; and when the control plane
    does not answer, what they know is told.
    """
    folder = node_folder(node, data)
    lines = _list_lines(name, folder, log)
    requests, fault = _find(name, folder, data, has_lines=bool(lines))
    if fault is not None:
        told = f"{fault} Only this machine's journals and access log are told."
        console(is_error=True).print(printable(told), markup=False)
    if not requests and not lines:
        detail = f"Nobody here knows of a request {name!r}."
        remedy = (
            "Usage arrives seconds after a request. What was refused before an engine, and ids of "
            "traces, are only on the machine that served it: give --node or --log there."
        )
        raise CommandError(NOT_FOUND, detail, remedy)
    for request in requests or [_NOTHING]:
        own = [line for line in lines if not requests or names(line, request["event_id"])]
        steps = list_steps(request) if requests else []
        if as_json:
            timeline = [step._asdict() for step in steps]
            print_json({**request, "timeline": timeline, "log": own})
            continue
        if requests:
            _show_head(request, is_complete=fault is None)
            rows = [[_relative(step.ms, step.at), printable(step.what)] for step in steps]
            print_table(("When", "What"), rows, right=("When",))
        for line in own:
            console().print(printable(line), markup=False)


_NOTHING: dict[str, Any] = {"event_id": None, "usage": None, "node": None, "story": None}
"""Stands for a request that only an access log knows."""


def _list_lines(name: str, folder: Path | None, log: Path | None) -> list[str]:
    if log is None:
        return [] if folder is None else find_lines(folder / "logs" / "access.log", name)
    if not log.is_file():
        detail = f"--log {log} is no file."
        raise CommandError(BAD_OPTION, detail, "Give the file that the agent writes.")
    return find_lines(log, name)


def _find(
    name: str, folder: Path | None, data: Path | None, *, has_lines: bool
) -> tuple[list[dict[str, Any]], CommandError | None]:
    """Return what is known of requests that are called so, in the order in which they began.

    And why the control plane did not say anything, if this machine knows something all the same.
    """
    from penstock.node.trail import find_trails  # noqa: PLC0415  # start-up time

    found = [] if folder is None else find_trails(folder / "journal", name)
    trails = {trail.event_id: trail for trail in found}
    stories: dict[str, Row] = {}
    fault = None
    try:
        with connect(data) as client:
            for each in dict.fromkeys((name, *trails)):
                if each not in stories:
                    told = client.get(PATH, {"id": each})["data"]
                    stories |= {story["usage"]["event_id"]: story for story in told}
    except CommandError as error:
        if not trails and not has_lines:
            raise
        fault = error
    joined = [
        _join(event_id, stories.get(event_id), trails.get(event_id))
        for event_id in sorted({*stories, *trails})
    ]
    return joined, fault


def _join(event_id: str, story: "Row | None", trail: "Trail | None") -> dict[str, Any]:
    from penstock.cli.trace_journal import node_of, usage_of  # noqa: PLC0415  # start-up time

    told = dict(story or {})
    usage = told.pop("usage", None)
    if usage is None and trail is not None:
        usage = usage_of(trail)
    found = None if trail is None else node_of(trail)
    return {"event_id": event_id, "usage": usage, "node": found, "story": told or None}


def _show_head(request: dict[str, Any], *, is_complete: bool) -> None:
    usage, node = request["usage"], request["node"] or {}
    places = [
        usage.get(f"{part}_name") or usage[name]
        for part, name in (
            ("organization", "organization"),
            ("project", "project"),
            ("key", "key_id"),
        )
    ]
    for label, text in (
        ("Request", usage["request_id"]),
        ("Event", request["event_id"]),
        ("Trace", node.get("trace_id")),
        ("Whose", " / ".join(places)),
        ("Model", f"{usage['model']}, served by {usage['served_model']} at {usage['upstream']}"),
        ("Admitted", usage["started_at"]),
        ("Journal", node.get("journal")),
    ):
        if text:
            console().print(f"{label:<9} {printable(text)}", markup=False)
    if request["story"] is None and is_complete:
        console().print("Its usage has not arrived at the control plane.", markup=False)


def _relative(ms: float, at: str) -> str:
    """Return when something happened, as precisely as that matters.

    >>> _relative(-0.25, ""), _relative(1500, ""), _relative(9e9, "2026-06-15T12:00:00.000000Z")
    ('-0.250 ms', '+1.500 s', '2026-06-15T12:00:00Z')
    """
    if abs(ms) < _SECOND_MS:
        return f"{ms:+.3f} ms"
    if abs(ms) < _LONG_MS:
        return f"{ms / _SECOND_MS:+.3f} s"
    return at[:19] + "Z"
