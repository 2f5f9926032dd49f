"""`penstock routes`: where the requests of aliases go."""

from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.bodies import require_changes
from penstock.cli.errors import BAD_OPTION, CommandError
from penstock.cli.instance import DataOption, connect
from penstock.cli.kinds import (
    NAME_AND_ID,
    Kind,
    NameArgument,
    add_delete,
    add_show,
    clearable_reference,
    find_id,
    object_argument,
)
from penstock.cli.options import option
from penstock.cli.output import JsonOption, examples
from penstock.cli.records import LimitOption
from penstock.cli.resolving import DEPLOYMENTS, ROUTES, get_catalog_object

if TYPE_CHECKING:
    from penstock.cli.control_client import ControlClient, Row
    from penstock.cli.resolving import NameBook

MAX_WEIGHT = 1_000

KIND = Kind(
    path=ROUTES,
    columns=lambda names: (
        *NAME_AND_ID,
        ("Choices", lambda row: _choice_words(row, names)),
        ("Fallback", lambda row: names.name(ROUTES, row["fallback_id"])),
    ),
    expendable=("Id",),
    example="llama-70b",
)

app = typer.Typer(
    name=KIND.group,
    help="Manage routes: which deployments serve the requests of aliases.",
    no_args_is_help=True,
)

_CHOICE = option(
    "--choice",
    "Deployment by name or id, and its share (0 to 1000, 1 without it); with 0 it only stands in "
    "when no other can be connected to. Repeat it.",
    "DEPLOYMENT[=WEIGHT]",
)
FallbackOption = Annotated[
    str | None,
    option("--fallback", "Route for when no choice can be connected to.", "ROUTE"),
]


@app.command(
    "create",
    epilog=examples(
        "penstock routes create llama-70b --choice llama-70b-gpu",
        "penstock routes create llama-70b --fallback llama-8b \\",
        "  --choice llama-70b-gpu=9 --choice llama-70b-new=1",
    ),
)
def create(
    *,
    name: NameArgument,
    choice: Annotated[list[str], _CHOICE],
    fallback: FallbackOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a route over deployments."""
    with connect(data) as client:
        body = {"name": name, **_members(client, choice, fallback)}
        KIND.create(client, body, as_json=as_json)


@app.command("list", epilog=examples("penstock routes list"))
def list_all(
    *, limit: LimitOption = None, data: DataOption = None, as_json: JsonOption = False
) -> None:
    """List routes, oldest first. With --json: one object a line."""
    with connect(data) as client:
        KIND.show_all(client, {}, limit=limit, as_json=as_json)


add_show(app, KIND)


@app.command(
    "update",
    epilog=examples(
        "penstock routes update llama-70b --choice llama-70b-gpu --choice llama-70b-b",
        "penstock routes update llama-70b --fallback none",
    ),
)
def update(
    *,
    name: Annotated[str, object_argument(KIND)],
    choice: Annotated[list[str] | None, _CHOICE] = None,
    fallback: FallbackOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change a route; what is not named stays.

    --choice replaces all choices; `--fallback none` takes the fallback away.
    """
    with connect(data) as client:
        changes = _members(client, choice or [], fallback)
        require_changes(changes, "routes update")
        before = get_catalog_object(client, ROUTES, name)
        KIND.change(client, before, changes, as_json=as_json)


add_delete(app, KIND)


def _members(client: "ControlClient", choices: list[str], fallback: str | None) -> "Row":
    """Return the members that were given, with ids in place of names."""
    members: Row = dict(clearable_reference(client, "fallback_id", ROUTES, fallback))
    if choices:
        parsed = [_parse_choice(choice) for choice in choices]
        members["choices"] = [
            {"deployment_id": find_id(client, DEPLOYMENTS, name), "weight": weight}
            for name, weight in parsed
        ]
    return members


def _parse_choice(choice: str) -> tuple[str, int]:
    name, separator, weight = choice.partition("=")
    if not separator:
        return name, 1
    if not (weight.isascii() and weight.isdigit() and int(weight) <= MAX_WEIGHT):
        detail = f"--choice {choice} has no weight from 0 to {MAX_WEIGHT}."
        raise CommandError(BAD_OPTION, detail, "Write --choice DEPLOYMENT or DEPLOYMENT=WEIGHT.")
    return name, int(weight)


def _choice_words(row: "Row", names: "NameBook") -> str:
    return ", ".join(
        f"{names.name(DEPLOYMENTS, choice['deployment_id'])}={choice['weight']}"
        for choice in row["choices"]
    )
