"""`penstock reconcile`: usage on the disk, stored, rated and booked, compared event by event."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.errors import BAD_OPTION, EXIT_FAILURE, CommandError
from penstock.cli.instance import DataOption, NodeOption, connect, node_folder
from penstock.cli.output import JsonOption, console, examples, print_json, print_table
from penstock.cli.times import parse_time

if TYPE_CHECKING:
    from penstock.cli.control_client import ControlClient, Row
    from penstock.node.evidence import Evidence

PATH = "/api/v1/reconciliation"
EXAMPLES = examples(
    "penstock reconcile",
    "penstock reconcile --since 2026-11-01 --json",
    "penstock reconcile --node /var/lib/penstock --wait 60",
)
_POLL_S = 0.5
_DEFAULT_DAYS = 3
"""As long as journals are kept."""
_MOST_NAMED = 20
"""Ids that the table names of those that are missing or different."""
_EPOCH = date(1970, 1, 1)
_STATES = {True: "whole", False: "DIFFERENT"}


@dataclass(slots=True)
class _Found:
    """What journals say, compared with what is stored."""

    on_disk: Counter[tuple[date, str]] = field(default_factory=Counter)
    """Events that were shipped, by day and producer."""
    pending: Counter[tuple[date, str]] = field(default_factory=Counter)
    """Events that are not shipped yet."""
    missing: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)


def reconcile(
    *,
    node: NodeOption = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", help="First day, or how long ago.", show_default="3d", metavar="TIME"
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--until", help="Last day.", show_default="today", metavar="TIME"),
    ] = None,
    wait: Annotated[
        float,
        typer.Option(
            "--wait", help="Seconds to wait for usage that is not shipped yet.", min=0, max=3600
        ),
    ] = 10.0,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare usage on the disk with what is stored, rated and booked; exit 1 on a difference.

    Each event of this machine's journals is looked up by id and content. For each producer and day
    all that is stored has to be rated, all that costs something booked, and figures of hours and
    days have to say the same. Usage that is on its way is waited for, and shown as pending.
    """
    now = datetime.now(UTC)
    first = parse_time("--since", since or f"{_DEFAULT_DAYS}d", now).date()
    last = now.date() if until is None else parse_time("--until", until, now).date()
    if first > last:
        detail = f"--since {first} is behind --until {last}."
        raise CommandError(BAD_OPTION, detail, "Swap them, or leave one out.")
    folder = node_folder(node, data)
    with connect(data) as client:
        found = _compare_journals(client, folder, wait) if folder else _Found()
        days = _days(first, last, found)
        chains = [client.get(PATH, {"on": day.isoformat()}) for day in days]
    report = _report(chains, found)
    if as_json:
        print_json(report)
    else:
        _show(report, has_journals=folder is not None)
    if not report["is_whole"]:
        raise typer.Exit(EXIT_FAILURE)


def _compare_journals(client: "ControlClient", folder: Path, wait_s: float) -> _Found:
    """Look up all events of a node's journals, and wait for those that are on their way."""
    from penstock.metering.model import MAX_COMPARED  # noqa: PLC0415  # start-up time

    deadline_s = time.monotonic() + wait_s
    while True:
        found = _Found()
        chunk: dict[str, str] = {}
        for each, content_hash in _read(folder):
            place = (_day_of(each), each.producer)
            if not each.is_shipped:
                found.pending[place] += 1
                continue
            found.on_disk[place] += 1
            chunk[each.event.event_id] = content_hash
            if len(chunk) == MAX_COMPARED:
                _look_up(client, chunk, found)
                chunk = {}
        if chunk:
            _look_up(client, chunk, found)
        if not found.pending or time.monotonic() >= deadline_s:
            return found
        time.sleep(_POLL_S)


def _read(folder: Path) -> Iterator[tuple["Evidence", str]]:
    from penstock.metering.rules import hash_event  # noqa: PLC0415  # start-up time
    from penstock.node.checkpoints import Checkpoints  # noqa: PLC0415  # as above
    from penstock.node.evidence import read_evidence  # noqa: PLC0415  # as above
    from penstock.node.layout import Layout  # noqa: PLC0415  # as above

    layout = Layout(folder)
    try:
        node_id = layout.node_id.read_text().strip()
        for each in read_evidence(layout.journal, Checkpoints(layout.shipper), node_id):
            yield each, hash_event(each.event).content_hash.hex()
    except OSError as error:
        detail = f"The journals of {folder} cannot be read: {error.strerror}: {error.filename}."
        remedy = "Run as the user that owns the folder, on the machine of the node."
        raise CommandError(BAD_OPTION, detail, remedy) from None


