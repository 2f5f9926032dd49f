"""`penstock usage correct`, `void` and `corrections`: what was wrong about usage, and its money."""

import re
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.bodies import given
from penstock.cli.errors import BAD_OPTION, CommandError
from penstock.cli.instance import DataOption, connect
from penstock.cli.options import option
from penstock.cli.output import JsonOption, examples
from penstock.cli.records import (
    LimitOption,
    YesOption,
    confirm,
    say_done,
    show_list,
    text_of,
    time_of,
)
from penstock.cli.resolving import NameBook, find_usage_filters

if TYPE_CHECKING:
    from penstock.cli.control_client import Row

CORRECTIONS = "/api/v1/usage/corrections"
_QUANTITY = re.compile(r"(?P<meter>[a-z_]+)=(?P<count>[0-9]{1,18})", re.ASCII)

EventArgument = Annotated[str, typer.Argument(help="Id of the event.", metavar="EVENT_ID")]
ReferenceOption = Annotated[
    str, option("--reference", "A ticket, say: booked once for it, for ever.", "REFERENCE")
]
ReasonOption = Annotated[str | None, option("--reason", "For whoever asks later.", "TEXT")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Only say what it changes; book nothing.")
]

CORRECT_EXAMPLES = examples(
    "penstock usage correct 01977f5e-3c00-7000-8000-000000000001 --quantity output=120 "
    "--reference ticket-4711 --dry-run",
    "penstock usage correct 01977f5e-3c00-7000-8000-000000000001 --quantity input=900 "
    "--quantity cached_input=100 --reference ticket-4711",
)
VOID_EXAMPLES = examples(
    "penstock usage void 01977f5e-3c00-7000-8000-000000000001 --reference ticket-4712 --yes"
)
LIST_EXAMPLES = examples(
    "penstock usage corrections --organization acme",
    "penstock usage corrections --event 01977f5e-3c00-7000-8000-000000000001 --json",
)


def correct(
    *,
    event_id: EventArgument,
    quantity: Annotated[
        list[str],
        option("--quantity", "What was used, e.g. output=120; several times.", "METER=NUMBER"),
    ],
    reference: ReferenceOption,
    reason: ReasonOption = None,
    dry_run: DryRunOption = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a usage event should have counted, and book the difference in money.

    Meters: requests, input, cached_input, cache_write_input, audio_input, output,
    reasoning_output, audio_output, images, audio_seconds, characters; no token is on two. Those
    that are not named stay. The event itself stays, too. Said again with its reference, it is the
    same correction.
    """
    body = {
        "event_id": event_id,
        "quantities": parse_quantities(quantity),
        "reference": reference,
        **given(reason=reason),
    }
    _book(body, dry_run=dry_run, data=data, as_json=as_json)


def void(
    *,
    event_id: EventArgument,
    reference: ReferenceOption,
    reason: ReasonOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have a usage event count for nothing, and give back what was charged for it."""
    question = f"Event {event_id} counts for nothing from now on, and cannot be corrected again."
    confirm(question, is_confirmed=yes or dry_run)
    body = {"event_id": event_id, "reference": reference, **given(reason=reason)}
    _book(body, dry_run=dry_run, data=data, as_json=as_json)


def corrections(
    *,
    organization: Annotated[
        str | None,
        typer.Option(
            "--organization",
            "--org",
            help="Only of this organization's usage, by name or id.",
            metavar="ORG",
            show_default=False,
        ),
    ] = None,
    event: Annotated[str | None, option("--event", "Only of this event.", "EVENT_ID")] = None,
    limit: LimitOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List corrections, oldest first, with what each changed. With --json: one object a line."""
    with connect(data) as client:
        wanted = find_usage_filters(client, organization, None, None)
        filters = given(organization_id=wanted.get("organization"), event_id=event)
        names = NameBook(client)
        show_list(
            client.rows(CORRECTIONS, filters),
            (
                ("Made (UTC)", time_of("created_at")),
                ("Organization", lambda row: names.organization(row["organization"])),
                ("Event", text_of("event_id")),
                ("Change", _change),
                ("Charged", lambda row: _money(row["charge"])),
                ("Reference", text_of("reference")),
                ("Reason", text_of("reason")),
                ("Id", text_of("id")),
            ),
            limit=limit,
            as_json=as_json,
            nothing="Nothing was corrected.",
            expendable=("Id", "Organization", "Reason"),
        )


def parse_quantities(words: list[str]) -> dict[str, int]:
    """Return what `--quantity` says, by meter.

    Raises:
        CommandError: One is no `METER=NUMBER`, or a meter is there twice.

    >>> parse_quantities(["input=900", "cached_input=0"])
    {'input': 900, 'cached_input': 0}
    """
    found: dict[str, int] = {}
    for word in words:
        match = _QUANTITY.fullmatch(word)
        if match is None:
            message = f"--quantity {word} is none."
            raise CommandError(BAD_OPTION, message, "Write it like output=120: a whole number.")
        if match["meter"] in found:
            message = f"--quantity {match['meter']} is there twice."
            raise CommandError(BAD_OPTION, message, "Leave one of them out.")
        found[match["meter"]] = int(match["count"])
    return found


def _book(body: "Row", *, dry_run: bool, data: DataOption, as_json: bool) -> None:
    with connect(data) as client:
        row = client.change("POST", CORRECTIONS, {**body, "is_dry_run": dry_run})
    costs = [f"costs {_money(row['cost'])}"] if row["cost"] else []
    changes = "; ".join([_change(row), f"charged {_money(row['charge'])}", *costs])
    end = "Nothing was booked." if dry_run else f"Booked as {row['id']}."
    say_done(row, f"{changes}. {end}", as_json=as_json)


def _change(row: "Row") -> str:
    if row["is_void"]:
        return "void"
    return ", ".join(f"{meter} {delta:+,}" for meter, delta in row["deltas"].items())


def _money(amount: "Row | None") -> str:
    if amount is None:
        return "0"
    sign = "" if amount["amount"].startswith("-") else "+"
    return f"{sign}{amount['amount']} {amount['currency']}"
