"""`penstock audit`: what was done, by whom, and whether the record of it is whole."""

from collections import deque
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.bodies import given
from penstock.cli.errors import EXIT_FAILURE
from penstock.cli.instance import DataOption, connect
from penstock.cli.output import JsonOption, console, examples, print_json
from penstock.cli.records import DEFAULT_ROWS, LimitOption, show_list, text_of, time_of
from penstock.cli.resolving import NameBook, OrgOption, find_place

if TYPE_CHECKING:
    from penstock.cli.control_client import ControlClient
    from penstock.cli.records import Column

AUDIT = "/api/v1/audit"
_OWN_RECORDS = "Each organization has a record of its own: name one with --org ORG."
_NO_CHECKPOINT = "No checkpoint was signed yet, so that its end was cut off would not be seen."

app = typer.Typer(
    name="audit", help="Look at who changed what, or was not allowed to.", no_args_is_help=True
)


class Outcome(StrEnum):
    """How what is recorded ended."""

    DONE = "done"
    DENIED = "denied"


def _filter(name: str, what: str, metavar: str) -> Any:
    return typer.Option(name, help=f"Only of this {what}.", show_default=False, metavar=metavar)


@app.command(
    "list",
    epilog=examples(
        "penstock audit list --org acme",
        "penstock audit list --resource 0aB1cD2eF3gH",
        "penstock audit list --json | jq 'select(.outcome == \"denied\")'",
    ),
)
def list_all(
    *,
    org: OrgOption = None,
    resource: Annotated[str | None, _filter("--resource", "object, by its id", "ID")] = None,
    actor: Annotated[str | None, _filter("--actor", "actor, by its id", "ID")] = None,
    action: Annotated[str | None, _filter("--action", "action, e.g. key.rotate", "NAME")] = None,
    outcome: Annotated[
        Outcome | None, typer.Option(help="Only of this outcome.", show_default=False)
    ] = None,
    limit: LimitOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what was done, and what somebody was not allowed to do: the latest, oldest first.

    Each organization has a record of its own; without --org it is the platform's. With --json:
    one object a line, with the object as it was before and after.
    """
    wanted = given(resource=resource, actor=actor, action=action, outcome=outcome and outcome.value)
    with connect(data) as client:
        filters = {**find_place(client, org, None).filters, **wanted}
        entries = client.rows(AUDIT, filters)
        limit = limit if as_json else limit or DEFAULT_ROWS
        show_list(
            # Control lists the oldest first, and people want to see the latest.
            entries if limit is None else iter(deque(entries, maxlen=limit)),
            _COLUMNS,
            limit=limit,
            as_json=as_json,
            nothing="Nothing matches." if org else f"Nothing matches. {_OWN_RECORDS}",
            expendable=("Address", "Why", "Outcome"),
        )


@app.command(
    "verify", epilog=examples("penstock audit verify", "penstock audit verify --org acme --json")
)
def verify(*, org: OrgOption = None, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Check that nothing of the record was edited, removed or put in another order.

    Names the first broken link. Exit code 1 when there is one.
    """
    with connect(data) as client:
        body = find_place(client, org, None).filters
        found = client.change("POST", f"{AUDIT}/verify", body)
        broken = "" if found.get("is_intact") else _broken_words(client, found.get("broken"))
    is_intact = bool(found.get("is_intact"))
    if as_json:
        print_json(found)
    elif is_intact:
        entries, checkpoints = found.get("entries", 0), found.get("checkpoints", 0)
        sentence = f"The record is whole: {entries:,} entries, {checkpoints:,} signed checkpoints."
        console().print(sentence, style="bold green")
        if not checkpoints:
            console().print(_NO_CHECKPOINT)
    else:
        console().print(f"The record is broken {broken}.", style="bold red", markup=False)
    if not is_intact:
        raise typer.Exit(EXIT_FAILURE)


def _broken_words(client: "ControlClient", broken: object) -> str:
    if not isinstance(broken, dict):
        return "control does not say where"
    owner = broken.get("organization_id")
    whose = f"organization {NameBook(client).organization(owner)}" if owner else "the platform"
    return f"at entry {broken.get('number')} of {whose}: {broken.get('reason')}"


_COLUMNS: "tuple[Column, ...]" = (
    ("When (UTC)", time_of("recorded_at")),
    ("Action", text_of("action")),
    ("Object", text_of("resource_id")),
    ("Actor", text_of("actor_id")),
    ("Address", text_of("address")),
    ("Outcome", text_of("outcome")),
    ("Why", text_of("detail")),
)