def _day_of(each: "Evidence") -> date:
    from penstock.metering.rules import day_of  # noqa: PLC0415  # start-up time

    return _EPOCH + timedelta(days=day_of(each.event.event_id))


def _look_up(client: "ControlClient", hashes: dict[str, str], found: _Found) -> None:
    answer = client.change("POST", f"{PATH}/events", {"hashes": hashes})
    found.missing += answer["missing"]
    found.different += answer["different"]


def _days(first: date, last: date, found: _Found) -> list[date]:
    asked = {first + timedelta(days=number) for number in range((last - first).days + 1)}
    return sorted(asked | {day for day, _ in found.on_disk})


def _report(chains: list["Row"], found: _Found) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    for chain in chains:
        day = date.fromisoformat(chain["on"])
        links = {link["producer"]: link for link in chain["data"]}
        places = found.on_disk.keys() | found.pending.keys()
        for producer in sorted(links.keys() | {name for on, name in places if on == day}):
            link = links.get(producer) or {"events": 0, "rated": 0, "unpriced": 0, "unbooked": 0}
            on_disk = found.on_disk[day, producer]
            row = {
                "on": chain["on"],
                "producer": producer,
                "on_disk": on_disk,
                "pending": found.pending[day, producer],
                "stored": link["events"],
                "rated": link["rated"],
                "unpriced": link["unpriced"],
                "unbooked": link["unbooked"],
                "charges": link.get("charges", []),
                # More may be stored than the disk has: journals are kept for a few days.
                "is_whole": link.get("is_whole", True) and link["events"] >= on_disk,
            }
            rows.append(row)
    differences: dict[tuple[str, ...], dict[str, Any]] = {}
    for chain in chains:
        for one in chain["differences"]:
            # Figures of a month are looked at with each of its days, and told once.
            on = chain["on"][:7] if one["figure"].startswith("usage_months.") else chain["on"]
            place = (on, one["figure"], *one["of"].values())
            differences.setdefault(place, {"on": chain["on"], **one})
    return {
        "is_whole": all(row["is_whole"] for row in rows)
        and not (differences or found.missing or found.different),
        "pending": found.pending.total(),
        "missing": found.missing,
        "different": found.different,
        "differences": [*differences.values()],
        "data": rows,
    }


def _show(report: dict[str, Any], *, has_journals: bool) -> None:
    figures = ("On disk", "Pending", "Stored", "Rated", "Unpriced", "Unbooked")
    if report["data"]:
        print_table(
            ("Day (UTC)", "Producer", *figures, "Charges", "State"),
            [
                (
                    row["on"],
                    row["producer"],
                    str(row["on_disk"]) if has_journals else "-",
                    str(row["pending"]) if has_journals else "-",
                    *(str(row[name]) for name in ("stored", "rated", "unpriced", "unbooked")),
                    ", ".join(f"{one['amount']} {one['currency']}" for one in row["charges"]),
                    _STATES[row["is_whole"]],
                )
                for row in report["data"]
            ],
            right=figures,
        )
    out = console()
    for name, words in (
        ("missing", "are in a journal, acknowledged, and not stored"),
        ("different", "are stored with another content than the journal has"),
    ):
        ids = report[name]
        if ids:
            more = "" if len(ids) <= _MOST_NAMED else " ..."
            out.print(f"{len(ids)} events {words}: {', '.join(ids[:_MOST_NAMED])}{more}")
    for one in report["differences"]:
        of = ", ".join(f"{name} {value}" for name, value in one["of"].items() if value)
        out.print(
            f"{one['on']} {one['figure']} of {of}: {one['found']}, events say {one['expected']}"
        )
    if not has_journals:
        out.print("No journals here: what is on nodes' disks was not compared (--node DIR).")
    if report["pending"]:
        out.print(f"{report['pending']} events are not shipped yet; --wait waits longer.")
    out.print("Everything agrees." if report["is_whole"] else "There are differences.")
